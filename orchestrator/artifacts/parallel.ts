/** A few at a time: the bound on memory and connections when many things wait for the network. */

/** Runs `body` for every item, at most `limit` at once, and answers in the items' order. The first error ends it. */
export async function inParallel<T, R>(
  items: readonly T[],
  { limit, body }: { limit: number; body: (item: T) => Promise<R> },
): Promise<R[]> {
  const results = new Array<R>(items.length);
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let i = next++; i < items.length; i = next++) results[i] = await body(items[i] as T);
  };
  const lanes = Array.from({ length: Math.min(limit, items.length) }, async () => {
    try {
      await lane();
    } catch (error) {
      next = items.length;
      throw error;
    }
  });
  await Promise.all(lanes);
  return results;
}

/** Lets at most `limit` holders in at once, first come first served. */
export class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(limit: number) {
    this.#free = limit;
  }

  async acquire(): Promise<void> {
    if (this.#free > 0) this.#free -= 1;
    else {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
      });
    }
  }

  release(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free += 1;
    else next();
  }
}
