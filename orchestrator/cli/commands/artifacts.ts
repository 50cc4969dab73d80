/** `artifacts du`, `verify` and `gc`: what the store holds, whether it is whole, and what nobody needs any more. */
import { type Command } from 'commander';

import { type Amount, type StoreUsage } from '../../artifacts/store.js';
import { CliError } from '../cli-error.js';
import { contextOf, withStore } from '../command-context.js';
import { data, dataJson, liveProgress, progress, table } from '../output.js';

const HOURS_DEFAULT = 24;

export function addArtifactsCommand(program: Command): void {
  const artifacts = program.command('artifacts').description('look after the artifact store; needs no server');

  artifacts
    .command('du')
    .description('how much the store holds, and what refers to it; what several refer to counts for each')
    .action(async (_flags: unknown, command: Command) => {
      const { home, output } = contextOf(command);
      const usage = await withStore(home, (store) => store.usage());
      if (output === 'json') dataJson(usage);
      else data(describeUsage(usage));
    });

  artifacts
    .command('verify')
    .description('hash every object; damaged ones are moved aside and made again when next needed. Exit code 1 if any')
    .action(async (_flags: unknown, command: Command) => {
      const { home, output } = contextOf(command);
      const check = await withStore(home, (store) =>
        store.checkObjects((so) => liveProgress(`${so.objects} objects, ${formatBytes(so.bytes)}`)),
      );
      if (output === 'json') dataJson(check);
      else {
        data(
          `${check.objects} objects, ${formatBytes(check.bytes)}: ${verdictOf(check.damaged.length, check.missing.length)}`,
        );
        for (const { digest, message } of check.damaged) data(`damaged  ${digest}  ${message}`);
        for (const { digest, namedBy } of check.missing) data(`missing  ${digest}  named by ${namedBy}`);
      }
      if (check.damaged.length + check.missing.length > 0) {
        throw new CliError(
          'runFailed',
          'the store is not whole; what is damaged or missing is made again when a run needs it, unless it was an input',
        );
      }
    });

  artifacts
    .command('gc')
    .description('remove objects that no run, job result or checkpoint refers to')
    .option(
      '--older-than <hours>',
      'younger ones stay: outputs are written before what refers to them',
      hours,
      HOURS_DEFAULT,
    )
    .option('--dry-run', 'say what would be removed, and remove nothing')
    .action(async (flags: { olderThan: number; dryRun?: boolean }, command: Command) => {
      const { home, output } = contextOf(command);
      const dryRun = flags.dryRun === true;
      const removed = await withStore(home, (store) =>
        store.collectGarbage({ olderThanSeconds: flags.olderThan * 3_600, dryRun }),
      );
      if (output === 'json') dataJson({ ...removed, dryRun });
      else data(`${dryRun ? 'would remove' : 'removed'} ${removed.objects} objects, ${formatBytes(removed.bytes)}`);
      if (dryRun) progress('nothing was removed; leave --dry-run out to do it');
    });
}

/** A job may take hours from its first output to its result; an hour is the least that can be meant. */
function hours(text: string): number {
  const value = Number(text);
  if (!(value >= 1) || !Number.isFinite(value)) {
    throw new CliError(
      'badInput',
      `--older-than: expected hours from 1 on, got "${text}"; what a running job has written must stay`,
    );
  }
  return value;
}

function verdictOf(damaged: number, missing: number): string {
  return damaged + missing === 0 ? 'all whole' : `${damaged} damaged, ${missing} missing`;
}

function describeUsage({ all, jobResults, checkpoints, unreferenced, runs }: StoreUsage): string {
  const row = (name: string, { objects, bytes }: Amount): string[] => [name, String(objects), formatBytes(bytes)];
  const largestFirst = Object.entries(runs).sort(([, a], [, b]) => b.bytes - a.bytes);
  const columns = [
    { title: 'WHAT' },
    { title: 'OBJECTS', align: 'right' as const },
    { title: 'SIZE', align: 'right' as const },
  ];
  return table(columns, [
    row('all', all),
    row('results of jobs', jobResults),
    row('checkpoints', checkpoints),
    row('referred to by nothing', unreferenced),
    ...largestFirst.map(([run, amount]) => row(`run ${run}`, amount)),
  ]);
}

export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024;
  return `${unit === 0 ? String(value) : value.toFixed(1)} ${units[unit] ?? ''}`;
}
