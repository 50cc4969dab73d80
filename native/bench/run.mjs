// `npm run bench [-- --peers] [--threads N] [--json]`: the native benchmarks, and beside each the peer on the same work.
//
// 1. Ours and the peer's run in turn, section by section, on the machine as it is; only ratios are worth keeping.
// 2. Peers need a Python with torch, transformers and faiss: COLLIMATE_PYTHON names it (default python3).
// Not measured here: reading data, checkpoints, more than one process.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const bench = dirname(fileURLToPath(import.meta.url));
const build = join(bench, '..', '..', 'build', 'native');
const { values: flags } = parseArgs({
  options: {
    peers: { type: 'boolean', default: false },
    threads: { type: 'string', default: '2' },
    json: { type: 'boolean', default: false },
  },
});

/** JSON lines of a command's output. */
function jsonLines(command, args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 26 });
  if (error !== undefined || status !== 0) {
    console.error(`${command} ${args.join(' ')} failed: ${error?.message ?? stderr.trim().split('\n').at(-1)}`);
    return [];
  }
  const lines = stdout.split('\n').filter((line) => line.startsWith('{'));
  return lines.map((line) => JSON.parse(line));
}

function ours(program, args) {
  const path = join(build, program);
  if (!existsSync(path)) {
    console.error(`${path} is missing: run "npm run build:native"`);
    process.exit(1);
  }
  return jsonLines(path, args);
}

/** Both benches of clustering come from one program. */
let clustering = null;
const clusteringLines = () => (clustering ??= ours('bench_kmeans', [flags.threads]));

/** Per section: how our lines become rows with the peer's names. A higher rate, or a lower time, is better. */
const sections = [
  {
    peer: 'kmeans',
    rows: () =>
      clusteringLines()
        .filter(({ bench: name, init }) => name === 'kmeans' && init === 'random')
        .map((line) => ({
          work: `kmeans ${line.n} x ${line.d}`,
          best: line.seconds_min,
          median: line.seconds_median,
          quality: `objective ${line.objective.toPrecision(6)}`,
        })),
  },
  {
    peer: 'rq',
    rows: () =>
      clusteringLines()
        .filter(({ bench: name }) => name === 'rq_encode')
        .map((line) => ({
          work: `residual encode ${line.n} x ${line.d}`,
          best: line.rows_s_max,
          median: line.rows_s_median,
          quality: `error ${line.sq_error.toPrecision(4)}`,
        })),
  },
  {
    peer: 'full',
    rows: () =>
      ours('bench_tune', [flags.threads]).map((line) => ({
        work: 'full training step, scratch',
        best: line.tok_s_max,
        median: line.tok_s_median,
      })),
  },
  {
    peer: 'beam',
    rows: () =>
      ours('bench_beam', [flags.threads]).map((line) => ({
        work: 'constrained beam, scratch',
        best: line.users_s_max,
        median: line.users_s_median,
      })),
  },
];

const UNITS = { kmeans: 's', rq: 'rows/s', full: 'tok/s', beam: 'users/s' };
const cpuFlags = /^flags\s*:\s*(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.split(' ') ?? [];
const isa = ['avx2', 'avx512f', 'avx512_bf16', 'amx_tile'].filter((flag) => cpuFlags.includes(flag)).join(' ');
const table = [];
for (const section of sections) {
  const mine = section.rows();
  const python = process.env.COLLIMATE_PYTHON ?? 'python3';
  const peers = flags.peers
    ? jsonLines(python, [join(bench, 'peers_cpu.py'), section.peer, '--threads', flags.threads])
    : [];
  for (const row of mine) {
    const peer = peers.find(({ work }) => work === row.work);
    const unit = UNITS[section.peer];
    const ratio = peer === undefined ? null : unit === 's' ? peer.median / row.median : row.median / peer.median;
    const peerQuality = peer?.objective ?? peer?.error ?? null;
    table.push({ ...row, unit, ours: row.median, peer: peer?.median ?? null, peerQuality, ratio });
  }
}
if (flags.json) {
  for (const row of table) console.log(JSON.stringify({ ...row, threads: Number(flags.threads) }));
} else {
  console.log(`${cpus()[0]?.model ?? 'unknown CPU'} (${isa}), ${flags.threads} threads, medians`);
  const short = (value) => (value === null ? '-' : value.toPrecision(4));
  for (const { work, unit, ours: mine, peer, ratio, quality, peerQuality } of table) {
    const qualities = quality === undefined ? '' : `   ${quality} (peer ${peerQuality?.toPrecision(6) ?? '-'})`;
    console.log(
      `${work.padEnd(32)} ${short(mine).padStart(10)} ${short(peer).padStart(10)} ${unit.padEnd(8)} ${ratio === null ? '' : `${ratio.toFixed(2)} x`}${qualities}`,
    );
  }
}
