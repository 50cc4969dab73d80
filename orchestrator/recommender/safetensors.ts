/**
 * Reading and writing of safetensors files for domain jobs.
 *
 * 1. The bytes depend only on names, shapes, types, values and metadata: header names sorted, header padded with spaces to 8.
 * 2. Data lies in order of element size (widest first), then name, without gaps, so that every tensor is aligned to its
 *    element size and a memory-mapping reader may use it in place.
 * 3. F16 is read, as F32; never written.
 * 4. A reader checks every offset and size before it touches data; a bad file is a BadInputError that names file and tensor.
 */
import { open, readFile } from 'node:fs/promises';
import { writeFileAtomically } from './files.js';
import { BadInputError } from './domain-job.js';

export type TensorData = Float32Array | Int32Array | BigInt64Array | Uint8Array;
export interface Tensor {
  shape: number[];
  data: TensorData;
}

type DtypeName = 'F32' | 'I32' | 'I64' | 'U8';
const ELEMENT_BYTES: Record<DtypeName, number> = { F32: 4, I32: 4, I64: 8, U8: 1 };
const HEADER_BYTES_MAX = 100_000_000;

interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

export async function writeSafetensors(
  path: string,
  tensors: Record<string, Tensor>,
  metadata: Record<string, string> = {},
): Promise<void> {
  await writeFileAtomically(path, encodeSafetensors(tensors, metadata));
}

export function encodeSafetensors(tensors: Record<string, Tensor>, metadata: Record<string, string> = {}): Buffer {
  const names = Object.keys(tensors).sort(byCodeUnits);
  const entries = names.map((name) => ({ name, tensor: checkedTensor(name, tensors[name]) }));
  const laidOut = [...entries].sort(
    (a, b) =>
      ELEMENT_BYTES[dtypeOf(b.tensor.data)] - ELEMENT_BYTES[dtypeOf(a.tensor.data)] || byCodeUnits(a.name, b.name),
  );
  const offsets = new Map<string, [number, number]>();
  let end = 0;
  for (const { name, tensor } of laidOut) {
    offsets.set(name, [end, end + tensor.data.byteLength]);
    end += tensor.data.byteLength;
  }
  const header: Record<string, unknown> = {};
  if (Object.keys(metadata).length > 0) {
    header['__metadata__'] = Object.fromEntries(Object.entries(metadata).sort(([a], [b]) => byCodeUnits(a, b)));
  }
  for (const { name, tensor } of entries) {
    header[name] = { data_offsets: offsets.get(name), dtype: dtypeOf(tensor.data), shape: tensor.shape };
  }
  const text = Buffer.from(JSON.stringify(header), 'utf8');
  const padded = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const parts = laidOut.map(({ tensor: { data } }) => Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  return Buffer.concat([length, padded, ...parts]);
}

/** Only `__metadata__` of a file that may be large. */
export async function readSafetensorsMetadata(path: string): Promise<Record<string, string>> {
  return (await readSafetensorsLayout(path)).metadata;
}

export interface SafetensorsLayout {
  metadata: Record<string, string>;
  /** Where each tensor lies in the file; unchecked against the file's size. */
  tensors: Record<string, { dtype: string; shape: number[]; begin: number; end: number }>;
}

/** What the header of a file that may be large says. */
export async function readSafetensorsLayout(path: string): Promise<SafetensorsLayout> {
  const fail = (problem: string): never => {
    throw new BadInputError(`${path}: not a safetensors file: ${problem}; make or copy the file again`);
  };
  const file = await open(path, 'r');
  try {
    const length = Buffer.alloc(8);
    const { bytesRead } = await file.read(length, 0, 8, 0);
    const headerBytes = bytesRead === 8 ? Number(length.readBigUInt64LE()) : HEADER_BYTES_MAX + 1;
    if (headerBytes > HEADER_BYTES_MAX) fail(`expected a header of at most ${HEADER_BYTES_MAX} bytes, got another`);
    const header = Buffer.alloc(headerBytes);
    await file.read(header, 0, headerBytes, 8);
    const { __metadata__: metadata, ...entries } = parseHeader(header, fail);
    const tensors: SafetensorsLayout['tensors'] = {};
    for (const [name, { dtype, shape, data_offsets: offsets }] of Object.entries(entries)) {
      const [begin, end] = Array.isArray(offsets) ? offsets : fail(`tensor '${name}' has no offsets`);
      tensors[name] = { dtype, shape, begin: 8 + headerBytes + begin, end: 8 + headerBytes + end };
    }
    return { metadata: (metadata ?? {}) as unknown as Record<string, string>, tensors };
  } finally {
    await file.close();
  }
}

export class SafetensorsFile {
  private constructor(
    private readonly source: string,
    private readonly tensors: Map<string, Tensor>,
    readonly metadata: Record<string, string>,
  ) {}

  static async open(path: string): Promise<SafetensorsFile> {
    return SafetensorsFile.decode(await readFile(path), path);
  }

  /** `source` names the file in errors. */
  static decode(bytes: Uint8Array, source: string): SafetensorsFile {
    const fail = (problem: string): never => {
      throw new BadInputError(`${source}: not a whole safetensors file: ${problem}; make or copy the file again`);
    };
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.byteLength < 8) fail(`expected at least 8 bytes, got ${bytes.byteLength}`);
    const headerBytes = Number(view.getBigUint64(0, true));
    if (headerBytes > HEADER_BYTES_MAX || 8 + headerBytes > bytes.byteLength) {
      fail(`its header claims ${headerBytes} bytes, the file has ${bytes.byteLength}`);
    }
    const header = parseHeader(bytes.subarray(8, 8 + headerBytes), fail);
    const data = bytes.subarray(8 + headerBytes);
    const tensors = new Map<string, Tensor>();
    let metadata: Record<string, string> = {};
    for (const [name, entry] of Object.entries(header)) {
      if (name === '__metadata__') metadata = entry as unknown as Record<string, string>;
      else if (entry.dtype === 'F16') tensors.set(name, widenHalves(name, entry, data, fail));
      else if (entry.dtype in ELEMENT_BYTES) tensors.set(name, decodeTensor(name, entry, data, fail));
    }
    return new SafetensorsFile(source, tensors, metadata);
  }

  has(name: string): boolean {
    return this.tensors.has(name);
  }

  f32(name: string, shape: number[]): { data: Float32Array; shape: number[] } {
    return this.typed(name, shape, Float32Array, 'F32');
  }

  i32(name: string, shape: number[]): { data: Int32Array; shape: number[] } {
    return this.typed(name, shape, Int32Array, 'I32');
  }

  u8(name: string, shape: number[]): { data: Uint8Array; shape: number[] } {
    return this.typed(name, shape, Uint8Array, 'U8');
  }

  /** int32 or int64 values as numbers. */
  integers(name: string, shape: number[]): Float64Array {
    const isShort = this.tensors.get(name)?.data instanceof Int32Array;
    return isShort ? Float64Array.from(this.i32(name, shape).data) : this.i64(name, shape).data;
  }

  /** int64 values as numbers; values beyond 2^53 are bad input. */
  i64(name: string, shape: number[]): { data: Float64Array; shape: number[] } {
    const { data, shape: found } = this.typed(name, shape, BigInt64Array, 'I64');
    const numbers = Float64Array.from(data, Number);
    if (!numbers.every(Number.isSafeInteger)) throw new BadInputError(`${this.source}: tensor '${name}' exceeds 2^53`);
    return { data: numbers, shape: found };
  }

  /** Entries of −1 in `shape` match anything. */
  private typed<T extends TensorData>(
    name: string,
    shape: number[],
    type: abstract new (...args: never[]) => T,
    dtype: DtypeName,
  ): { data: T; shape: number[] } {
    const tensor = this.tensors.get(name);
    const expected = `expected tensor '${name}' of ${dtype} [${shape.map((n) => (n < 0 ? 'n' : n)).join(', ')}]`;
    if (tensor === undefined) {
      throw new BadInputError(`${this.source}: ${expected}; the file has ${[...this.tensors.keys()].join(', ')}`);
    }
    const { data } = tensor;
    const fits = tensor.shape.length === shape.length && shape.every((n, i) => n < 0 || n === tensor.shape[i]);
    if (!(data instanceof type) || !fits) {
      throw new BadInputError(`${this.source}: ${expected}, got ${dtypeOf(data)} [${tensor.shape.join(', ')}]`);
    }
    return { data, shape: tensor.shape };
  }
}

function byCodeUnits(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

function dtypeOf(data: TensorData): DtypeName {
  if (data instanceof Float32Array) return 'F32';
  if (data instanceof Int32Array) return 'I32';
  return data instanceof BigInt64Array ? 'I64' : 'U8';
}

function elements(shape: number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}

function checkedTensor(name: string, tensor: Tensor | undefined): Tensor {
  if (tensor === undefined || elements(tensor.shape) !== tensor.data.length) {
    throw new Error(
      `tensor '${name}': shape [${tensor?.shape.join(', ')}] does not hold ${tensor?.data.length} values`,
    );
  }
  return tensor;
}

function parseHeader(bytes: Uint8Array, fail: (problem: string) => never): Record<string, HeaderEntry> {
  try {
    const parsed: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'));
    if (typeof parsed === 'object' && parsed !== null) return parsed as Record<string, HeaderEntry>;
  } catch {
    // Reported below, with the same words as a header of the wrong type.
  }
  return fail('its header is not a JSON object');
}

function widenHalves(name: string, entry: HeaderEntry, data: Uint8Array, fail: (problem: string) => never): Tensor {
  const [begin, end] = Array.isArray(entry.data_offsets) ? entry.data_offsets : [0, -1];
  const shape = Array.isArray(entry.shape) ? entry.shape : [];
  const count = elements(shape);
  if (!Number.isInteger(begin) || begin < 0 || end > data.byteLength || end - begin !== 2 * count) {
    fail(`tensor '${name}' claims bytes ${begin} to ${end} of ${data.byteLength} and needs ${2 * count}`);
  }
  const view = new DataView(data.buffer, data.byteOffset + begin, 2 * count);
  return { shape, data: Float32Array.from({ length: count }, (_, i) => halfToNumber(view.getUint16(2 * i, true))) };
}

/** IEEE 754 binary16. */
function halfToNumber(bits: number): number {
  const sign = bits >> 15 === 0 ? 1 : -1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function decodeTensor(name: string, entry: HeaderEntry, data: Uint8Array, fail: (problem: string) => never): Tensor {
  const [begin, end] = Array.isArray(entry.data_offsets) ? entry.data_offsets : [0, -1];
  const shape = Array.isArray(entry.shape) ? entry.shape : [];
  const bytes = elements(shape) * ELEMENT_BYTES[entry.dtype as DtypeName];
  if (!Number.isInteger(begin) || begin < 0 || end > data.byteLength || end - begin !== bytes) {
    fail(`tensor '${name}' claims bytes ${begin} to ${end} of ${data.byteLength} and needs ${bytes}`);
  }
  // A copy: typed arrays need alignment that a foreign file does not promise.
  const copy = new Uint8Array(bytes);
  copy.set(data.subarray(begin, end));
  switch (entry.dtype as DtypeName) {
    case 'F32':
      return { shape, data: new Float32Array(copy.buffer) };
    case 'I32':
      return { shape, data: new Int32Array(copy.buffer) };
    case 'I64':
      return { shape, data: new BigInt64Array(copy.buffer) };
    case 'U8':
      return { shape, data: copy };
  }
}
