/** The controller's Fleet service as the command line uses it: who is in the fleet, and what happens in a run. */
import { type ClientReadableStream, status } from '@grpc/grpc-js';

import { type FleetServiceClient } from '../../proto/generated/collimate/v1/FleetService.js';
import { type ListWorkersResponse__Output } from '../../proto/generated/collimate/v1/ListWorkersResponse.js';
import { type Scheduling__Output } from '../../proto/generated/collimate/v1/Scheduling.js';
import { type WatchRunResponse__Output } from '../../proto/generated/collimate/v1/WatchRunResponse.js';
import { loadService, makeClient, RpcError, unary } from '../fleet/channel.js';
import { CliError } from './cli-error.js';
import { nearest } from './nearest.js';

const LIST_DEADLINE_MS = 5_000;
/** The controller asks the worker. */
const SCHEDULE_DEADLINE_MS = 8_000;

export class FleetClient {
  private readonly client: FleetServiceClient;

  constructor(private readonly address: string) {
    this.client = makeClient(loadService('FleetService'), address);
  }

  async listWorkers(): Promise<ListWorkersResponse__Output> {
    try {
      return await unary(this.client, 'listWorkers', {}, { deadlineMs: LIST_DEADLINE_MS });
    } catch (error) {
      throw this.explained(error);
    }
  }

  /** The worker has heard it when this resolves; a hand-over goes on behind it. */
  async setScheduling(
    workerId: string,
    scheduling: Exclude<Scheduling__Output, 'SCHEDULING_UNSPECIFIED'>,
  ): Promise<void> {
    try {
      await unary(this.client, 'setScheduling', { workerId, scheduling }, { deadlineMs: SCHEDULE_DEADLINE_MS });
    } catch (error) {
      if (error instanceof RpcError && error.code === status.NOT_FOUND) {
        const known = (await this.listWorkers()).workers.map(({ hello }) => hello?.workerId ?? '?');
        const hint = nearest(workerId, known);
        throw new CliError(
          'notFound',
          `expected a worker of the fleet (${known.join(', ') || 'nobody has joined'}), got "${workerId}"` +
            (hint === null ? '' : `; did you mean "${hint}"?`),
          { cause: error },
        );
      }
      throw this.explained(error);
    }
  }

  private explained(error: unknown): unknown {
    if (!(error instanceof RpcError)) return error;
    const message = `expected a controller at ${this.address}, but: ${error.details}; see "collimate doctor"`;
    return new CliError('unreachable', message, { cause: error });
  }

  /** Follows a run until it is closed or the controller goes away. Open-ended by nature: keepalive watches the peer. */
  watchRun(runId: string): ClientReadableStream<WatchRunResponse__Output> {
    return this.client.watchRun({ runId });
  }

  close(): void {
    this.client.close();
  }
}
