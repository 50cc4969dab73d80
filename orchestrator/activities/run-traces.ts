/**
 * Spans of runs and of their stages, told when they are over.
 *
 * 1. Of what began before this process, the start is not known here: the span then begins where it ends, and says so.
 */
import type { StageName } from '../../workflows/contract.js';
import { spanNames, type Traces } from '../telemetry/traces.js';

const OVER = ['done', 'failed', 'cancelled'];

export class RunTraces {
  readonly #traces: Traces;
  /** By run id, and there by stage ('': the run itself). */
  readonly #beganMs = new Map<string, Map<string, number>>();

  constructor(traces: Traces) {
    this.#traces = traces;
  }

  state({
    runId,
    stage,
    state,
    failure,
  }: {
    runId: string;
    stage: StageName | null;
    state: string;
    failure: string | null;
  }): void {
    if (!this.#traces.enabled) return;
    const began = this.#beganMs.get(runId) ?? new Map<string, number>();
    this.#beganMs.set(runId, began);
    const part = stage ?? '';
    if (!OVER.includes(state)) {
      if (!began.has(part)) began.set(part, Date.now());
      return;
    }
    if (stage === null) {
      // What is still open ends with the run.
      for (const open of began.keys()) if (open !== '') this.#end(runId, open, { state, failure });
      this.#end(runId, '', { state, failure });
      this.#beganMs.delete(runId);
    } else {
      this.#end(runId, stage, { state, failure });
      began.delete(stage);
    }
  }

  #end(runId: string, part: string, { state, failure }: { state: string; failure: string | null }): void {
    const endMs = Date.now();
    const startMs = this.#beganMs.get(runId)?.get(part);
    this.#traces.tell({
      ...{ runId, title: part === '' ? `run ${runId}` : part },
      ...(part === ''
        ? { name: spanNames.run(), parent: null }
        : { name: spanNames.stage(part), parent: spanNames.run() }),
      ...{ startMs: startMs ?? endMs, endMs },
      attributes: {
        'collimate.outcome': state,
        ...(startMs === undefined ? { 'collimate.start': 'before this controller' } : {}),
      },
      ...(state === 'failed' ? { failure: failure ?? 'failed' } : {}),
    });
  }
}
