/**
 * How long an import of ten million interactions takes, and how much memory: the job `ingest` in a process of its own over a log that is
 * made first. The process is ended when it takes more than the limit.
 *
 *   npm run bench:import -- [--events 10000000] [--format collimate|recbole|amazon|movielens] [--limit-mib 2048] [--folder DIR]
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { ingestJob } from '../../orchestrator/recommender/ingest-job.js';

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '10000000' },
    format: { type: 'string', default: 'collimate' },
    'limit-mib': { type: 'string', default: '2048' },
    folder: { type: 'string', default: tmpdir() },
    /** The measured process itself, over this log. */
    log: { type: 'string' },
  },
});
const USERS_PER_EVENT = 1 / 12;
const ITEMS = 200_000;
const POLL_MS = 50;

const header: Record<string, string> = {
  recbole: 'user_id:token\titem_id:token\trating:float\ttimestamp:float\n',
  movielens: 'userId,movieId,rating,timestamp\n',
};
const lineOf: Record<string, (user: number, item: number, time: number) => string> = {
  collimate: (user, item, time) => `{"user":"u${user}","item":"i${item}","time":${time}}\n`,
  recbole: (user, item, time) => `u${user}\ti${item}\t4.0\t${time}\n`,
  amazon: (user, item, time) =>
    `{"rating": 5.0, "title": "Good", "text": "Does what it says.", "images": [], "asin": "B${String(item).padStart(9, '0')}", ` +
    `"parent_asin": "B${String(item).padStart(9, '0')}", "user_id": "AE${user}", "timestamp": ${time * 1000}, "helpful_vote": 0}\n`,
  movielens: (user, item, time) => `${user},${item},4.0,${time}\n`,
};

/** Users in bursts, items skewed, times not in order: what a log of many servers looks like. */
async function writeLog(path: string, format: string, events: number): Promise<void> {
  const line = lineOf[format];
  if (line === undefined) {
    throw new Error(`--format: expected one of ${Object.keys(lineOf).join(', ')}, got "${format}"`);
  }
  const users = Math.ceil(events * USERS_PER_EVENT);
  const file = createWriteStream(path);
  let block = header[format] ?? '';
  let state = 12_345;
  const draw = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  for (let event = 0; event < events; event += 1) {
    const skew = draw(1_000_000) / 1_000_000;
    const time = 1_500_000_000 + Math.floor(event / 10) + draw(86_400);
    block += line(draw(users), Math.floor(ITEMS * skew * skew), time);
    if (block.length < 1 << 20) continue;
    if (!file.write(block)) await once(file, 'drain');
    block = '';
  }
  file.end(block);
  await finished(file);
}

interface Measured {
  seconds: number;
  cpuSeconds: number;
  peakMib: number;
  summary: Record<string, unknown>;
}

async function measured(log: string, format: string): Promise<Measured> {
  const outputDir = `${log}.out`;
  await mkdir(outputDir);
  const startedMs = performance.now();
  const recipe = { format, minEventsPerUser: 5, minEventsPerItem: 5, columns: null };
  const { summary } = await ingestJob({ recipe, inputs: { interactions: log }, outputDir, report: () => undefined });
  const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage();
  return {
    seconds: (performance.now() - startedMs) / 1000,
    cpuSeconds: (userCPUTime + systemCPUTime) / 1e6,
    peakMib: maxRSS / 1024,
    summary,
  };
}

/** Runs the import in a child that may take so much memory and no more; answers what it prints. */
async function inChild(log: string, format: string, limitMib: number): Promise<Measured> {
  const self = fileURLToPath(import.meta.url);
  const child = spawn(process.execPath, [self, '--log', log, '--format', format], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let stdout = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  let tooMuchMib = 0;
  const watch = setInterval(() => {
    const mib = residentMib(child.pid ?? 0);
    if (mib <= limitMib) return;
    tooMuchMib = mib;
    child.kill('SIGKILL');
  }, POLL_MS);
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  clearInterval(watch);
  if (tooMuchMib > 0) throw new Error(`expected at most ${limitMib} MiB, got ${Math.round(tooMuchMib)} MiB; ended it`);
  if (code !== 0) throw new Error(`the import ended with ${String(code)}`);
  return JSON.parse(stdout) as Measured;
}

function residentMib(pid: number): number {
  try {
    const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '0';
    return Number(kib) / 1024;
  } catch {
    return 0;
  }
}

if (values.log !== undefined) {
  process.stdout.write(JSON.stringify(await measured(values.log, values.format)));
} else {
  const folder = await mkdtemp(join(values.folder, 'collimate-import-'));
  try {
    const log = join(folder, 'log');
    await writeLog(log, values.format, Number(values.events));
    const mib = (await stat(log)).size / 2 ** 20;
    const { seconds, cpuSeconds, peakMib, summary } = await inChild(log, values.format, Number(values['limit-mib']));
    console.log(`${values.events} events, format ${values.format}, ${mib.toFixed(0)} MiB`);
    console.log(
      `${seconds.toFixed(1)} s (${cpuSeconds.toFixed(1)} s of processor), peak RSS ${peakMib.toFixed(0)} MiB`,
    );
    console.log(JSON.stringify(summary));
    if (peakMib > Number(values['limit-mib'])) process.exitCode = 1;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
