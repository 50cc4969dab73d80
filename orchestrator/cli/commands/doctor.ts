/** `doctor`: what was found of everything the product needs, and what runs in the home. */
import { type Command } from 'commander';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';

import { openStore } from '../../artifacts/store.js';
import { CliError, messageOf } from '../cli-error.js';
import { contextOf } from '../command-context.js';
import { FleetClient } from '../fleet-client.js';
import { type Home, readProcessTable } from '../home.js';
import { type Check, deviceCheck, prometheusCheck, roomCheck, runningPrometheusCheck } from '../machine-checks.js';
import { data, dataJson, green, red, yellow } from '../output.js';
import { isAlive } from '../process-control.js';
import { ENTRY_POINTS, projectRoot, projectVersion } from '../project-paths.js';
import { NAMESPACE } from '../supervisor-config.js';
import { findTemporal, onPath } from '../temporal-binary.js';
import { connectTemporal } from '../temporal-connection.js';

export function addDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .description('list what was found of everything that is needed, and what runs')
    .action(async (_flags: unknown, command: Command) => {
      const { home, output } = contextOf(command);
      const checks = [...toolChecks(), roomCheck(home.root), await storeCheck(home), ...(await homeChecks(home))];
      if (output === 'json') dataJson(checks);
      else checks.forEach((check) => data(describe(check)));
      const missing = checks.filter((check) => check.state === 'missing');
      if (missing.length > 0) {
        const remedy = missing.some(({ name }) => !['artifact store', 'room'].includes(name))
          ? '; "npm run setup" gets programs'
          : '';
        throw new CliError('badInput', `missing: ${missing.map((check) => check.name).join(', ')}${remedy}`);
      }
    });

  program
    .command('version')
    .description('print the version and the engine revision')
    .action((_flags: unknown, command: Command) => {
      const { output } = contextOf(command);
      const info = buildInfo();
      if (output === 'json') dataJson(info);
      else data(`collimate ${info.version} (engine ${info.engineRevision ?? 'not built'})`);
    });
}

function buildInfo(): { version: string; engineRevision: string | null } {
  const file = join(projectRoot, 'dist', 'build-info.json');
  if (!existsSync(file)) return { version: projectVersion(), engineRevision: null };
  return createRequire(import.meta.url)(file) as { version: string; engineRevision: string };
}

function describe(check: Check): string {
  const mark = { ok: green('ok      '), absent: yellow('absent  '), missing: red('missing ') }[check.state];
  return `${mark} ${check.name.padEnd(18)} ${check.detail}`;
}

function toolChecks(): Check[] {
  const temporal = ((): Check => {
    try {
      const found = findTemporal();
      if (found === null) return { name: 'Temporal server', state: 'missing', detail: 'not found' };
      return { name: 'Temporal server', state: 'ok', detail: `${found.path} (${found.source})` };
    } catch (error) {
      return { name: 'Temporal server', state: 'missing', detail: messageOf(error) };
    }
  })();
  const info = buildInfo();
  const built = Object.values(ENTRY_POINTS).filter((path) => !existsSync(join(projectRoot, 'dist', path)));
  return [
    { name: 'machine', state: 'ok', detail: `${cpus().length} CPUs, ${Math.round(totalmem() / 2 ** 30)} GiB memory` },
    nodeCheck(),
    temporal,
    built.length === 0
      ? { name: 'build', state: 'ok', detail: `${info.version}, engine ${info.engineRevision ?? 'unknown'}` }
      : { name: 'build', state: 'missing', detail: `dist/${built.join(', dist/')}` },
    addonCheck(),
    program('C++ compiler', ['c++', 'g++', 'clang++']),
    program('cmake', ['cmake']),
    program('ninja', ['ninja']),
    program('CUDA compiler', ['nvcc']),
    deviceCheck(),
    prometheusCheck(),
    program('promtool', ['promtool']),
  ];
}

function nodeCheck(): Check {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const good = major > 20 || (major === 20 && minor >= 6);
  return {
    name: 'Node.js',
    state: good ? 'ok' : 'missing',
    detail: `${process.versions.node} (20.6 or newer is needed)`,
  };
}

/** Loaded in a process of its own: an addon that crashes must not take the doctor with it. */
function addonCheck(): Check {
  const file = join(projectRoot, 'dist', 'native', 'worker', 'addon.js');
  if (!existsSync(file)) return { name: 'native addon', state: 'missing', detail: 'not built' };
  try {
    const script = `await import(${JSON.stringify(file)})`;
    execFileSync(process.execPath, ['--input-type=module', '-e', script], { stdio: 'pipe', timeout: 20_000 });
    return { name: 'native addon', state: 'ok', detail: 'loads' };
  } catch (error) {
    return { name: 'native addon', state: 'missing', detail: messageOf(error).split('\n').slice(0, 2).join(' ') };
  }
}

function program(name: string, candidates: string[]): Check {
  for (const candidate of candidates) {
    const path = onPath(candidate);
    if (path !== null) return { name, state: 'ok', detail: path };
  }
  return { name, state: 'absent', detail: `no ${candidates.join(' or ')} on the PATH` };
}

/** Looks at what is there: a store that nothing was written to yet is made by the first run. */
async function storeCheck(home: Home): Promise<Check> {
  const isFolder = home.store.startsWith('/');
  const check = { name: 'artifact store', detail: home.store };
  if (isFolder && !existsSync(home.store)) return { ...check, state: 'ok', detail: `${home.store}: made by "up"` };
  try {
    await openStore(home.store).probe();
    return { ...check, state: 'ok', detail: `${home.store}: writes and reads` };
  } catch (error) {
    return { ...check, state: 'missing', detail: messageOf(error) };
  }
}

async function homeChecks(home: Home): Promise<Check[]> {
  const table = readProcessTable(home);
  if (table === null || !isAlive(table.supervisor)) {
    return [{ name: 'home', state: 'ok', detail: `${home.root}: nothing is up` }];
  }
  const { addresses } = table;
  const checks: Check[] = [{ name: 'home', state: 'ok', detail: `${home.root}: ${table.state}` }];
  try {
    const session = await connectTemporal(addresses.temporal, NAMESPACE);
    await session.close();
    checks.push({
      name: 'Temporal',
      state: 'ok',
      detail: `answers at ${addresses.temporal}, UI http://${addresses.ui ?? '-'}`,
    });
  } catch (error) {
    checks.push({ name: 'Temporal', state: 'missing', detail: messageOf(error) });
  }
  if (addresses.prometheus !== null) checks.push(await runningPrometheusCheck(addresses.prometheus));
  const fleet = new FleetClient(addresses.controller);
  try {
    const { workers } = await fleet.listWorkers();
    checks.push({ name: 'controller', state: 'ok', detail: `answers at ${addresses.controller}` });
    for (const { hello, lease } of workers) {
      const job = lease === null ? 'idle' : `works for ${lease.jobId}`;
      checks.push({
        name: `worker ${hello?.workerId ?? '?'}`,
        state: 'ok',
        detail: `${hello?.address ?? '?'}, pid ${hello?.pid ?? 0}, ${hello?.numericsClass ?? '?'}, ${job}`,
      });
    }
  } catch (error) {
    checks.push({ name: 'controller', state: 'missing', detail: messageOf(error) });
  } finally {
    fleet.close();
  }
  return checks;
}
