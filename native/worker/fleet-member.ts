/**
 * The worker's membership: one long stream to the controller, opened again whenever it breaks.
 *
 * 1. Losing the controller never touches a running job; the stream is only how the fleet sees this worker.
 * 2. A change of lease is told at once, everything else once per beat.
 */
import type { ClientDuplexStream } from '@grpc/grpc-js';

import type { FleetServiceClient } from '../../proto/generated/collimate/v1/FleetService.js';
import type { JoinRequest } from '../../proto/generated/collimate/v1/JoinRequest.js';
import type { JoinResponse__Output } from '../../proto/generated/collimate/v1/JoinResponse.js';
import type { WorkerHello } from '../../proto/generated/collimate/v1/WorkerHello.js';
import { loadService, makeClient } from '../../orchestrator/fleet/channel.js';
import type { Logger } from '../../orchestrator/telemetry/logger.js';
import type { AttemptRef } from './lease.js';

const RECONNECT_MS = 250;
const BEAT_MS_DEFAULT = 1_000;

export interface FleetMemberOptions {
  controllerAddress: string;
  hello: WorkerHello;
  log: Logger;
  holder(): AttemptRef | null;
  lastStepSeconds(): number;
}

export class FleetMembership {
  readonly #options: FleetMemberOptions;
  readonly #client: FleetServiceClient;
  #stream: ClientDuplexStream<JoinRequest, JoinResponse__Output> | null = null;
  #beatTimer: NodeJS.Timeout | null = null;
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
    const lease = this.#options.holder();
    this.#stream?.write({ beat: { lease, lastStepSeconds: this.#options.lastStepSeconds() } });
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
      this.#options.log.info(`joined the fleet at ${this.#options.controllerAddress}`);
      this.#resolveJoined();
      this.beat();
      this.#beatTimer = setInterval(() => {
        this.beat();
      }, response.beatIntervalMs || BEAT_MS_DEFAULT);
    });
    stream.on('error', (error) => {
      broken(error.message);
    });
    stream.on('end', () => {
      broken('the controller ended it');
    });
    stream.write({ hello: this.#options.hello });
  }

  #stopBeating(): void {
    if (this.#beatTimer !== null) clearInterval(this.#beatTimer);
    this.#beatTimer = null;
  }
}
