/**
 * Connections to the Temporal server, and what its errors mean to a user.
 *
 * 1. Every call has a deadline.
 * 2. A server that does not answer is `unreachable`; a workflow that nobody knows is `notFound`; a query that the
 *    controller does not answer in time is `timeout`.
 */
import {
  Client,
  Connection,
  isGrpcServiceError,
  NamespaceNotFoundError,
  ServiceError,
  WorkflowNotFoundError,
} from '@temporalio/client';
import { setTimeout as sleep } from 'node:timers/promises';

import { CliError, messageOf } from './cli-error.js';

export const CALL_DEADLINE_MS = 10_000;
const GRPC_DEADLINE_EXCEEDED = 4;
const GRPC_NOT_FOUND = 5;
const GRPC_UNAVAILABLE = 14;

export interface TemporalSession {
  client: Client;
  /** Runs one call under the usual deadline and turns its errors into ours. */
  call<T>(what: string, action: () => Promise<T>, deadlineMs?: number): Promise<T>;
  close(): Promise<void>;
}

export async function connectTemporal(address: string, namespace: string): Promise<TemporalSession> {
  let connection: Connection;
  try {
    connection = await Connection.connect({ address, connectTimeout: 5_000 });
  } catch (error) {
    throw new CliError(
      'unreachable',
      `expected a Temporal server at ${address}, but it does not answer; start one with "collimate up"`,
      { cause: error },
    );
  }
  const client = new Client({ connection, namespace });
  return {
    client,
    async call(what, action, deadlineMs = CALL_DEADLINE_MS) {
      try {
        return await connection.withDeadline(Date.now() + deadlineMs, action);
      } catch (error) {
        throw explain(error, what, address);
      }
    },
    close: () => connection.close(),
  };
}

function grpcCodeOf(error: unknown): number | null {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (isGrpcServiceError(cause)) return cause.code;
  }
  return null;
}

/** Turns an error of a Temporal call into one for the user; others pass unchanged. */
export function explain(error: unknown, what: string, address: string): unknown {
  const code = grpcCodeOf(error);
  // A server that is held up, or has only just started, may not know its namespace for a moment; its code is that of a missing run.
  if (error instanceof NamespaceNotFoundError) {
    const message = `${what}: the Temporal server at ${address} does not know its namespace; it may be starting, try again`;
    return new CliError('unreachable', message, { cause: error });
  }
  if (error instanceof WorkflowNotFoundError || code === GRPC_NOT_FOUND) {
    return new CliError('notFound', `${what}: there is no such run, or it has ended; "collimate ls" shows the runs`, {
      cause: error,
    });
  }
  if (code === GRPC_UNAVAILABLE) {
    return new CliError(
      'unreachable',
      `${what}: the Temporal server at ${address} does not answer; try "collimate up"`,
      {
        cause: error,
      },
    );
  }
  if (code === GRPC_DEADLINE_EXCEEDED) {
    return new CliError(
      'timeout',
      `${what}: no answer in time; the controller may be down or busy ("collimate doctor" shows what runs)`,
      { cause: error },
    );
  }
  if (error instanceof ServiceError)
    return new CliError('unreachable', `${what}: ${messageOf(error)}`, { cause: error });
  return error;
}

/** Resolves once the server knows the namespace; rejects when `signal` says to give up. */
export async function namespaceAnswers(address: string, namespace: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    signal.throwIfAborted();
    let connection: Connection | null = null;
    try {
      const opened = await Connection.connect({ address, connectTimeout: 1_000 });
      connection = opened;
      await opened.withDeadline(Date.now() + 1_000, () => opened.workflowService.describeNamespace({ namespace }));
      return;
    } catch {
      await sleep(100, undefined, { signal });
    } finally {
      await connection?.close();
    }
  }
}
