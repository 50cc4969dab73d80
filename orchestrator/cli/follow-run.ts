/**
 * Follows a run to its end: events from the controller's stream, the state from Temporal.
 *
 * 1. A server or controller that goes away is waited for: a run outlives both.
 * 2. Leaving (Ctrl-C) never touches the run.
 */
import { type ClientReadableStream } from '@grpc/grpc-js';
import { setTimeout as sleep } from 'node:timers/promises';

import { type WatchRunResponse__Output } from '../../proto/generated/collimate/v1/WatchRunResponse.js';
import { type RunStatus } from '../../workflows/contract.js';
import { isAway } from './cli-error.js';
import { FleetClient } from './fleet-client.js';
import { isOver, queryRunStatus } from './run-status.js';
import { type TemporalSession } from './temporal-connection.js';

const POLL_MS = 500;
const RECONNECT_MS = 500;
/** How long the servers may stay away before a follow gives up; the run itself is not affected. */
const SILENCE_MAX_MS = 180_000;
/** Events of the last moments may arrive after the state does. */
const DRAIN_MS = 300;

export interface FollowOptions {
  session: TemporalSession;
  controllerAddress: string;
  runId: string;
  signal: AbortSignal;
  onEvent?: (event: WatchRunResponse__Output) => void;
  onStatus?: (status: RunStatus) => void;
  /** Told once when the servers stop answering, and once when they answer again. */
  onContact?: (reachable: boolean) => void;
}

export class RunFollower {
  private readonly fleet: FleetClient;
  private stream: ClientReadableStream<WatchRunResponse__Output> | null = null;
  private timer: NodeJS.Timeout | null = null;
  private closed = false;

  /** Subscribes at once, so that a run started afterwards is seen from its first event. */
  constructor(private readonly options: FollowOptions) {
    this.fleet = new FleetClient(options.controllerAddress);
    this.subscribe();
  }

  /** The status at the end; null when the follow was left. */
  async untilOver(): Promise<RunStatus | null> {
    const { session, runId, signal } = this.options;
    let silentSinceMs: number | null = null;
    try {
      while (!signal.aborted) {
        try {
          const status = await queryRunStatus(session, runId);
          if (silentSinceMs !== null) this.options.onContact?.(true);
          silentSinceMs = null;
          if (isOver(status)) {
            await sleep(DRAIN_MS);
            this.options.onStatus?.(status);
            return status;
          }
          this.options.onStatus?.(status);
        } catch (error) {
          if (!isAway(error)) throw error;
          if (silentSinceMs === null) this.options.onContact?.(false);
          silentSinceMs ??= Date.now();
          if (Date.now() - silentSinceMs > SILENCE_MAX_MS) throw error;
        }
        await sleep(POLL_MS, undefined, { signal }).catch(() => undefined);
      }
      return null;
    } finally {
      this.close();
    }
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    if (this.timer !== null) clearTimeout(this.timer);
    this.stream?.cancel();
    this.fleet.close();
  }

  private subscribe(): void {
    if (this.closed) return;
    const stream = this.fleet.watchRun(this.options.runId);
    this.stream = stream;
    stream.on('data', (event: WatchRunResponse__Output) => this.options.onEvent?.(event));
    let ended = false;
    const again = (): void => {
      if (ended || this.closed) return;
      ended = true;
      this.timer = setTimeout(() => this.subscribe(), RECONNECT_MS);
    };
    stream.on('error', again);
    stream.on('end', again);
  }
}
