/**
 * The store through which the ranks of one gang exchange small blobs before they open their collectives.
 *
 * 1. A generation is (job id, epoch). A put or gather of a lower epoch than the highest seen is refused as stale.
 * 2. Nothing is durable: after a controller restart ranks put again, since they repeat until their deadline.
 */

export class StaleEpochError extends Error {
  override readonly name = 'StaleEpochError';
}

interface Generation {
  epoch: number;
  blobs: (Buffer | undefined)[];
  waiting: (() => void)[];
}

export interface GenerationRef {
  jobId: string;
  epoch: number;
  world: number;
}

export class RendezvousStore {
  readonly #generations = new Map<string, Generation>();

  put(ref: GenerationRef, rank: number, blob: Buffer): void {
    if (rank >= ref.world) throw new RangeError(`rank ${String(rank)} is outside a world of ${String(ref.world)}`);
    const generation = this.#open(ref);
    generation.blobs[rank] = blob;
    if (isComplete(generation)) for (const wake of generation.waiting.splice(0)) wake();
  }

  /** Blobs in rank order once all are there; undefined after `timeoutMs` without them. */
  async gather(ref: GenerationRef, timeoutMs: number): Promise<Buffer[] | undefined> {
    const generation = this.#open(ref);
    if (!isComplete(generation)) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, timeoutMs);
        generation.waiting.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
    // A newer epoch may have replaced this generation while it waited.
    this.#open(ref);
    return isComplete(generation) ? generation.blobs.filter((blob) => blob !== undefined) : undefined;
  }

  #open({ jobId, epoch, world }: GenerationRef): Generation {
    const known = this.#generations.get(jobId);
    if (known !== undefined && known.epoch > epoch) {
      throw new StaleEpochError(`job ${jobId}: epoch ${String(epoch)} is stale, ${String(known.epoch)} is current`);
    }
    if (known !== undefined && known.epoch === epoch) {
      if (known.blobs.length !== world) {
        throw new RangeError(`job ${jobId}: world ${String(world)} came, ${String(known.blobs.length)} was put first`);
      }
      return known;
    }
    for (const wake of known?.waiting.splice(0) ?? []) wake();
    const generation: Generation = { epoch, blobs: new Array<Buffer | undefined>(world).fill(undefined), waiting: [] };
    this.#generations.set(jobId, generation);
    return generation;
  }
}

function isComplete(generation: Generation): boolean {
  return generation.blobs.every((blob) => blob !== undefined);
}
