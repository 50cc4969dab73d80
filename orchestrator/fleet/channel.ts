/**
 * The one factory of gRPC channels and servers: credentials, keepalive, message sizes, service definitions.
 *
 * 1. Every unary call has a deadline.
 * 2. Every channel and server pings, with or without calls, so that a dead peer is seen within about three seconds.
 * 3. Plaintext unless COLLIMATE_TLS_DIR names a folder with ca.pem, cert.pem and key.pem; then both sides must show a
 *    certificate of that authority.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import {
  credentials,
  loadPackageDefinition,
  Metadata,
  Server,
  ServerCredentials,
  status,
  type ChannelCredentials,
  type ChannelOptions,
  type Client,
  type ClientUnaryCall,
  type requestCallback,
  type ServiceError,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

import type { ProtoGrpcType as FleetProto } from '../../proto/generated/fleet.js';
import type { ProtoGrpcType as RecommendProto } from '../../proto/generated/recommend.js';
import type { ProtoGrpcType as RendezvousProto } from '../../proto/generated/rendezvous.js';
import type { ProtoGrpcType as WorkerProto } from '../../proto/generated/worker.js';

interface Services {
  WorkerService: WorkerProto['collimate']['v1']['WorkerService'];
  FleetService: FleetProto['collimate']['v1']['FleetService'];
  RendezvousService: RendezvousProto['collimate']['v1']['RendezvousService'];
  RecommendService: RecommendProto['collimate']['v1']['RecommendService'];
}
export type ServiceName = keyof Services;

/** The last overload of a generated unary method; a streaming method has no callback and does not match. */
type Unary<Request, Response> = (request: Request, callback: requestCallback<Response>) => ClientUnaryCall;
/* eslint-disable @typescript-eslint/no-explicit-any -- any is what matches every request and response type */
export type UnaryMethods<C> = {
  [M in keyof C & string]: C[M] extends Unary<any, any> ? M : never;
}[keyof C & string];
export type RequestOf<C, M extends keyof C> = C[M] extends Unary<infer Request, any> ? Request : never;
export type ResponseOf<C, M extends keyof C> = C[M] extends Unary<any, infer Response> ? Response : never;
/* eslint-enable @typescript-eslint/no-explicit-any */

const PROTO_FILES: Record<ServiceName, string> = {
  WorkerService: 'worker.proto',
  FleetService: 'fleet.proto',
  RendezvousService: 'rendezvous.proto',
  RecommendService: 'recommend.proto',
};
export const MESSAGE_BYTES_MAX = 4 * 1024 * 1024;

const OPTIONS: ChannelOptions = {
  'grpc.keepalive_time_ms': 2000,
  'grpc.keepalive_timeout_ms': 1000,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
  'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
  // A restarted peer is found again quickly.
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1000,
  // The fleet's network is private: an http_proxy of the environment must not carry it.
  'grpc.enable_http_proxy': 0,
};

/** A failed call, with its method and address in the message. `code` is the gRPC status. */
export class RpcError extends Error {
  override readonly name = 'RpcError';
  readonly code: status;
  readonly details: string;

  constructor({ call, code, details, cause }: { call: string; code: status; details: string; cause: unknown }) {
    super(`${call}: ${status[code]}: ${plainReason(details)}`, { cause });
    this.code = code;
    this.details = details;
  }
}

/** grpc-js wraps the socket's own words in its book-keeping; people want "connection refused". */
export function plainReason(details: string): string {
  const error = /Last error: (?:Error: )?(.*?)\.? *Resolution note:/.exec(details)?.[1] ?? details;
  const [code = ''] = /\bE[A-Z]{4,}\b/.exec(error) ?? [];
  return SOCKET_ERRORS[code] ?? error.replace(/\.? *Resolution note:.*$/, '');
}

const SOCKET_ERRORS: Record<string, string> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset',
  EHOSTUNREACH: 'host unreachable',
  ENETUNREACH: 'network unreachable',
  ENOTFOUND: 'host name not found',
  ETIMEDOUT: 'connection timed out',
};

/** Client constructor and service definition (`.service`) of a service in proto/collimate/v1. */
export function loadService<N extends ServiceName>(name: N): Services[N] {
  const definition = loadSync(`collimate/v1/${PROTO_FILES[name]}`, {
    includeDirs: [protoFolder()],
    // The same options as in proto/generate.mjs, so that values look as the types say.
    longs: Number,
    enums: String,
    defaults: true,
    oneofs: true,
  });
  const loaded = loadPackageDefinition(definition) as unknown as { collimate: { v1: Services } };
  return loaded.collimate.v1[name];
}

/** A client of `host:port`. It connects at the first call; close it with `client.close()`. */
export function makeClient<C extends Client>(
  service: new (address: string, credentials: ChannelCredentials, options?: ChannelOptions) => C,
  address: string,
): C {
  const tls = tlsFiles();
  const secret = tls === null ? credentials.createInsecure() : credentials.createSsl(tls.ca, tls.key, tls.cert);
  return new service(address, secret, OPTIONS);
}

export interface CallOptions {
  deadlineMs: number;
  /** Cancels the call. */
  signal?: AbortSignal;
  metadata?: Metadata;
}

/** One unary call as a promise. Rejects with RpcError. */
export function unary<C extends Client, M extends UnaryMethods<C>>(
  client: C,
  method: M,
  request: RequestOf<C, M>,
  { deadlineMs, signal, metadata = new Metadata() }: CallOptions,
): Promise<ResponseOf<C, M>> {
  return new Promise((resolve, reject) => {
    const start = client[method] as unknown as (
      request: RequestOf<C, M>,
      metadata: Metadata,
      options: { deadline: number },
      callback: (error: ServiceError | null, response?: ResponseOf<C, M>) => void,
    ) => ClientUnaryCall;
    const cancel = (): void => call.cancel();
    const call = start.call(client, request, metadata, { deadline: Date.now() + deadlineMs }, (error, response) => {
      signal?.removeEventListener('abort', cancel);
      if (error === null) {
        resolve(response as ResponseOf<C, M>);
        return;
      }
      const { code, details } = error;
      reject(new RpcError({ call: `${method} at ${client.getChannel().getTarget()}`, code, details, cause: error }));
    });
    signal?.addEventListener('abort', cancel);
    if (signal?.aborted === true) cancel();
  });
}

export function makeServer(): Server {
  return new Server(OPTIONS);
}

/** Binds `host:port` (port 0 for any free one), starts to serve, and answers the port. */
export function bindServer(server: Server, address: string): Promise<number> {
  const tls = tlsFiles();
  const secret =
    tls === null
      ? ServerCredentials.createInsecure()
      : ServerCredentials.createSsl(tls.ca, [{ private_key: tls.key, cert_chain: tls.cert }], true);
  return new Promise((resolve, reject) => {
    server.bindAsync(address, secret, (error, port) => {
      if (error === null) {
        resolve(port);
        return;
      }
      const why = error.message.includes('EADDRINUSE')
        ? 'the port is in use; choose another port or stop the process that holds it'
        : error.message;
      reject(new Error(`gRPC server: cannot listen on ${address}: ${why}`, { cause: error }));
    });
  });
}

interface TlsFiles {
  ca: Buffer;
  cert: Buffer;
  key: Buffer;
}

function tlsFiles(): TlsFiles | null {
  const folder = process.env['COLLIMATE_TLS_DIR'];
  if (folder === undefined || folder === '') return null;
  const read = (name: string): Buffer => {
    try {
      return readFileSync(join(folder, name));
    } catch (error) {
      throw new Error(`COLLIMATE_TLS_DIR: expected ca.pem, cert.pem and key.pem in ${folder}; cannot read ${name}`, {
        cause: error,
      });
    }
  };
  return { ca: read('ca.pem'), cert: read('cert.pem'), key: read('key.pem') };
}

/** The repository's proto folder, found from the source and from dist/ alike: beside the nearest package.json above. */
function protoFolder(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  for (let folder = here; folder !== dirname(folder); folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json')) && existsSync(join(folder, 'proto', 'collimate', 'v1'))) {
      return join(folder, 'proto');
    }
  }
  throw new Error(`expected proto/collimate/v1 beside a package.json above ${here}; reinstall the project`);
}
