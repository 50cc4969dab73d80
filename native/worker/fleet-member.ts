/**
 * The worker's membership: one long stream to the controller, opened again whenever it breaks.
 *
 * 1. Losing the controller never touches a running job; the stream is only how the fleet sees this worker.
 * 2. A change of lease is told at once, everything else once per beat; a worker with a job beats faster, so that one that is
 *    frozen is missed soon.
 * 3. Log lines are forwarded as they are written, as long as the stream stands.
 */
import type { ClientDuplexStream } from '@grpc/grpc-js';

import type { FleetServiceClient } from '../../proto/generated/collimate/v1/FleetService.js';
import type { JoinRequest } from '../../proto/generated/collimate/v1/JoinRequest.js';
import type { JoinResponse__Output } from '../../proto/generated/collimate/v1/JoinResponse.js';
import type { WorkerHello } from '../../proto/generated/collimate/v1/WorkerHello.js';
import { loadService, makeClient } from '../../orchestrator/fleet/channel.js';
import type { Logger } from '../../orchestrator/telemetry/logger.js';
import type { JobRun } from './job-runner.js';
import type { AttemptRef } from './lease.js';

const RECONNECT_MS = 250;
const BEAT_MS_DEFAULT = 1_000;

export interface FleetMemberOptions {
  controllerAddress: string;
  hello: WorkerHello;
  log: Logger;
  holder(): AttemptRef | null;
  lastStepSeconds(): number;
  progress(): JobRun['progress'];
  isDraining(): boolean;
  isCordoned(): boolean;
}

export class FleetMembership {
  readonly #options: FleetMemberOptions;
  readonly #client: FleetServiceClient;
  #stream: ClientDuplexStream<JoinRequest, JoinResponse__Output> | null = null;
  #beatTimer: NodeJS.Timeout | null = null;
  #beatIntervalMs = BEAT_MS_DEFAULT;
  #busyBeatIntervalMs = BEAT_MS_DEFAULT;
  #joined = false;
  #closed = false;
  readonly joined: Promise<void>;
  #resolveJoined: () => void = () => undefined;

  constructor(options: FleetMemberOptions) {
    this.#options = options;
    this.#client = makeClient<FleetServiceClient>(loadService('FleetService'), options.controllerAddress);
    this.joined = new Promise((resolve) => {
      this.#resolveJoined = resolve;
    });
    this.#connect();
  }

  beat(): void {
    if (!this.#joined) return;
    const at = this.#options.progress();
    this.#stream?.write({
      beat: {
        lease: this.#options.holder(),
        lastStepSeconds: this.#options.lastStepSeconds(),
        progress: at === null ? null : { step: at.step, phase: at.phase, waitingForRank: at.waitingFor },
        draining: this.#options.isDraining(),
        cordoned: this.#options.isCordoned(),
      },
    });
    this.#scheduleBeat();
  }

  /** A line of this process's log. */
  logLine(line: string): void {
    if (this.#joined) this.#stream?.write({ log: { lines: [line] } });
  }

  close(): void {
    this.#closed = true;
    this.#stopBeating();
    this.#stream?.end();
    this.#client.close();
  }

  #connect(): void {
    const stream = this.#client.join();
    this.#stream = stream;
    let over = false;
    const broken = (reason: string): void => {
      if (over) return;
      over = true;
      this.#stopBeating();
      if (this.#joined) this.#options.log.warn(`fleet stream to ${this.#options.controllerAddress} broke: ${reason}`);
      this.#joined = false;
      if (!this.#closed)
        setTimeout(() => {
          if (!this.#closed) this.#connect();
        }, RECONNECT_MS);
    };
    stream.on('data', (response: JoinResponse__Output) => {
      if (this.#joined) return;
      this.#joined = true;
      this.#beatIntervalMs = response.beatIntervalMs || BEAT_MS_DEFAULT;
      this.#busyBeatIntervalMs = response.busyBeatIntervalMs || this.#beatIntervalMs;
      this.#options.log.info(`joined the fleet at ${this.#options.controllerAddress}`);
      this.#resolveJoined();
      this.beat();
    });
    stream.on('error', (error) => {
      broken(error.message);
    });
    stream.on('end', () => {
      broken('the controller ended it');
    });
    stream.write({ hello: this.#options.hello });
  }

  #scheduleBeat(): void {
    this.#stopBeating();
    const busy = this.#options.holder() !== null;
    this.#beatTimer = setTimeout(
      () => {
        this.beat();
      },
      busy ? this.#busyBeatIntervalMs : this.#beatIntervalMs,
    );
  }

  #stopBeating(): void {
    if (this.#beatTimer !== null) clearTimeout(this.#beatTimer);
    this.#beatTimer = null;
  }
}
