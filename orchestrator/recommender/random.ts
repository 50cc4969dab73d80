/**
 * Philox 4x32-10 (Salmon et al., SC 2011): random numbers as a pure function of (seed, site, stream, index).
 *
 * 1. Nothing here has hidden state but the index of a `RandomSequence`; equal arguments give equal numbers everywhere.
 * 2. Sites never share numbers: the site is part of the counter.
 */
import { exp, log } from './portable-math.js';

/** What a number is drawn for. Numbers above those of the native engine's sites. */
export const RANDOM_SITES = {
  shopCatalogue: 101,
  shopUser: 102,
  shopEvents: 103,
  textProjection: 104,
  templateChoice: 105,
  sequenceChoice: 121,
  taskTemplate: 122,
  taskOrder: 123,
  taskSample: 124,
  bootstrap: 131,
  validationUsers: 132,
  test: 199,
} as const;
export type RandomSite = (typeof RANDOM_SITES)[keyof typeof RANDOM_SITES];

export interface RandomStream {
  seed: number;
  site: RandomSite;
  /** For example a user's index. */
  stream: number;
}

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const TWO_32 = 4294967296;

export type Words4 = [number, number, number, number];

/** The ten rounds on a counter of four and a key of two 32-bit words. */
export function philox4x32(counter: Words4, key: [number, number]): Words4 {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round += 1) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0);
    const low0 = Math.imul(MULTIPLIER_0, c0);
    const high1 = multiplyHigh(MULTIPLIER_1, c2);
    const low1 = Math.imul(MULTIPLIER_1, c2);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 = (k0 + WEYL_0) | 0;
    k1 = (k1 + WEYL_1) | 0;
  }
  return [c0 >>> 0, c1 >>> 0, c2 >>> 0, c3 >>> 0];
}

/** Numbers of one stream, in order. */
export class RandomSequence {
  private index = 0;
  private words: Words4 = [0, 0, 0, 0];
  private used = 4;

  constructor(private readonly from: RandomStream) {}

  u32(): number {
    if (this.used === 4) {
      const { seed, site, stream } = this.from;
      const key: [number, number] = [seed | 0, Math.floor(seed / TWO_32) | 0];
      this.words = philox4x32([this.index, stream | 0, Math.floor(stream / TWO_32) | 0, site], key);
      this.index += 1;
      this.used = 0;
    }
    const word = this.words[this.used] ?? 0;
    this.used += 1;
    return word;
  }

  /** Uniform in [0, 1) with 53 bits. */
  uniform(): number {
    const high = this.u32() >>> 5;
    const low = this.u32() >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  }

  /** 0 … n − 1 for n up to 2^32, by multiplication. */
  below(n: number): number {
    return Math.floor(this.uniform() * n);
  }

  /** Standard normal by Marsaglia's polar method: no trigonometry. */
  normal(): number {
    for (;;) {
      const x = 2 * this.uniform() - 1;
      const y = 2 * this.uniform() - 1;
      const radius = x * x + y * y;
      if (radius > 0 && radius < 1) return x * Math.sqrt((-2 * log(radius)) / radius);
    }
  }

  /** Index drawn with probability proportional to the (non-negative) weights. */
  weighted(weights: ArrayLike<number>): number {
    let total = 0;
    for (let i = 0; i < weights.length; i += 1) total += weights[i] ?? 0;
    let rest = this.uniform() * total;
    let last = 0;
    for (let i = 0; i < weights.length; i += 1) {
      const weight = weights[i] ?? 0;
      if (weight <= 0) continue;
      last = i;
      rest -= weight;
      if (rest < 0) return i;
    }
    return last;
  }

  /** Fisher–Yates permutation of 0 … n − 1. */
  permutation(n: number): Int32Array {
    const order = Int32Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i -= 1) {
      const j = this.below(i + 1);
      const held = order[i] ?? 0;
      order[i] = order[j] ?? 0;
      order[j] = held;
    }
    return order;
  }

  /** exp of a normal with standard deviation `sigma`: a positive weight around 1. */
  logNormal(sigma: number): number {
    return exp(sigma * this.normal());
  }
}

/** One uniform number in [0, 1) at an index of a stream, without walking the sequence. */
export function uniformAt(from: RandomStream, index: number): number {
  const key: [number, number] = [from.seed | 0, Math.floor(from.seed / TWO_32) | 0];
  const words = philox4x32([index | 0, from.stream | 0, Math.floor(from.stream / TWO_32) | 0, from.site], key);
  return ((words[0] >>> 5) * 67108864 + (words[1] >>> 6)) / 9007199254740992;
}

/** High 32 bits of the unsigned product, from 16-bit halves. */
function multiplyHigh(a: number, b: number): number {
  const aHigh = a >>> 16;
  const aLow = a & 0xffff;
  const bHigh = b >>> 16;
  const bLow = b & 0xffff;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = (middle & 0xffff) + aLow * bHigh;
  return (aHigh * bHigh + Math.floor(middle / 65536) + Math.floor(carry / 65536)) | 0;
}
