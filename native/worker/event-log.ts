/**
 * One attempt's events, kept so that a watcher can come late or come again.
 *
 * 1. Sequences count from 1 without gaps at the time of writing; old step events beyond a cap are dropped from the
 *    replay (they are progress only), every other event is kept.
 * 2. Nothing follows a terminal event (finished, stopped, parked, failed).
 */
import type { JobEvent } from '../../proto/generated/collimate/v1/JobEvent.js';

const STEP_EVENTS_KEPT_MAX = 2_000;

export type EventBody = Pick<
  JobEvent,
  'ready' | 'step' | 'checkpoint' | 'log' | 'finished' | 'stopped' | 'parked' | 'failed'
>;
export type SequencedEvent = EventBody & { sequence: number };

export class EventLog {
  readonly #listeners = new Set<(event: SequencedEvent) => void>();
  #events: SequencedEvent[] = [];
  #stepEvents = 0;
  #sequence = 0;
  #ended = false;

  get ended(): boolean {
    return this.#ended;
  }

  append(body: EventBody): void {
    if (this.#ended) return;
    this.#sequence += 1;
    const event = { ...body, sequence: this.#sequence };
    this.#events.push(event);
    if (body.step != null && ++this.#stepEvents > STEP_EVENTS_KEPT_MAX) this.#dropOldSteps();
    this.#ended = isTerminal(body);
    for (const listener of [...this.#listeners]) listener(event);
  }

  /** Replays what came after `afterSequence`, then follows; the returned function ends it. */
  follow(afterSequence: number, listener: (event: SequencedEvent) => void): () => void {
    for (const event of this.#events) if (event.sequence > afterSequence) listener(event);
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #dropOldSteps(): void {
    let toDrop = STEP_EVENTS_KEPT_MAX / 2;
    this.#events = this.#events.filter((event) => event.step == null || toDrop-- <= 0);
    this.#stepEvents -= STEP_EVENTS_KEPT_MAX / 2;
  }
}

/** Whether the event ends its attempt. */
export function isTerminal({ finished, stopped, parked, failed }: EventBody): boolean {
  return finished != null || stopped != null || parked != null || failed != null;
}
