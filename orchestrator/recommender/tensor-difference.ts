/**
 * Where two safetensors files that should be equal begin to differ.
 *
 * 1. Bytes are compared, not values: −0 is not 0, and a NaN equals itself.
 * 2. Files are read in pieces: a checkpoint may be larger than memory.
 * 3. Tensors come in name order; the first that differs is described, how many others do is told.
 */
import { open, type FileHandle } from 'node:fs/promises';

import { readSafetensorsLayout, type SafetensorsLayout } from './safetensors.js';

const PIECE_BYTES = 1 << 20;

export interface ElementDifference {
  tensor: string;
  dtype: string;
  shape: number[];
  /** Of the first element that differs, in row-major order and by dimension. */
  index: number;
  position: number[];
  expected: string;
  got: string;
  elementsDifferent: number;
  elements: number;
}

/** `other` says what differs where it is not elements of a tensor: names, shapes, metadata. */
export interface TensorDifference {
  first: ElementDifference | null;
  other: string | null;
  tensorsDifferent: number;
  tensors: number;
}

type Entry = SafetensorsLayout['tensors'][string];

/** Null when every tensor and the metadata are the same. BadInputError for what is no safetensors file. */
export async function tensorDifference(expectedPath: string, gotPath: string): Promise<TensorDifference | null> {
  const [expected, got] = await Promise.all([readSafetensorsLayout(expectedPath), readSafetensorsLayout(gotPath)]);
  const names = [...new Set([...Object.keys(expected.tensors), ...Object.keys(got.tensors)])].sort();
  const files = { expected: await open(expectedPath, 'r'), got: await open(gotPath, 'r') };
  const difference: TensorDifference = { first: null, other: null, tensorsDifferent: 0, tensors: names.length };
  try {
    for (const name of names) {
      const entries = { expected: expected.tensors[name], got: got.tensors[name] };
      const shapes = shapeDifference(name, entries.expected, entries.got);
      if (shapes === null && entries.expected !== undefined && entries.got !== undefined) {
        const found = await elementDifference(name, files, { expected: entries.expected, got: entries.got });
        if (found === null) continue;
        // The first is what is described, whichever way it differs.
        if (difference.tensorsDifferent === 0) difference.first = found;
      } else if (difference.tensorsDifferent === 0) {
        difference.other = shapes;
      }
      difference.tensorsDifferent += 1;
    }
  } finally {
    await files.expected.close();
    await files.got.close();
  }
  if (difference.tensorsDifferent > 0) return difference;
  const other = metadataDifference(expected.metadata, got.metadata);
  return other === null ? null : { ...difference, other };
}

/** For people: tensor, place, both values and how many more there are. */
export function describeTensorDifference({ first, other, tensorsDifferent, tensors }: TensorDifference): string {
  const rest = tensorsDifferent > 1 ? `; ${tensorsDifferent} of ${tensors} tensors differ` : '';
  if (first === null) return `${other ?? 'nothing differs'}${rest}`;
  const { tensor, dtype, shape, position, index, expected, got, elementsDifferent, elements } = first;
  return (
    `tensor '${tensor}' (${dtype} [${shape.join(', ')}]): element ${index} at [${position.join(', ')}]: expected ${expected}, ` +
    `got ${got}; ${elementsDifferent} of ${elements} elements differ${rest}`
  );
}

function shapeDifference(name: string, expected: Entry | undefined, got: Entry | undefined): string | null {
  const words = (entry: Entry | undefined): string =>
    entry === undefined ? 'no such tensor' : `${entry.dtype} [${entry.shape.join(', ')}]`;
  const same = words(expected) === words(got);
  return same ? null : `tensor '${name}': expected ${words(expected)}, got ${words(got)}`;
}

function metadataDifference(expected: Record<string, string>, got: Record<string, string>): string | null {
  const names = [...new Set([...Object.keys(expected), ...Object.keys(got)])].sort();
  const name = names.find((candidate) => expected[candidate] !== got[candidate]);
  if (name === undefined) return null;
  const shown = (value: string | undefined): string => (value === undefined ? 'nothing' : `"${value.slice(0, 200)}"`);
  return `metadata '${name}': expected ${shown(expected[name])}, got ${shown(got[name])}`;
}

interface Both<T> {
  expected: T;
  got: T;
}

/** Both tensors have one dtype and shape. */
async function elementDifference(
  tensor: string,
  files: Both<FileHandle>,
  entries: Both<Entry>,
): Promise<ElementDifference | null> {
  const { dtype, shape, begin, end } = entries.expected;
  const elements = shape.reduce((product, n) => product * n, 1);
  const width = elements === 0 ? 1 : (end - begin) / elements;
  const pieceBytes = Math.max(1, Math.floor(PIECE_BYTES / width)) * width;
  let found: ElementDifference | null = null;
  for (let offset = 0; offset < end - begin; offset += pieceBytes) {
    const bytes = Math.min(pieceBytes, end - begin - offset);
    const [a, b] = await Promise.all([
      read(files.expected, entries.expected.begin + offset, bytes),
      read(files.got, entries.got.begin + offset, bytes),
    ]);
    if (a.equals(b)) continue;
    for (let at = 0; at < bytes; at += width) {
      if (a.compare(b, at, at + width, at, at + width) === 0) continue;
      const index = (offset + at) / width;
      found ??= {
        ...{ tensor, dtype, shape, index, position: positionOf(index, shape), elements, elementsDifferent: 0 },
        expected: valueText(a.subarray(at, at + width), dtype),
        got: valueText(b.subarray(at, at + width), dtype),
      };
      found.elementsDifferent += 1;
    }
  }
  return found;
}

async function read(file: FileHandle, position: number, bytes: number): Promise<Buffer> {
  const piece = Buffer.alloc(bytes);
  const { bytesRead } = await file.read(piece, 0, bytes, position);
  if (bytesRead !== bytes) throw new Error(`expected ${bytes} bytes at ${position}, the file ends after ${bytesRead}`);
  return piece;
}

function positionOf(index: number, shape: number[]): number[] {
  let rest = index;
  return [...shape]
    .reverse()
    .map((size) => {
      const at = rest % size;
      rest = Math.floor(rest / size);
      return at;
    })
    .reverse();
}

/** With its bits: two numbers may print alike, and a dtype may be one that has no number here. */
function valueText(bytes: Buffer, dtype: string): string {
  const bits = `0x${Buffer.from(bytes).reverse().toString('hex')}`;
  switch (dtype) {
    case 'F32':
      return `${numberText(bytes.readFloatLE())} (${bits})`;
    case 'I32':
      return String(bytes.readInt32LE());
    case 'I64':
      return String(bytes.readBigInt64LE());
    case 'U8':
      return String(bytes.readUInt8());
    default:
      return bits;
  }
}

function numberText(value: number): string {
  return Object.is(value, -0) ? '-0' : String(value);
}
