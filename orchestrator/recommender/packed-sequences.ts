/** Token sequences end to end in typed arrays that grow: millions of tokens must not become millions of boxed numbers. */
import { int64 } from './dataset.js';
import { type Tensor } from './safetensors.js';

const CAPACITY_MIN = 1024;

export class PackedSequences {
  private tokens = new Int32Array(CAPACITY_MIN);
  private readonly ends: number[] = [];
  private used = 0;

  get sequences(): number {
    return this.ends.length;
  }

  get tokenCount(): number {
    return this.used;
  }

  /** One sequence of all parts, in order. */
  push(...parts: ArrayLike<number>[]): void {
    let length = 0;
    for (const part of parts) length += part.length;
    if (this.used + length > this.tokens.length) this.grow(this.used + length);
    for (const part of parts) {
      this.tokens.set(part, this.used);
      this.used += part.length;
    }
    this.ends.push(this.used);
  }

  tensors(): { tokens: Tensor; offsets: Tensor } {
    return {
      tokens: { shape: [this.used], data: this.tokens.slice(0, this.used) },
      offsets: { shape: [this.ends.length + 1], data: int64([0, ...this.ends]) },
    };
  }

  private grow(least: number): void {
    const larger = new Int32Array(Math.max(least, 2 * this.tokens.length));
    larger.set(this.tokens.subarray(0, this.used));
    this.tokens = larger;
  }
}
