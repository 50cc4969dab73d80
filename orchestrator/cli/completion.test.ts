/** Completion scripts in the shells that are here. */
import { spawnSync } from 'node:child_process';

import { Command } from 'commander';
import { describe, expect, it } from 'vitest';

import { completionScript, placesOf } from './completion.js';

const program = new Command('collimate').option('--home <dir>', "the state's home");
program.command('run').description('start a run').option('--data <dir>', 'data folder');
const fleet = program.command('fleet').description('list the workers');
fleet.command('drain').description('hand over').option('--timeout <seconds>', 'how long');
fleet.command('cordon').description('no new job');

/** What bash offers behind these words. */
function offered(...words: string[]): string[] {
  const line = ['collimate', ...words].map((word) => `'${word}'`).join(' ');
  const script = `${completionScript('bash', program)}
COMP_WORDS=(${line}); COMP_CWORD=${words.length}; _collimate; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr, status } = spawnSync('bash', ['--norc', '-c', script], { encoding: 'utf8', timeout: 10_000 });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout.split('\n').filter(Boolean);
}

describe('bash', () => {
  it('completes commands, subcommands and the options of each', () => {
    expect(offered('f')).toEqual(['fleet']);
    expect(offered('fleet', '')).toEqual(['drain', 'cordon', 'help', '--home', '--help']);
    expect(offered('fleet', 'drain', '--t')).toEqual(['--timeout']);
    expect(offered('run', '--d')).toEqual(['--data']);
  });

  it('sees the command behind global options, and offers nothing that does not fit', () => {
    expect(offered('--home', '/x', 'fleet', 'c')).toEqual(['cordon']);
    expect(offered('run', 'dr')).toEqual([]);
  });
});

it('zsh takes the same words through its own bridge', () => {
  expect(completionScript('zsh', program)).toMatch(/^autoload -U \+X bashcompinit && bashcompinit\n_collimate\(\) \{/);
});

it('fish gets a line for each word, with what it does', () => {
  const script = completionScript('fish', program);
  expect(script).toContain("-a fleet -d 'list the workers'");
  expect(script).toContain(
    "complete -c collimate -n '__fish_seen_subcommand_from fleet; and __fish_seen_subcommand_from drain' -l timeout -d 'how long'",
  );
  expect(script).toContain("-l home -d 'the state\\'s home'");
});

it('knows every place', () => {
  expect(placesOf(program).map(({ path }) => path.join(' '))).toEqual([
    '',
    'run',
    'fleet',
    'fleet drain',
    'fleet cordon',
  ]);
});
