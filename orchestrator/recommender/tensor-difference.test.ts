import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { encodeSafetensors, type Tensor } from './safetensors.js';
import { describeTensorDifference, tensorDifference, type TensorDifference } from './tensor-difference.js';
import { TestFolder } from './test-folder.js';

type Tensors = Record<string, Tensor>;

describe('the difference of two safetensors files', () => {
  let folder: TestFolder;
  beforeEach(async () => {
    folder = await TestFolder.make();
  });
  afterEach(async () => {
    await folder.remove();
  });

  async function between(
    [a, metadataA]: [Tensors, Record<string, string>?],
    [b, metadataB]: [Tensors, Record<string, string>?],
  ): Promise<TensorDifference | null> {
    const expected = await folder.write('a', encodeSafetensors(a, metadataA));
    return tensorDifference(expected, await folder.write('b', encodeSafetensors(b, metadataB)));
  }

  /** Larger than one piece of the comparison. */
  const SIZE = 700_000;
  const values = (change: (data: Float32Array) => void = () => undefined): Tensor => {
    const data = Float32Array.from({ length: SIZE }, (_, i) => i / 7);
    change(data);
    return { shape: [7, SIZE / 7], data };
  };

  it('is null for equal files, NaN and −0 included', async () => {
    const odd = values((data) => {
      data[3] = NaN;
      data[4] = -0;
    });
    expect(await between([{ w: odd }], [{ w: odd }])).toBeNull();
  });

  it('names the first element that differs, both values and how many differ, over many pieces', async () => {
    const found = await between(
      [{ a: values(), b: values() }],
      [
        {
          a: values(),
          b: values((data) => {
            data[650_001] = 0.5;
            data[699_999] = -1;
          }),
        },
      ],
    );
    expect(found).toMatchObject({ tensorsDifferent: 1, tensors: 2, other: null });
    const expected = Math.fround(650_001 / 7);
    expect(found?.first).toMatchObject({
      ...{ tensor: 'b', dtype: 'F32', index: 650_001, position: [6, 50_001] },
      ...{ elementsDifferent: 2, elements: SIZE, got: '0.5 (0x3f000000)' },
    });
    expect(found?.first?.expected).toMatch(new RegExp(`^${String(expected)} \\(0x[0-9a-f]{8}\\)$`));
    expect(found === null ? '' : describeTensorDifference(found)).toContain(
      `tensor 'b' (F32 [7, 100000]): element 650001 at [6, 50001]: expected ${String(expected)}`,
    );
  });

  it('tells the first tensor in name order, wherever it lies in the file', async () => {
    const numbers = (first: number): Tensor => ({ shape: [2], data: BigInt64Array.from([BigInt(first), 2n]) });
    const bytes = (first: number): Tensor => ({ shape: [2], data: Uint8Array.from([first, 2]) });
    // Wider elements lie first: z before a.
    const found = await between([{ z: numbers(1), a: bytes(1) }], [{ z: numbers(5), a: bytes(9) }]);
    expect(found).toMatchObject({ first: { tensor: 'a', index: 0, expected: '1', got: '9' }, tensorsDifferent: 2 });
  });

  it.each([
    ['−0 from 0', 0, -0, '0 (0x00000000)', '-0 (0x80000000)'],
    ['one ulp', 1, 1 + 2 ** -23, '1 (0x3f800000)', '1.0000001192092896 (0x3f800001)'],
  ])('tells %s', async (_what, a, b, expected, got) => {
    const one = (value: number): Tensor => ({ shape: [], data: Float32Array.from([value]) });
    const found = await between([{ w: one(a) }], [{ w: one(b) }]);
    expect(found?.first).toMatchObject({ expected, got, position: [], elementsDifferent: 1 });
  });

  it('tells other shapes, types and names, and metadata', async () => {
    const flat: Tensor = { shape: [2], data: Float32Array.from([1, 2]) };
    const cases: [Tensors, Tensors, RegExp][] = [
      [{ w: flat }, { w: { ...flat, shape: [1, 2] } }, /'w': expected F32 \[2\], got F32 \[1, 2\]/],
      [{ w: flat }, { w: { shape: [2], data: Int32Array.from([1, 2]) } }, /expected F32 \[2\], got I32 \[2\]/],
      [{ w: flat }, { w: flat, v: flat }, /'v': expected no such tensor, got F32/],
    ];
    for (const [a, b, message] of cases) {
      const found = await between([a], [b]);
      expect(found === null ? '' : describeTensorDifference(found)).toMatch(message);
    }
    const found = await between([{ w: flat }, { format: 'pt' }], [{ w: flat }, { format: 'np' }]);
    expect(found?.other).toBe(`metadata 'format': expected "pt", got "np"`);
  });
});
