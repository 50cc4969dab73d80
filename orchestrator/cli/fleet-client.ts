/** The controller's Fleet service as the command line uses it: who is in the fleet, and what happens in a run. */
import { type ClientReadableStream } from '@grpc/grpc-js';

import { type FleetServiceClient } from '../../proto/generated/collimate/v1/FleetService.js';
import { type ListWorkersResponse__Output } from '../../proto/generated/collimate/v1/ListWorkersResponse.js';
import { type WatchRunResponse__Output } from '../../proto/generated/collimate/v1/WatchRunResponse.js';
import { loadService, makeClient, RpcError, unary } from '../fleet/channel.js';
import { CliError } from './cli-error.js';

const LIST_DEADLINE_MS = 5_000;

export class FleetClient {
  private readonly client: FleetServiceClient;

  constructor(private readonly address: string) {
    this.client = makeClient(loadService('FleetService'), address);
  }

  async listWorkers(): Promise<ListWorkersResponse__Output> {
    try {
      return await unary(this.client, 'listWorkers', {}, { deadlineMs: LIST_DEADLINE_MS });
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
      throw new CliError(
        'unreachable',
        `expected a controller at ${this.address}, but: ${error.details}; see "collimate doctor"`,
        { cause: error },
      );
    }
  }

  /** Follows a run until it is closed or the controller goes away. Open-ended by nature: keepalive watches the peer. */
  watchRun(runId: string): ClientReadableStream<WatchRunResponse__Output> {
    return this.client.watchRun({ runId });
  }

  close(): void {
    this.client.close();
  }
}
