/** What the alignment tasks draw: all of it a function of (seed, task, number of the example). */
import { RANDOM_SITES, RandomSequence, uniformAt } from '../random.js';
import { TASK_NAMES, type TaskName } from './task-recipes.js';

const TWO_32 = 4294967296;

export class TaskDraws {
  private readonly number: number;
  private readonly orders = new Map<string, { epoch: number; order: Int32Array }>();

  constructor(
    private readonly seed: number,
    task: TaskName,
  ) {
    this.number = TASK_NAMES.indexOf(task);
  }

  /** 0 … n − 1, for the choice of a template. */
  template(example: number, n: number): number {
    return Math.floor(
      uniformAt({ seed: this.seed, site: RANDOM_SITES.taskTemplate, stream: this.number }, example) * n,
    );
  }

  /**
   * Entry number k of a pool of n that is gone through in one random order after another, so that none comes twice before all
   * have come. Pools of different names have different orders.
   */
  fromPool(pool: 'events' | 'items', k: number, n: number): number {
    const epoch = Math.floor(k / n);
    let held = this.orders.get(pool);
    if (held?.epoch !== epoch) {
      const stream = (this.number * 2 + (pool === 'events' ? 0 : 1)) * TWO_32 + epoch;
      const random = new RandomSequence({ seed: this.seed, site: RANDOM_SITES.taskOrder, stream });
      held = { epoch, order: random.permutation(n) };
      this.orders.set(pool, held);
    }
    return held.order[k % n] ?? 0;
  }

  /** Further numbers for one example. */
  sequence(example: number): RandomSequence {
    const stream = this.number * TWO_32 + example;
    return new RandomSequence({ seed: this.seed, site: RANDOM_SITES.taskSample, stream });
  }
}
