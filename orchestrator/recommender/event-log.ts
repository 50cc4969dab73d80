/**
 * Events on their way from a log to a dataset: string ids in, dense indices out.
 *
 * 1. Events are ordered by (time, position in the file); formats without times use the position alone.
 * 2. A repeat of (user, item, time) is dropped, the first one stays.
 * 3. Users and items with too few events are removed until nothing changes (k-core).
 * 4. Indices follow first appearance in the ordered, filtered events.
 */
import { type Dataset, datasetFromSequences } from './dataset.js';

export interface ImportedText {
  title: string;
  brand: string;
  categories: string;
  keywords: string;
  description: string;
  /** Only where the items file has one. */
  intention?: string;
}

export const NO_TEXT: ImportedText = { title: '', brand: '', categories: '', keywords: '', description: '' };

/** The optional column: nothing where it is empty, so that catalogues without it stay as they are. */
export function intentionOf(cell: string | undefined): { intention?: string } {
  const intention = cell?.trim() ?? '';
  return intention === '' ? {} : { intention };
}

export interface CoreLimits {
  minEventsPerUser: number;
  minEventsPerItem: number;
}

export interface IndexedEvents {
  dataset: Dataset;
  /** External ids by index. */
  userIds: string[];
  itemIds: string[];
  duplicates: number;
  /** Removed by the k-core. */
  removed: { users: number; items: number; events: number };
}

export class EventLog {
  private readonly userNumbers = new Map<string, number>();
  private readonly itemNumbers = new Map<string, number>();
  private readonly users: number[] = [];
  private readonly items: number[] = [];
  private readonly times: number[] = [];

  get length(): number {
    return this.users.length;
  }

  /** `time` null: the position in the file is the time. */
  add({ user, item, time }: { user: string; item: string; time: number | null }): void {
    this.users.push(numberOf(this.userNumbers, user));
    this.items.push(numberOf(this.itemNumbers, item));
    this.times.push(time ?? this.times.length);
  }

  index(limits: CoreLimits): IndexedEvents {
    const { kept: ordered, duplicates } = this.orderedWithoutDuplicates();
    const kept = this.core(ordered, limits);
    const userIndices = new Map<number, number>();
    const itemIndices = new Map<number, number>();
    const sequences: number[][] = [];
    for (const event of kept) {
      const user = indexOf(userIndices, this.users[event] ?? 0);
      (sequences[user] ??= []).push(indexOf(itemIndices, this.items[event] ?? 0));
    }
    return {
      dataset: datasetFromSequences(sequences),
      userIds: idsByIndex(this.userNumbers, userIndices),
      itemIds: idsByIndex(this.itemNumbers, itemIndices),
      duplicates,
      removed: {
        users: this.userNumbers.size - userIndices.size,
        items: this.itemNumbers.size - itemIndices.size,
        events: ordered.length - kept.length,
      },
    };
  }

  private orderedWithoutDuplicates(): { kept: Uint32Array; duplicates: number } {
    const order = Uint32Array.from({ length: this.length }, (_, i) => i);
    order.sort((a, b) => (this.times[a] ?? 0) - (this.times[b] ?? 0) || a - b);
    let seenAt = Number.NaN;
    let seen = new Set<number>();
    const kept = order.filter((event) => {
      const time = this.times[event] ?? 0;
      if (time !== seenAt) {
        seenAt = time;
        seen = new Set();
      }
      const pair = (this.users[event] ?? 0) * this.itemNumbers.size + (this.items[event] ?? 0);
      if (seen.has(pair)) return false;
      seen.add(pair);
      return true;
    });
    return { kept, duplicates: order.length - kept.length };
  }

  private core(ordered: Uint32Array, limits: CoreLimits): Uint32Array {
    let kept = ordered;
    for (;;) {
      const perUser = new Uint32Array(this.userNumbers.size);
      const perItem = new Uint32Array(this.itemNumbers.size);
      for (const event of kept) {
        perUser[this.users[event] ?? 0] = (perUser[this.users[event] ?? 0] ?? 0) + 1;
        perItem[this.items[event] ?? 0] = (perItem[this.items[event] ?? 0] ?? 0) + 1;
      }
      const next = kept.filter(
        (event) =>
          (perUser[this.users[event] ?? 0] ?? 0) >= limits.minEventsPerUser &&
          (perItem[this.items[event] ?? 0] ?? 0) >= limits.minEventsPerItem,
      );
      if (next.length === kept.length) return next;
      kept = next;
    }
  }
}

function numberOf(numbers: Map<string, number>, id: string): number {
  const known = numbers.get(id);
  if (known !== undefined) return known;
  numbers.set(id, numbers.size);
  return numbers.size - 1;
}

function indexOf(indices: Map<number, number>, number: number): number {
  const known = indices.get(number);
  if (known !== undefined) return known;
  indices.set(number, indices.size);
  return indices.size - 1;
}

function idsByIndex(numbers: Map<string, number>, indices: Map<number, number>): string[] {
  const ids = new Array<string>(indices.size).fill('');
  for (const [id, number] of numbers) {
    const index = indices.get(number);
    if (index !== undefined) ids[index] = id;
  }
  return ids;
}
