// `npm run bench [-- --peers] [--threads N] [--json] [--only TEXT]`: the native benchmarks, and beside each the peer on the same work.
// `npm run bench -- --ops [--threads N] [--json] [--only TEXT]`: each op alone against the machine's roofline (bench_ops), the furthest first.
//
// 1. Ours and the peer's run in turn, row by row, on the machine as it is; only ratios are worth keeping. Where a peer has
//    several configurations each is run, ours before the first and after the last, and the best of the peer's counts.
// 2. Peers need a Python with torch, transformers, peft and faiss: COLLIMATE_PYTHON names it (default python3).
// 3. The floor beside a row is what the machine's measured peak allows for the work's multiply-adds.
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
    ops: { type: 'boolean', default: false },
    threads: { type: 'string', default: '2' },
    json: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
  },
});
const python = process.env.COLLIMATE_PYTHON ?? 'python3';

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

/** A training step, products in fp32 or in bf16 on both sides. */
const training = (work, section, bar, precision = []) => ({
  work: [work, ...precision.map(() => 'bf16')].join(', '),
  bar,
  unit: 'tok/s',
  ours: () => ours('bench_tune', ['--threads', flags.threads, ...precision, work]).filter((line) => line.work === work),
  peers: [
    [section, ...precision],
    [section, '--compiled', ...precision],
  ],
});

/** A line of bench_kmeans under the peer's names. */
const clustering = (work, matches, unit, bar, section) => ({
  work,
  bar,
  unit,
  ours: () =>
    ours('bench_kmeans', [flags.threads])
      .filter(matches)
      .map((line) => ({
        work,
        best: line.seconds_min ?? line.rows_s_max,
        median: line.seconds_median ?? line.rows_s_median,
        quality: line.objective ?? line.sq_error,
      })),
  peers: [[section]],
});
const isKmeans = (n) => (line) => line.bench === 'kmeans' && line.init === 'random' && line.n === n;
const isEncode =
  (n, beam = 1) =>
  (line) =>
    line.bench === 'rq_encode' && line.n === n && line.beam === beam;

if (flags.ops) {
  const lines = ours('bench_ops', ['--threads', flags.threads, '--only', flags.only]);
  for (const line of lines.filter(({ work }) => work !== undefined).toSorted((a, b) => a.roof - b.roof)) {
    if (flags.json) console.log(JSON.stringify(line));
    else
      console.log(
        `${line.work.padEnd(58)} ${line.us_min.toFixed(1).padStart(10)} µs ${line.gflop_s.toFixed(1).padStart(8)} GFLOP/s ` +
          `${line.gb_s.toFixed(1).padStart(7)} GB/s ${(100 * line.roof).toFixed(1).padStart(6)} % of ${line.bound}`,
      );
  }
  process.exit(lines.length > 0 ? 0 : 1);
}

const [machine] = ours('bench_machine', [flags.threads]);
/** The bars are ratios that we mean to reach on every machine; `null`: none set. */
const rows = [
  clustering('kmeans 200000 x 64', isKmeans(200_000), 's', 1.7, 'kmeans'),
  clustering('kmeans 50000 x 768', isKmeans(50_000), 's', 1.2, 'kmeans'),
  clustering('residual encode 200000 x 64', isEncode(200_000), 'rows/s', 4, 'rq'),
  clustering('residual encode 50000 x 768', isEncode(50_000), 'rows/s', 4, 'rq'),
  clustering('residual encode 200000 x 64, beam 5', isEncode(200_000, 5), 'rows/s', null, 'rq'),
  clustering('residual encode 50000 x 768, beam 5', isEncode(50_000, 5), 'rows/s', null, 'rq'),
  training('full training step, scratch', 'full', 1.3),
  training('LoRA step, small', 'lora', 1.5),
  training('LoRA step, small, answers only, uneven lengths', 'answers', 3),
  training('LoRA step, qwen0.5b', 'qwen', 1.5),
  ...(machine !== undefined && machine.bf16_unit !== 'none'
    ? [
        training('LoRA step, small', 'lora', 1.5, ['--bf16']),
        training('LoRA step, small, answers only, uneven lengths', 'answers', 3, ['--bf16']),
        training('LoRA step, qwen0.5b', 'qwen', 1.5, ['--bf16']),
      ]
    : []),
  {
    work: 'constrained beam, scratch',
    bar: 20,
    unit: 'users/s',
    ours: () =>
      ours('bench_beam', [flags.threads]).map((line) => ({
        work: 'constrained beam, scratch',
        best: line.users_s_max,
        median: line.users_s_median,
      })),
    peers: [['beam']],
  },
];

const middle = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
/** Peers' lines by their arguments: a section that speaks of several rows runs once. */
const peerLines = new Map();
function peerRows(args) {
  const key = args.join(' ');
  if (!peerLines.has(key)) {
    peerLines.set(key, jsonLines(python, [join(bench, 'peers_cpu.py'), ...args, '--threads', flags.threads]));
  }
  return peerLines.get(key);
}

function measure(row) {
  const runs = row.ours();
  const peers = flags.peers ? row.peers.flatMap((args) => peerRows(args)).filter(({ work }) => work === row.work) : [];
  if (flags.peers) runs.push(...row.ours());
  if (runs.length === 0) return null;
  const lessIsBetter = row.unit === 's';
  const rank = (a, b) => (lessIsBetter ? a.median - b.median : b.median - a.median);
  const peer = peers.toSorted(rank)[0] ?? null;
  const mine = middle(runs.map(({ median }) => median));
  return {
    work: row.work,
    ours: mine,
    oursBest: runs.toSorted(rank)[0].best,
    peer: peer?.median ?? null,
    peerBest: peer?.best ?? null,
    peerName: peer?.peer ?? null,
    unit: row.unit,
    ratio: peer === null ? null : lessIsBetter ? peer.median / mine : mine / peer.median,
    bar: row.bar,
    quality: runs[0].quality ?? null,
    peerQuality: peer?.objective ?? peer?.error ?? null,
    gflopS: runs[0].gflop_s ?? null,
    peakMb: runs[0].peak_mb ?? null,
    peerPeakMb: peer === null ? null : Math.min(...peers.map((line) => line.peak_mb ?? Infinity)),
    lanes: runs[0].lanes ?? null,
    threads: Number(flags.threads),
  };
}

const cpuFlags = /^flags\s*:\s*(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.split(' ') ?? [];
const isa = ['avx2', 'avx512f', 'avx512_bf16', 'amx_tile'].filter((flag) => cpuFlags.includes(flag)).join(' ');
const short = (value) => (value === null ? '-' : value.toPrecision(4));
if (flags.json) {
  console.log(JSON.stringify({ ...machine, cpu: cpus()[0]?.model ?? null, flags: isa }));
} else {
  console.log(`${cpus()[0]?.model ?? 'unknown CPU'} (${isa}), ${flags.threads} threads, medians`);
  console.log(
    `peak ${short(machine?.fma_gflop_s ?? null)} GFLOP/s, product ${short(machine?.gemm_gflop_s ?? null)} GFLOP/s, ` +
      `bf16 product (${machine?.bf16_unit ?? '-'}) ${short(machine?.bf16_gemm_gflop_s ?? null)} GFLOP/s, ` +
      `memory ${short(machine?.read_gb_s ?? null)} GB/s`,
  );
}
for (const row of rows.filter(({ work }) => work.includes(flags.only))) {
  const line = measure(row);
  if (line === null) continue;
  if (flags.json) {
    console.log(JSON.stringify(line));
    continue;
  }
  const details = [
    line.ratio === null ? null : `${line.ratio.toFixed(2)} x (bar ${line.bar ?? 'none'})`,
    line.peerName,
    line.quality === null ? null : `quality ${line.quality.toPrecision(5)} / ${short(line.peerQuality)}`,
    line.gflopS === null ? null : `${line.gflopS.toFixed(0)} GFLOP/s`,
    line.peakMb === null ? null : `peak ${line.peakMb.toFixed(0)} / ${short(line.peerPeakMb)} MB`,
  ];
  console.log(
    `${line.work.padEnd(48)} ${short(line.ours).padStart(10)} ${short(line.peer).padStart(10)} ${line.unit.padEnd(8)} ` +
      details.filter((detail) => detail !== null).join('   '),
  );
}
