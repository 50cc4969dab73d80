import { describe, expect, it } from 'vitest';
import { philox4x32, RANDOM_SITES, RandomSequence, uniformAt } from './random.js';

const stream = (seed: number, number = 0): RandomSequence =>
  new RandomSequence({ seed, site: RANDOM_SITES.test, stream: number });

describe('Philox 4x32-10', () => {
  it('gives the known answers of the Random123 distribution', () => {
    expect(philox4x32([0, 0, 0, 0], [0, 0])).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
    const ones = 0xffffffff;
    expect(philox4x32([ones, ones, ones, ones], [ones, ones])).toEqual([
      0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd,
    ]);
    expect(philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])).toEqual([
      0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1,
    ]);
  });
});

describe('RandomSequence', () => {
  it('repeats for equal streams and differs for others', () => {
    const draw = (sequence: RandomSequence): number[] => Array.from({ length: 8 }, () => sequence.uniform());
    expect(draw(stream(7))).toEqual(draw(stream(7)));
    expect(draw(stream(7))).not.toEqual(draw(stream(8)));
    expect(draw(stream(7, 1))).not.toEqual(draw(stream(7, 2)));
    expect(draw(stream(2 ** 40 + 7))).not.toEqual(draw(stream(7)));
  });

  it('has the moments of its distributions', () => {
    const sequence = stream(1);
    const n = 20000;
    let uniformSum = 0;
    let normalSum = 0;
    let normalSquares = 0;
    for (let i = 0; i < n; i += 1) {
      uniformSum += sequence.uniform();
      const normal = sequence.normal();
      normalSum += normal;
      normalSquares += normal * normal;
    }
    expect(Math.abs(uniformSum / n - 0.5)).toBeLessThan(0.01);
    expect(Math.abs(normalSum / n)).toBeLessThan(0.03);
    expect(Math.abs(normalSquares / n - 1)).toBeLessThan(0.04);
  });

  it('draws by weight and never a zero weight', () => {
    const sequence = stream(3);
    const counts = [0, 0, 0];
    for (let i = 0; i < 9000; i += 1) {
      const drawn = sequence.weighted([1, 0, 2]);
      counts[drawn] = (counts[drawn] ?? 0) + 1;
    }
    expect(counts[1]).toBe(0);
    expect(Math.abs((counts[2] ?? 0) / 9000 - 2 / 3)).toBeLessThan(0.02);
  });

  it('permutes', () => {
    const order = [...stream(5).permutation(100)];
    expect(order).not.toEqual(order.toSorted((a, b) => a - b));
    expect(order.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i));
  });

  it('answers single numbers by index', () => {
    const from = { seed: 9, site: RANDOM_SITES.test, stream: 4 };
    const values = Array.from({ length: 1000 }, (_, i) => uniformAt(from, i));
    expect(new Set(values).size).toBe(1000);
    expect(Math.min(...values)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...values)).toBeLessThan(1);
    expect(uniformAt(from, 17)).toBe(values[17]);
  });
});
