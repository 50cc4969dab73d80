import { describe, expect, it } from 'vitest';
import { exp, log, power } from './portable-math.js';

describe('portable exp and log', () => {
  it('agrees with the engine to 1e-14 relative over the whole range', () => {
    for (let x = -700; x <= 700; x += 0.37) {
      expect(Math.abs(exp(x) / Math.exp(x) - 1)).toBeLessThan(1e-14);
      const positive = Math.exp(x);
      expect(Math.abs(log(positive) - Math.log(positive))).toBeLessThan(1e-15 * Math.max(1, Math.abs(x)) * 4);
    }
  });

  it('is accurate near one and exact at the ends', () => {
    for (const x of [1 + 1e-9, 1 - 1e-9, 1.0001, 0.75, 2, 10]) {
      expect(Math.abs(log(x) - Math.log(x))).toBeLessThanOrEqual(4e-16 * Math.max(1, Math.abs(Math.log(x)) * 2));
    }
    expect(exp(0)).toBe(1);
    expect(log(1)).toBe(0);
    expect(exp(-1000)).toBe(0);
    expect(exp(1000)).toBe(Infinity);
    expect(log(0)).toBe(-Infinity);
    expect(power(9, 0.5)).toBeCloseTo(3, 14);
  });
});
