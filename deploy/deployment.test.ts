/** The compose file, the images' entry point, the units and Grafana's provisioning, as far as tools can tell without running them. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';

import { projectRoot } from '../orchestrator/build-info.js';

const DEPLOY = join(projectRoot(), 'deploy');
const folder = mkdtempSync(join(tmpdir(), 'collimate-deploy-'));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

function run(command: string, args: string[], env: NodeJS.ProcessEnv = process.env) {
  return spawnSync(command, args, { encoding: 'utf8', timeout: 20_000, env });
}
const withCompose = it.skipIf(run('docker-compose', ['version']).error !== undefined);
const withSystemd = it.skipIf(run('systemd-analyze', ['--version']).error !== undefined);

interface Compose {
  services: Record<string, { command?: string[]; volumes?: string[]; build?: { dockerfile: string; target: string } }>;
}

describe('the compose file', () => {
  const file = join(DEPLOY, 'compose', 'compose.yml');
  const { services } = parse(readFileSync(file, 'utf8'), { merge: true }) as Compose;

  withCompose('is one that compose accepts', () => {
    const { status, stderr } = run('docker-compose', ['-f', file, 'config', '--quiet']);
    expect(status, stderr).toBe(0);
  });

  it('has what Prometheus scrapes, and mounts what is there', () => {
    const scraped = readFileSync(join(DEPLOY, 'prometheus', 'prometheus.yml'), 'utf8');
    for (const [, host = ''] of scraped.matchAll(/(?:'|\/\/)(\w+):9090/g)) expect(services).toHaveProperty(host);
    const mounts = Object.values(services).flatMap(({ volumes = [] }) =>
      volumes.filter((volume) => volume.startsWith('.')),
    );
    expect(mounts.length).toBe(3);
    for (const mount of mounts)
      expect(existsSync(join(DEPLOY, 'compose', mount.split(':')[0] ?? '')), mount).toBe(true);
  });

  it('builds a target of the container file', () => {
    const { dockerfile = '', target } = services['controller']?.build ?? {};
    expect(readFileSync(join(projectRoot(), dockerfile), 'utf8')).toContain(` AS ${String(target)}\n`);
  });
});

describe('the entry point of the images', () => {
  /** Node's arguments, told by a program of that name. */
  function started(role: string): string[] {
    const bin = join(folder, 'bin');
    mkdirSync(bin, { recursive: true });
    writeFileSync(join(bin, 'node'), '#!/bin/sh\nprintf "%s\\n" "$@"\n', { mode: 0o755 });
    const env = { ...process.env, PATH: `${bin}:${process.env['PATH'] ?? ''}`, COLLIMATE_ADDRESS: '10.0.0.1' };
    const { status, stdout, stderr } = run(join(DEPLOY, 'compose', 'start'), [role], {
      ...env,
      COLLIMATE_ROOT: projectRoot(),
    });
    expect(status, stderr).toBe(0);
    return stdout.trimEnd().split('\n');
  }

  it.each(['controller', 'worker', 'serve'])('starts a %s with flags that it has', (role) => {
    const [main = '', ...args] = started(role);
    const source = main.replace('/dist/', '/').replace(/\.js$/, '.ts');
    const known =
      /parseOptions\(\s*\{([\s\S]*?)\n?\s*\},?\s*process\.argv/.exec(readFileSync(source, 'utf8'))?.[1] ?? '';
    const flags = args.filter((argument) => argument.startsWith('--'));
    expect(flags.length).toBeGreaterThan(2);
    for (const flag of flags) expect(known).toMatch(new RegExp(`\\b${flag.slice(2)}'?:`));
  });

  it('refuses what it does not know', () => {
    const { status, stderr } = run(join(DEPLOY, 'compose', 'start'), ['wroker']);
    expect(status).toBe(2);
    expect(stderr).toContain('expected controller, worker or serve, got "wroker"');
  });
});

describe('the units', () => {
  const units = readdirSync(join(DEPLOY, 'systemd')).filter((name) => name.endsWith('.service'));

  withSystemd('are what systemd accepts', () => {
    for (const unit of units) {
      // Where it would be installed there is nothing here; a template is verified as an instance.
      const text = readFileSync(join(DEPLOY, 'systemd', unit), 'utf8').replaceAll('/opt/collimate', projectRoot());
      const path = join(folder, unit.replace('@', '@w-1'));
      writeFileSync(path, text);
      const { status, stdout, stderr } = run('systemd-analyze', ['verify', '--man=no', path]);
      expect(`${stdout}${stderr}`.split('\n').filter((line) => line.includes(path) || line.includes(unit))).toEqual([]);
      expect(status).toBe(0);
    }
  });

  it('use only settings that the example has, and flags that the processes have', () => {
    const env = readFileSync(join(DEPLOY, 'systemd', 'collimate.env'), 'utf8');
    for (const unit of units) {
      const text = readFileSync(join(DEPLOY, 'systemd', unit), 'utf8');
      const names = [...text.matchAll(/\$\{(\w+)\}/g)].map(([, name = '']) => name);
      expect(names.length).toBeGreaterThan(0);
      for (const name of names) expect(env, unit).toMatch(new RegExp(`^${name}=`, 'm'));
    }
  });
});

describe('the provisioning of Grafana', () => {
  it('points at the data source of the compose file and at the folder that is mounted', () => {
    const source = readFileSync(join(DEPLOY, 'grafana/provisioning/datasources/prometheus.yml'), 'utf8');
    const provider = readFileSync(join(DEPLOY, 'grafana/provisioning/dashboards/collimate.yml'), 'utf8');
    const compose = readFileSync(join(DEPLOY, 'compose', 'compose.yml'), 'utf8');
    const { datasources } = parse(source) as { datasources: { url: string }[] };
    const { providers } = parse(provider) as { providers: { options: { path: string } }[] };
    expect(compose).toContain(`\n  ${new URL(datasources[0]?.url ?? '').hostname}:\n`);
    expect(compose).toContain(`../grafana/dashboards:${providers[0]?.options.path ?? ''}:ro`);
  });
});
