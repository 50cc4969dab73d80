/**
 * The addon on real native threads: a small job from start to resume, every way a job ends, gangs that change, and the
 * single ops.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import {
  createListener,
  kmeans,
  loraBackward,
  loraForward,
  numericsClass,
  residualEncode,
  residualQuantize,
  startJob,
  type NativeGang,
  type NativeJob,
  type NativeJobHooks,
  type NativeJobOptions,
} from './addon.js';

const ITEMS = 90;
const DIM = 6;
/** Of the toy decoder: so many that what a test asks of a running job comes long before its end. */
const STEPS = 400;

let folder = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'collimate-addon-'));
  await writeFile(join(folder, 'items.safetensors'), safetensorsOf('items', [ITEMS, DIM], values(ITEMS * DIM)));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** Reproducible numbers in [-1, 1). */
function values(count: number): Float32Array {
  let state = 12345;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

interface Tensor {
  dtype: 'F32' | 'I32' | 'I64' | 'U8';
  shape: number[];
  data: Float32Array | Int32Array | BigInt64Array | Uint8Array;
}

/** Tensors are laid out in the order of their names, which the format wants. */
function safetensorsFile(tensors: Record<string, Tensor>): Buffer {
  const entries = Object.entries(tensors).sort(([a], [b]) => (a < b ? -1 : 1));
  let offset = 0;
  const header: Record<string, unknown> = {};
  for (const [name, { dtype, shape, data }] of entries) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  const json = JSON.stringify(header);
  const padded = json.padEnd(Math.ceil(json.length / 8) * 8, ' ');
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([size, Buffer.from(padded), ...entries.map(([, { data }]) => Buffer.from(data.buffer))]);
}

function safetensorsOf(name: string, shape: number[], data: Float32Array): Buffer {
  return safetensorsFile({ [name]: { dtype: 'F32', shape, data } });
}

async function codebooksJob(name: string, changes: Partial<NativeJobOptions> = {}): Promise<NativeJobOptions> {
  const outputDir = join(folder, name, 'output');
  const scratchDir = join(folder, name, 'scratch');
  await mkdir(outputDir, { recursive: true });
  await mkdir(scratchDir, { recursive: true });
  return {
    kind: 'codebooks',
    recipe: {
      levels: 3,
      codes: 8,
      iterations: 6,
      beam: 1,
      collaborativeWeight: 1,
      textWeight: 1,
      holdoutShare: 0,
      seed: 3,
    },
    inputs: { collaborative: join(folder, 'items.safetensors') },
    outputDir,
    scratchDir,
    resumeDir: null,
    checkpointIntervalSteps: 0,
    threads: 1,
    gang: null,
    ...changes,
  };
}

function quietHooks(changes: Partial<NativeJobHooks> = {}): NativeJobHooks {
  return { onStep: () => undefined, onLog: () => undefined, onCheckpoint: () => undefined, ...changes };
}

async function run(options: NativeJobOptions, hooks = quietHooks()): Promise<string> {
  const outcome = await startJob(options, hooks).promise;
  expect(outcome.kind).toBe('finished');
  const codes = outcome.outputs['codes'];
  if (codes === undefined) throw new Error('the job has no output named codes');
  return createHash('sha256')
    .update(await readFile(codes))
    .digest('hex');
}

describe('native jobs', () => {
  it('give the same bytes with 1 and 2 threads, and report their steps', async () => {
    const steps: number[] = [];
    const hooks = quietHooks({ onStep: (step) => steps.push(step) });
    const one = await run(await codebooksJob('one'), hooks);
    expect(steps.length).toBeGreaterThan(0);
    expect([...steps].sort((a, b) => a - b)).toEqual(steps);
    expect(await run(await codebooksJob('two', { threads: 2 }))).toBe(one);
  });

  it('resume from any checkpoint to the same bytes', async () => {
    const whole = await run(await codebooksJob('whole'));
    const folders: string[] = [];
    const kept: Promise<void>[] = [];
    const hooks = quietHooks({
      onCheckpoint: (step, from) => {
        expect(existsSync(join(from, 'state.json'))).toBe(true);
        const to = join(folder, `kept-${String(step)}`);
        folders.push(to);
        kept.push(cp(from, to, { recursive: true }));
      },
    });
    expect(await run(await codebooksJob('parts', { checkpointIntervalSteps: 4 }), hooks)).toBe(whole);
    await Promise.all(kept);
    expect(folders.length).toBeGreaterThan(0);
    for (const [index, resumeDir] of folders.entries()) {
      expect(await run(await codebooksJob(`resumed-${String(index)}`, { resumeDir }))).toBe(whole);
    }
  });

  it('stop with a checkpoint when asked', async () => {
    const order: string[] = [];
    const job = startJob(
      await tuneJob('stop'),
      quietHooks({ onCheckpoint: (step) => order.push(`checkpoint ${String(step)}`) }),
    );
    job.requestControl(2);
    const outcome = await job.promise;
    order.push(outcome.kind);
    // Asked long before the last step; the hook comes before the promise.
    expect(order).toEqual([`checkpoint ${String(outcome.step)}`, 'stopped']);
  });

  it('end as aborted, and name bad input', async () => {
    // A job of many steps: a short one may end before this thread comes to abort it.
    const aborted = startJob(await tuneJob('abort'), quietHooks());
    aborted.abort();
    await expect(aborted.promise).rejects.toMatchObject({ code: 'aborted' });
    const unknown = startJob(await codebooksJob('kind', { kind: 'no-such-kind' }), quietHooks());
    await expect(unknown.promise).rejects.toMatchObject({ code: 'bad_input' });
    const lacking = startJob(await codebooksJob('input', { inputs: {} }), quietHooks());
    await expect(lacking.promise).rejects.toThrow(/collaborative/);
    const nowhere = await codebooksJob('nowhere', { outputDir: join(folder, 'absent') });
    expect(() => startJob(nowhere, quietHooks())).toThrow(/outputDir/);
  });

  it('are aborted by a hook that throws, with its error', async () => {
    const hooks = quietHooks({
      onStep: () => {
        throw new Error('the hook is broken');
      },
    });
    await expect(startJob(await codebooksJob('hook'), hooks).promise).rejects.toThrow('the hook is broken');
  });

  it('find that a peer never came', async () => {
    const listener = createListener('127.0.0.1');
    const absent = createListener('127.0.0.1');
    const addresses = [listener.address, absent.address];
    const gang = { rank: 0, world: 2, generation: 'g#1', addresses, listener: listener.handle };
    const job = startJob(await codebooksJob('gang', { gang }), quietHooks());
    setTimeout(() => {
      job.abort();
    }, 50);
    await expect(job.promise).rejects.toMatchObject({ code: 'aborted' });
    expect(() => createListener('0.0.0.0')).toThrow(/private/);
  });
});

/** A toy decoder that learns to count by threes; the first two of six tokens are the prompt. */
async function tuneJob(name: string, changes: Partial<NativeJobOptions> = {}): Promise<NativeJobOptions> {
  const examples = 20;
  const length = 6;
  const tokens = Int32Array.from(
    { length: examples * length },
    (_, i) => (Math.floor(i / length) * 5 + (i % length) * 3) % 24,
  );
  const offsets = BigInt64Array.from({ length: examples + 1 }, (_, i) => BigInt(i * length));
  const mask = Uint8Array.from({ length: tokens.length }, (_, i) => (i % length < 2 ? 0 : 1));
  await writeFile(
    join(folder, 'train_examples'),
    safetensorsFile({
      tokens: { dtype: 'I32', shape: [tokens.length], data: tokens },
      offsets: { dtype: 'I64', shape: [offsets.length], data: offsets },
      label_mask: { dtype: 'U8', shape: [mask.length], data: mask },
    }),
  );
  await writeFile(
    join(folder, 'vocabulary'),
    safetensorsFile({ sizes: { dtype: 'I64', shape: [2], data: BigInt64Array.from([24n, 16n]) } }),
  );
  const outputDir = join(folder, name, 'output');
  const scratchDir = join(folder, name, 'scratch');
  await mkdir(outputDir, { recursive: true });
  await mkdir(scratchDir, { recursive: true });
  return {
    kind: 'tune',
    recipe: {
      base: {
        kind: 'scratch',
        layers: 1,
        dim: 16,
        heads: 2,
        kvHeads: 1,
        ffnDim: 24,
        ropeTheta: 1000,
        normEps: 1e-5,
        tieEmbeddings: true,
      },
      trainable: { kind: 'full' },
      steps: STEPS,
      batchSequences: 6,
      lanes: 2,
      learningRate: 0.01,
      minLearningRate: 0.001,
      warmupSteps: 2,
      weightDecay: 0.05,
      beta1: 0.9,
      beta2: 0.95,
      epsilon: 1e-8,
      clipNorm: 1,
      dropout: 0.1,
      preferenceBeta: 0.1,
      precision: 'fp32',
      seed: 5,
    },
    inputs: { train_examples: join(folder, 'train_examples'), vocabulary: join(folder, 'vocabulary') },
    outputDir,
    scratchDir,
    resumeDir: null,
    checkpointIntervalSteps: 0,
    threads: 1,
    gang: null,
    ...changes,
  };
}

async function modelOf(job: NativeJob): Promise<Buffer> {
  const model = (await job.promise).outputs['model'];
  if (model === undefined) throw new Error('the job has no output named model');
  return readFile(model);
}

/** Two members of one gang, in rank order. */
function pair(generation: string): [NativeGang, NativeGang] {
  const listeners = [createListener('127.0.0.1'), createListener('127.0.0.1')] as const;
  const addresses = listeners.map((listener) => listener.address);
  const place = (rank: 0 | 1) => ({ rank, world: 2, generation, addresses, listener: listeners[rank].handle });
  return [place(0), place(1)];
}

/** An elastic job of which a test awaits what it tells: each parking as "reason step", each gang as "ready step". */
function watched(options: NativeJobOptions, onStep: (step: number, job: NativeJob) => void = () => undefined) {
  const told: string[] = [];
  let wake = (): void => undefined;
  const tell = (text: string) => {
    told.push(text);
    wake();
  };
  const hooks = quietHooks({
    onStep: (step) => {
      onStep(step, job);
    },
    onParked: (step, reason) => {
      tell(`${reason} ${String(step)}`);
    },
    onReady: (step) => {
      tell(`ready ${String(step)}`);
    },
  });
  const job: NativeJob = startJob({ ...options, elastic: true }, hooks);
  /** Resolves with the first text, from the `from`-th on, that matches. */
  const until = async (pattern: RegExp, from = 0): Promise<string> => {
    for (;;) {
      const found = told.slice(from).find((text) => pattern.test(text));
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  return { job, told, until };
}

describe('jobs that change gangs', () => {
  it('park when asked, tell where they are, and go on alone to the same bytes', async () => {
    const undisturbed = await modelOf(startJob(await tuneJob('undisturbed'), quietHooks()));
    const { job, told, until } = watched(await tuneJob('parked'), (step, running) => {
      if (step === 3) running.park();
    });
    expect(() => {
      job.rejoin(null);
    }).toThrow(/not parked/);
    const parked = await until(/asked/);
    const step = Number(parked.split(' ')[1]);
    expect(step).toBeGreaterThanOrEqual(3);
    expect(job.progress()).toEqual({ step, phase: 'parked', waitingFor: -1 });
    job.rejoin(null);
    expect(await modelOf(job)).toEqual(undisturbed);
    expect(told).toEqual(['ready 0', parked, `ready ${String(step)}`]);
    expect(job.progress()).toEqual({ step: STEPS, phase: 'finishing', waitingFor: -1 });
    job.park();
  });

  it('outlive a peer, take in a newcomer without checkpoint, and let the last rank wait', async () => {
    const undisturbed = await modelOf(startJob(await tuneJob('undisturbed'), quietHooks()));
    const [left, right] = pair('pair#1');
    const victim = startJob(
      await tuneJob('victim', { gang: right }),
      quietHooks({
        onStep: (step) => {
          if (step === 2) victim.abort();
        },
      }),
    );
    const survivor = watched(await tuneJob('survivor', { gang: left }));
    await expect(victim.promise).rejects.toMatchObject({ code: 'aborted' });
    const parked = await survivor.until(/peer_lost|done/);
    const [first, second] = pair('pair#2');
    const newcomer = watched(await tuneJob('newcomer', { gang: first, joinSurvivors: true }));
    const heard = survivor.told.length;
    survivor.job.rejoin(second);
    expect(await modelOf(newcomer.job)).toEqual(undisturbed);
    expect(newcomer.told).toEqual([`ready ${String(parked.split(' ')[1])}`]);
    expect(await survivor.until(/done/, heard)).toBe(`done ${String(STEPS)}`);
    survivor.job.rejoin(null);
    expect(await modelOf(survivor.job)).toEqual(undisturbed);
  });

  it('grow at a step that is agreed, with less memory', async () => {
    const undisturbed = await modelOf(startJob(await tuneJob('undisturbed'), quietHooks()));
    const first = watched(await tuneJob('first', { memorySaving: 2 }));
    first.job.requestControl(4);
    const parked = await first.until(/asked/);
    const [left, right] = pair('grown');
    const newcomer = watched(await tuneJob('newcomer', { gang: right, joinSurvivors: true, memorySaving: 1 }));
    first.job.rejoin(left);
    expect(await modelOf(first.job)).toEqual(undisturbed);
    expect(await newcomer.until(/done/)).toBe(`done ${String(STEPS)}`);
    expect(newcomer.told[0]).toBe(parked.replace('asked', 'ready'));
    newcomer.job.abort();
    await expect(newcomer.job.promise).rejects.toMatchObject({ code: 'aborted' });
  });

  it('tell the step of a failure, and refuse what could never be heard', async () => {
    const options = await tuneJob('diverging');
    const recipe = { ...(options.recipe as object), learningRate: 1e20, warmupSteps: 0, clipNorm: 0 };
    const diverging = startJob({ ...options, recipe }, quietHooks());
    await expect(diverging.promise).rejects.toMatchObject({ code: 'nan_loss', step: 1 });
    expect(() => startJob({ ...options, elastic: true }, quietHooks())).toThrow(/onParked/);
    expect(() => startJob({ ...options, memorySaving: 3 as 2 }, quietHooks())).toThrow(/memorySaving/);
    const ready: number[] = [];
    await run(await codebooksJob('ready'), quietHooks({ onReady: (step) => ready.push(step) }));
    expect(ready).toEqual([0]);
  });
});

describe('single ops', () => {
  it('k-means finds two clusters, and refuses ragged rows', async () => {
    const rows = Float32Array.from([0, 0, 0.1, 0, 9, 9, 9, 9.1]);
    const result = await kmeans({ rows, dim: 2, clusters: 2, iterations: 10, seed: 1 });
    expect(result.assignment[0]).toBe(result.assignment[1]);
    expect(result.assignment[2]).toBe(result.assignment[3]);
    expect(result.assignment[0]).not.toBe(result.assignment[2]);
    expect(result.converged).toBe(true);
    expect(result.finalObjective).toBeCloseTo(0.01, 5);
    await expect(kmeans({ rows, dim: 3, clusters: 2, iterations: 1, seed: 1 })).rejects.toMatchObject({
      code: 'bad_input',
    });
  });

  it('residual codes of the training rows are what encoding gives', async () => {
    const rows = values(200 * DIM);
    const options = { rows, dim: DIM, levels: 2, codes: 16 };
    const trained = await residualQuantize({ ...options, iterations: 5, seed: 1, threads: 2 });
    expect(trained.relativeError).toBeLessThan(0.5);
    const encoded = await residualEncode({ ...options, centroids: trained.centroids });
    expect(encoded).toEqual(trained.codes);
    // Of these rows a wider beam finds better codes for some, and worse for none.
    const beam = await residualEncode({ ...options, centroids: trained.centroids, beam: 4 });
    expect(beam).not.toEqual(encoded);
    await expect(residualEncode({ ...options, centroids: trained.centroids, beam: 0 })).rejects.toMatchObject({
      code: 'bad_input',
    });
  });

  it('the LoRA product and its gradients agree with the formula', async () => {
    const sizes = { rows: 3, in: 4, out: 5, rank: 2, scale: 0.5 };
    const x = values(12);
    const weight = values(20).reverse();
    const a = values(8);
    const b = values(10).reverse();
    const { y, xa } = await loraForward({ ...sizes, x, weight, a, b });
    const at = (array: Float32Array, index: number) => array[index] ?? Number.NaN;
    const merged = (o: number, i: number) =>
      at(weight, o * 4 + i) + 0.5 * (at(b, o * 2) * at(a, i) + at(b, o * 2 + 1) * at(a, 4 + i));
    const sum = (count: number, term: (index: number) => number) =>
      Array.from({ length: count }, (_, index) => term(index)).reduce((total, value) => total + value, 0);
    for (let row = 0; row < 3; row++) {
      for (let o = 0; o < 5; o++) {
        expect(y[row * 5 + o]).toBeCloseTo(
          sum(4, (i) => at(x, row * 4 + i) * merged(o, i)),
          5,
        );
      }
    }
    const dy = values(15);
    const gradients = await loraBackward({ ...sizes, x, weight, a, b, xa, dy });
    for (let row = 0; row < 3; row++) {
      for (let i = 0; i < 4; i++) {
        expect(gradients.dx[row * 4 + i]).toBeCloseTo(
          sum(5, (o) => at(dy, row * 5 + o) * merged(o, i)),
          5,
        );
      }
    }
    for (let o = 0; o < 5; o++) {
      for (let r = 0; r < 2; r++) {
        expect(gradients.db[o * 2 + r]).toBeCloseTo(
          0.5 * sum(3, (row) => at(dy, row * 5 + o) * at(xa, row * 2 + r)),
          5,
        );
      }
    }
  });
});

it('the numerics class names the instruction set and a hash', () => {
  expect(numericsClass()).toMatch(/^cpu-avx(2|512)(-amx|-bf16)?-[0-9a-f]{12}$/);
});
