/**
 * The events that a task with a history may ask for: every training event that another one precedes.
 *
 * 1. Test and validation events never appear, neither as an answer nor in a history, nor in what negatives are kept from.
 */
import { type Dataset, trainingEventsOf } from '../dataset.js';
import { type RandomSequence } from '../random.js';

/** Draws before a shopper is taken to have everything. */
const TRIES_MAX = 64;

export class TrainingEvents {
  readonly count: number;
  private readonly users: Int32Array;
  /** Position of the event in its user's training part. */
  private readonly positions: Int32Array;

  constructor(private readonly dataset: Dataset) {
    let count = 0;
    for (let user = 0; user < dataset.userCount; user += 1) {
      count += Math.max(0, trainingEventsOf(dataset, user).length - 1);
    }
    this.count = count;
    this.users = new Int32Array(count);
    this.positions = new Int32Array(count);
    let next = 0;
    for (let user = 0; user < dataset.userCount; user += 1) {
      for (let position = 1; position < trainingEventsOf(dataset, user).length; position += 1) {
        this.users[next] = user;
        this.positions[next] = position;
        next += 1;
      }
    }
  }

  /** The item of an event, and the at most `historyItemsMax` items before it, oldest first. */
  at(event: number, historyItemsMax: number): { user: number; target: number; history: Int32Array } {
    const user = this.users[event] ?? 0;
    const position = this.positions[event] ?? 0;
    const events = trainingEventsOf(this.dataset, user);
    return {
      user,
      target: events[position] ?? 0,
      history: events.subarray(Math.max(0, position - historyItemsMax), position),
    };
  }

  /** Distinct items that the user does not have in training; fewer than `count` where hardly any are left. */
  sampleOthers(user: number, { count, random }: { count: number; random: RandomSequence }): number[] {
    const own = trainingEventsOf(this.dataset, user);
    const sampled: number[] = [];
    for (let tries = 0; sampled.length < count && tries < TRIES_MAX * count; tries += 1) {
      const item = random.below(this.dataset.itemCount);
      if (!own.includes(item) && !sampled.includes(item)) sampled.push(item);
    }
    return sampled;
  }
}
