/**
 * The native addon, typed: the only importer of the `.node` file.
 *
 * 1. Jobs run on native threads; hooks and promises come back on this thread, in order.
 * 2. A native failure is an Error whose `code` names its cause (`bad_input`, `peer_lost`, …), or is `aborted`; where it
 *    is known, `step` tells how many updates were applied.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export type NativeFailureCode =
  | 'peer_lost'
  | 'out_of_memory'
  | 'device_lost'
  | 'nan_loss'
  | 'bad_input'
  | 'corrupt_artifact'
  | 'store_unavailable'
  | 'nondeterminism'
  | 'internal'
  | 'aborted';

/** A listening socket of the tensor plane, made before the gang's addresses are known; used up by `startJob` or `rejoin`. */
export interface NativeListener {
  address: string;
  handle: object;
}

export interface NativeGang {
  rank: number;
  world: number;
  /** Job id and epoch; peers of another generation are refused. */
  generation: string;
  /** host:port in rank order. */
  addresses: string[];
  listener: object;
}

export interface NativeJobOptions {
  kind: string;
  recipe: unknown;
  /** Paths by input name. */
  inputs: Record<string, string>;
  /** Exists and is empty. */
  outputDir: string;
  /** Exists; checkpoints are written below it. */
  scratchDir: string;
  resumeDir: string | null;
  /** 0: only when asked. */
  checkpointIntervalSteps: number;
  /** The job stops with a checkpoint of this step; absent or 0: at its end. */
  stopStep?: number;
  threads: number;
  /** Null for a gang of one. */
  gang: NativeGang | null;
  /** The job waits for another gang where it can, instead of failing with peer_lost; needs the hook `onParked`. */
  elastic?: boolean;
  /** The job starts without state, and takes it from a rank of the gang that has some. */
  joinSurvivors?: boolean;
  /** 1 recomputes activations whatever is free; 2 also runs one lane at a time. The bytes are the same. */
  memorySaving?: 0 | 1 | 2;
}

/** `done`: all steps are applied and rank 0 writes the result; this rank waits in case it is needed once more. */
export type ParkReason = 'peer_lost' | 'asked' | 'done';

export type JobPhase = 'starting' | 'computing' | 'reducing' | 'updating' | 'parked' | 'finishing';

export interface NativeJobHooks {
  onStep(step: number, stepsTotal: number, metrics: Record<string, number>): void;
  onLog(level: string, message: string): void;
  /** `folder` holds a complete checkpoint and belongs to the caller from here. */
  onCheckpoint(step: number, folder: string, seconds: number): void;
  /** The job left its gang with `step` updates applied (-1: without state) and waits for `rejoin`. */
  onParked?(step: number, reason: ParkReason, message: string): void;
  /** State is in place and the gang stands; once for every gang, before its first step. */
  onReady?(step: number): void;
}

export type JsonValue = string | number | boolean | null | JsonValue[] | { [key: string]: JsonValue };

export interface NativeJobOutcome {
  kind: 'finished' | 'stopped';
  step: number;
  /** Paths by output name, below `outputDir`. */
  outputs: Record<string, string>;
  summary: { [key: string]: JsonValue };
}

export interface NativeJob {
  promise: Promise<NativeJobOutcome>;
  /** Bits: 1 writes a checkpoint at the next step, 2 checkpoints and stops, 4 parks all ranks after the next step. */
  requestControl(flags: number): void;
  /** Ends the attempt without a checkpoint; `promise` is then rejected with code `aborted`. */
  abort(): void;
  /**
   * Leaves the gang as soon as the present computation allows, keeping the state; `onParked` follows. No effect on a
   * job that is parked, has ended, or cannot regroup.
   */
  park(): void;
  /** Names the next gang of a parked job. Throws when it is not parked. `gang` null: alone. */
  rejoin(gang: NativeGang | null): void;
  /** Where the job is now; `waitingFor` is the lowest rank that an exchange waits for, or -1. */
  progress(): { step: number; phase: JobPhase; waitingFor: number };
}

export interface KMeansOptions {
  /** Row-major, `dim` values a row. */
  rows: Float32Array;
  dim: number;
  clusters: number;
  iterations: number;
  seed: number;
  threads?: number;
}

export interface KMeansResult {
  centroids: Float32Array;
  assignment: Int32Array;
  /** Sum of squared distances before each iteration. */
  objective: Float64Array;
  finalObjective: number;
  converged: boolean;
}

export interface ResidualQuantizeOptions {
  rows: Float32Array;
  dim: number;
  levels: number;
  codes: number;
  iterations: number;
  seed: number;
  threads?: number;
}

export interface ResidualQuantizeResult {
  /** [levels, codes, dim] */
  centroids: Float32Array;
  /** [rows, levels] */
  codes: Int32Array;
  relativeError: number;
}

export interface ResidualEncodeOptions {
  rows: Float32Array;
  dim: number;
  levels: number;
  codes: number;
  /** [levels, codes, dim] */
  centroids: Float32Array;
  /** Partial sums kept per row, 1 to 256; 1 (the default) takes the nearest code of each level. */
  beam?: number;
  threads?: number;
}

/** y = x Wᵀ + scale (x Aᵀ) Bᵀ. */
export interface LoraForwardOptions {
  rows: number;
  in: number;
  out: number;
  rank: number;
  scale: number;
  /** [rows, in] */
  x: Float32Array;
  /** [out, in] */
  weight: Float32Array;
  /** [rank, in] */
  a: Float32Array;
  /** [out, rank] */
  b: Float32Array;
  threads?: number;
}

export interface LoraForwardResult {
  /** [rows, out] */
  y: Float32Array;
  /** [rows, rank]: x Aᵀ, which the backward needs. */
  xa: Float32Array;
}

export interface LoraBackwardOptions extends LoraForwardOptions {
  /** [rows, rank] from the forward. */
  xa: Float32Array;
  /** [rows, out] */
  dy: Float32Array;
}

/** Gradients of x, A and B; the weight is frozen. */
export interface LoraBackwardResult {
  dx: Float32Array;
  da: Float32Array;
  db: Float32Array;
}

interface JobHandle extends Omit<NativeJob, 'rejoin'> {
  rejoin(gangJson: string, listener: object | null): void;
}

interface Addon {
  numericsClass(): string;
  useDevice(device: string): void;
  deviceInUse(): DeviceInUse | null;
  createListener(host: string): NativeListener;
  startJob(optionsJson: string, listener: object | null, hooks: NativeJobHooks): JobHandle;
  kmeans(options: KMeansOptions): Promise<KMeansResult>;
  residualQuantize(options: ResidualQuantizeOptions): Promise<ResidualQuantizeResult>;
  residualEncode(options: ResidualEncodeOptions): Promise<Int32Array>;
  loraForward(options: LoraForwardOptions): Promise<LoraForwardResult>;
  loraBackward(options: LoraBackwardOptions): Promise<LoraBackwardResult>;
}

const addon = loadAddon();

/** The accelerator that this process computes on. */
export interface DeviceInUse {
  name: string;
  architecture: string;
  /** What multiplies matrices there: cuBLASLt and its version, or our kernels and why. */
  products: string;
  freeBytes: number;
  totalBytes: number;
  /** Share of the last moments in which it computed; null where the driver does not tell. */
  utilisation: number | null;
}

/** Chooses `cpu` or `cuda:N` for the whole process; before any other call. Throws where there is no such device. */
export function useDevice(device: string): void {
  addon.useDevice(device);
}

/** Null on the processor. */
export function deviceInUse(): DeviceInUse | null {
  return addon.deviceInUse();
}

/** The class of this process's arithmetic, for example `cpu-avx2-0123456789ab`. */
export function numericsClass(): string {
  return addon.numericsClass();
}

/** Listens on a private interface; `address` is what the gang's other ranks are told. */
export function createListener(host: string): NativeListener {
  return addon.createListener(host);
}

/** Starts a job on native threads. Throws at once for malformed options; everything later rejects `promise`. */
export function startJob(options: NativeJobOptions, hooks: NativeJobHooks): NativeJob {
  const { gang, ...rest } = options;
  const optionsJson = JSON.stringify({ ...rest, gang: placeIn(gang) });
  const handle = addon.startJob(optionsJson, gang?.listener ?? null, hooks);
  return {
    ...handle,
    rejoin: (next) => {
      handle.rejoin(JSON.stringify(placeIn(next)), next?.listener ?? null);
    },
  };
}

/** What of a gang travels as JSON: all but the listener. */
function placeIn(gang: NativeGang | null): Omit<NativeGang, 'listener'> | null {
  if (gang === null) return null;
  return { rank: gang.rank, world: gang.world, generation: gang.generation, addresses: gang.addresses };
}

// The ops below are async so that a wrong argument rejects the promise instead of throwing.

export async function kmeans(options: KMeansOptions): Promise<KMeansResult> {
  return addon.kmeans(options);
}

export async function residualQuantize(options: ResidualQuantizeOptions): Promise<ResidualQuantizeResult> {
  return addon.residualQuantize(options);
}

/** Codes [rows, levels] of new rows under given codebooks. */
export async function residualEncode(options: ResidualEncodeOptions): Promise<Int32Array> {
  return addon.residualEncode(options);
}

export async function loraForward(options: LoraForwardOptions): Promise<LoraForwardResult> {
  return addon.loraForward(options);
}

export async function loraBackward(options: LoraBackwardOptions): Promise<LoraBackwardResult> {
  return addon.loraBackward(options);
}

function loadAddon(): Addon {
  const file = join(repositoryRoot(), 'build', 'native', 'collimate.node');
  if (!existsSync(file)) {
    throw new Error(`The native addon is not built: expected ${file}. Run \`npm run build:native\`.`);
  }
  try {
    return createRequire(import.meta.url)(file) as Addon;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(
      `The native addon ${file} does not load: ${reason}. Check that its libraries (oneDNN) are installed, ` +
        `or rebuild it with \`npm run build:native\`.`,
      { cause: error },
    );
  }
}

/** Searched upwards: the source and the compiled file lie at different depths. */
function repositoryRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'native', 'CMakeLists.txt'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error('native/CMakeLists.txt is not above the worker; is the installation whole?');
    folder = parent;
  }
  return folder;
}
