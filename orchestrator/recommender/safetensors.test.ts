import { describe, expect, it } from 'vitest';
import { encodeSafetensors, SafetensorsFile } from './safetensors.js';

const TENSORS = {
  mask: { shape: [3], data: Uint8Array.of(1, 0, 1) },
  values: { shape: [2, 2], data: Float32Array.of(1, -2, 0.5, 3) },
  items: { shape: [3], data: Int32Array.of(-1, 0, 7) },
  offsets: { shape: [2], data: BigInt64Array.of(0n, 5_000_000_000n) },
};

describe('safetensors', () => {
  it('reads back what it wrote', () => {
    const file = SafetensorsFile.decode(encodeSafetensors(TENSORS, { config: '{"a": 1}' }), 'test');
    expect([...file.u8('mask', [3]).data]).toEqual([1, 0, 1]);
    expect([...file.f32('values', [-1, 2]).data]).toEqual([1, -2, 0.5, 3]);
    expect([...file.i32('items', [-1]).data]).toEqual([-1, 0, 7]);
    expect([...file.i64('offsets', [2]).data]).toEqual([0, 5_000_000_000]);
    expect(file.metadata).toEqual({ config: '{"a": 1}' });
    expect(file.has('items')).toBe(true);
    expect(file.has('nothing')).toBe(false);
  });

  it('has bytes that do not depend on the order of insertion, and aligned tensors', () => {
    const reversed = Object.fromEntries(Object.entries(TENSORS).reverse());
    const bytes = encodeSafetensors(TENSORS, { b: '2', a: '1' });
    expect(encodeSafetensors(reversed, { a: '1', b: '2' }).equals(bytes)).toBe(true);
    const headerBytes = Number(bytes.readBigUInt64LE(0));
    expect(headerBytes % 8).toBe(0);
    const header = JSON.parse(bytes.subarray(8, 8 + headerBytes).toString()) as Record<
      string,
      { data_offsets: number[] }
    >;
    expect(Object.keys(header)).toEqual(['__metadata__', 'items', 'mask', 'offsets', 'values']);
    expect((header['offsets']?.data_offsets[0] ?? 1) % 8).toBe(0);
    expect((header['values']?.data_offsets[0] ?? 1) % 4).toBe(0);
  });

  it('names what is wrong with a file', () => {
    const bytes = encodeSafetensors(TENSORS);
    const file = SafetensorsFile.decode(bytes, 'codes');
    expect(() => file.i32('codes', [-1, 4])).toThrow(/expected tensor 'codes' of I32 \[n, 4\]; the file has/);
    expect(() => file.f32('items', [3])).toThrow(/of F32 \[3\], got I32 \[3\]/);
    expect(() => file.i32('items', [4])).toThrow(/got I32 \[3\]/);
    expect(() => SafetensorsFile.decode(bytes.subarray(0, bytes.length - 1), 'codes')).toThrow(/codes: not a whole/);
    expect(() => SafetensorsFile.decode(bytes.subarray(0, 20), 'codes')).toThrow(/its header claims/);
    expect(() => SafetensorsFile.decode(Buffer.from('abc'), 'codes')).toThrow(/at least 8 bytes/);
    const flipped = Buffer.from(bytes);
    flipped[8] = 0x5b;
    expect(() => SafetensorsFile.decode(flipped, 'codes')).toThrow(/not a JSON object/);
  });
});
