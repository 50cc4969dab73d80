/**
 * Events on their way from a log to a dataset: string ids in, dense indices out.
 *
 * 1. Events are ordered by (time, position in the file); formats without times use the position alone.
 * 2. A repeat of (user, item, time) is dropped, the first one stays.
 * 3. Users and items with too few events are removed until nothing changes (k-core).
 * 4. Indices follow first appearance in the ordered, filtered events.
 * 5. An event takes 16 bytes in typed arrays, an id is kept once: ten million events fit in a fraction of a gigabyte.
 */
import { type Dataset, datasetFromEvents } from './dataset.js';
import { BadInputError } from './domain-job.js';
import { ownCopy } from './files.js';
import { orderByTime } from './time-order.js';

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

const CAPACITY_START = 1 << 16;
/** An event's number fits in 32 bits, and a Map holds no more than 2^24 ids. */
const EVENTS_MAX = 2 ** 32 - 1;
const IDS_MAX = 2 ** 24 - 1;
/** Events of one moment up to which comparing each with each is cheaper than a set. */
const COMPARED_MAX = 16;

export class EventLog {
  private readonly userNumbers = new Map<string, number>();
  private readonly itemNumbers = new Map<string, number>();
  private users = new Uint32Array(CAPACITY_START);
  private items = new Uint32Array(CAPACITY_START);
  private times = new Float64Array(CAPACITY_START);
  private count = 0;

  get length(): number {
    return this.count;
  }

  hasItem(item: string): boolean {
    return this.itemNumbers.has(item);
  }

  /** `time` null: the position in the file is the time. */
  add({ user, item, time }: { user: string; item: string; time: number | null }): void {
    if (this.count === this.users.length) this.grow();
    this.users[this.count] = numberOf(this.userNumbers, user);
    this.items[this.count] = numberOf(this.itemNumbers, item);
    this.times[this.count] = time ?? this.count;
    this.count += 1;
  }

  index(limits: CoreLimits): IndexedEvents {
    const { kept, duplicates } = this.orderedWithoutDuplicates();
    const orderedCount = kept.length;
    const core = this.core(kept, limits);
    const userIndices = new DenseIndices(this.userNumbers.size);
    const itemIndices = new DenseIndices(this.itemNumbers.size);
    const users = core.map((event) => userIndices.of(this.users[event] ?? 0));
    const items = core.map((event) => itemIndices.of(this.items[event] ?? 0));
    return {
      dataset: datasetFromEvents({ users, items, userCount: userIndices.count }),
      userIds: userIndices.idsByIndex(this.userNumbers),
      itemIds: itemIndices.idsByIndex(this.itemNumbers),
      duplicates,
      removed: {
        users: this.userNumbers.size - userIndices.count,
        items: this.itemNumbers.size - itemIndices.count,
        events: orderedCount - core.length,
      },
    };
  }

  /** By half: twice the arrays at once would be what the memory peaks at. */
  private grow(): void {
    const capacity = Math.min(EVENTS_MAX, Math.ceil(this.count * 1.5));
    if (capacity === this.count)
      throw new BadInputError(`expected at most ${EVENTS_MAX} events, got more; split the log`);
    const users = new Uint32Array(capacity);
    users.set(this.users);
    this.users = users;
    const items = new Uint32Array(capacity);
    items.set(this.items);
    this.items = items;
    const times = new Float64Array(capacity);
    times.set(this.times);
    this.times = times;
  }

  private orderedWithoutDuplicates(): { kept: Uint32Array; duplicates: number } {
    const order = orderByTime(this.times.subarray(0, this.count));
    let kept = 0;
    for (let start = 0; start < order.length;) {
      const time = this.times[order[start] ?? 0];
      let end = start + 1;
      while (end < order.length && this.times[order[end] ?? 0] === time) end += 1;
      kept = this.keepFirstOfPairs(order, { start, end, kept });
      start = end;
    }
    return { kept: order.subarray(0, kept), duplicates: order.length - kept };
  }

  /** Moves the events of one moment, [start, end), to `kept` on, repeats of a pair left out; answers the new `kept`. */
  private keepFirstOfPairs(order: Uint32Array, range: { start: number; end: number; kept: number }): number {
    const first = range.kept;
    let kept = first;
    const seen = range.end - range.start > COMPARED_MAX ? new Set<number>() : null;
    for (let i = range.start; i < range.end; i += 1) {
      const event = order[i] ?? 0;
      if (seen === null) {
        if (this.isAmong(order, { first, kept }, event)) continue;
      } else {
        const pair = (this.users[event] ?? 0) * this.itemNumbers.size + (this.items[event] ?? 0);
        if (seen.has(pair)) continue;
        seen.add(pair);
      }
      order[kept] = event;
      kept += 1;
    }
    return kept;
  }

  private isAmong(order: Uint32Array, range: { first: number; kept: number }, event: number): boolean {
    for (let i = range.first; i < range.kept; i += 1) {
      const other = order[i] ?? 0;
      if (this.users[other] === this.users[event] && this.items[other] === this.items[event]) return true;
    }
    return false;
  }

  /**
   * In place. Counts follow every removal at once, so that a pass already sees what it has removed itself; the k-core does not depend on
   * the order of removal.
   */
  private core(events: Uint32Array, { minEventsPerUser, minEventsPerItem }: CoreLimits): Uint32Array {
    const perUser = countsOf(this.users, events, this.userNumbers.size);
    const perItem = countsOf(this.items, events, this.itemNumbers.size);
    let length = events.length;
    for (;;) {
      let kept = 0;
      for (let i = 0; i < length; i += 1) {
        const event = events[i] ?? 0;
        const user = this.users[event] ?? 0;
        const item = this.items[event] ?? 0;
        if ((perUser[user] ?? 0) >= minEventsPerUser && (perItem[item] ?? 0) >= minEventsPerItem) {
          events[kept] = event;
          kept += 1;
        } else {
          perUser[user] = (perUser[user] ?? 0) - 1;
          perItem[item] = (perItem[item] ?? 0) - 1;
        }
      }
      if (kept === length) return events.subarray(0, kept);
      length = kept;
    }
  }
}

/** Indices in the order in which numbers are first asked for. */
class DenseIndices {
  count = 0;
  /** Index + 1; 0: none yet. */
  private readonly indices: Uint32Array;

  constructor(numbers: number) {
    this.indices = new Uint32Array(numbers);
  }

  of(number: number): number {
    const known = this.indices[number] ?? 0;
    if (known > 0) return known - 1;
    this.count += 1;
    this.indices[number] = this.count;
    return this.count - 1;
  }

  idsByIndex(numbers: Map<string, number>): string[] {
    const ids = new Array<string>(this.count).fill('');
    for (const [id, number] of numbers) {
      const index = this.indices[number] ?? 0;
      if (index > 0) ids[index - 1] = id;
    }
    return ids;
  }
}

function countsOf(numbers: Uint32Array, events: Uint32Array, size: number): Uint32Array {
  const counts = new Uint32Array(size);
  for (const event of events) {
    const number = numbers[event] ?? 0;
    counts[number] = (counts[number] ?? 0) + 1;
  }
  return counts;
}

function numberOf(numbers: Map<string, number>, id: string): number {
  const known = numbers.get(id);
  if (known !== undefined) return known;
  if (numbers.size === IDS_MAX) throw new BadInputError(`expected at most ${IDS_MAX} users and items each, got more`);
  numbers.set(ownCopy(id), numbers.size);
  return numbers.size - 1;
}
