/** The Recommend gRPC service over a ListReader, with health and metrics. Read-only; needs nothing but the serving folder. */
import { status, type sendUnaryData, type ServerUnaryCall } from '@grpc/grpc-js';

import type { RecommendRequest__Output } from '../../proto/generated/collimate/v1/RecommendRequest.js';
import type { RecommendResponse } from '../../proto/generated/collimate/v1/RecommendResponse.js';
import { bindServer, loadService, makeServer } from '../fleet/channel.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { GenerationMeta } from './generation.js';
import { addHealthService } from './health-service.js';
import { ListReader, NothingPublishedError, UnknownUserError } from './list-reader.js';

export interface RecommendServerOptions {
  /** host:port; port 0 for any free one. */
  address: string;
  servingDir: string;
  metrics?: Metrics;
  onSwap?: (meta: GenerationMeta) => void;
  onWarning?: (message: string) => void;
}

export interface RecommendServer {
  port: number;
  /** Whether a generation is being served. */
  ready(): boolean;
  /** Lets running calls end, then closes the lists. */
  close(): Promise<void>;
}

const K_DEFAULT = 10;
const CLOSE_GRACE_MS = 2000;

export async function startRecommendServer(options: RecommendServerOptions): Promise<RecommendServer> {
  const { address, servingDir, metrics, onWarning } = options;
  const onSwap = (meta: GenerationMeta): void => {
    if (metrics !== undefined) exportGeneration(metrics, meta);
    options.onSwap?.(meta);
  };
  const reader = await ListReader.open({ servingDir, onSwap, ...(onWarning === undefined ? {} : { onWarning }) });
  const ready = (): boolean => reader.meta !== null;
  const server = makeServer();
  server.addService(loadService('RecommendService').service, {
    Recommend(
      call: ServerUnaryCall<RecommendRequest__Output, RecommendResponse>,
      callback: sendUnaryData<RecommendResponse>,
    ) {
      const startedMs = performance.now();
      let code = status.OK;
      try {
        callback(null, answer(reader, call.request));
      } catch (error) {
        code = statusOf(error);
        callback({ code, details: error instanceof Error ? error.message : String(error) });
      }
      metrics?.observe(
        'collimate_serve_request_duration_seconds',
        { code: status[code] },
        (performance.now() - startedMs) / 1000,
      );
    },
  });
  addHealthService(server, { 'collimate.v1.RecommendService': ready });
  let port: number;
  try {
    port = await bindServer(server, address);
  } catch (error) {
    await reader.close();
    throw error;
  }
  return {
    port,
    ready,
    async close() {
      await new Promise<void>((resolve) => {
        const force = setTimeout(() => server.forceShutdown(), CLOSE_GRACE_MS);
        server.tryShutdown(() => {
          clearTimeout(force);
          resolve();
        });
      });
      await reader.close();
    },
  };
}

function answer(reader: ListReader, request: RecommendRequest__Output): RecommendResponse {
  const { user, items, historyHash, meta } = reader.recommend({
    user: request.userId,
    k: request.k === 0 ? K_DEFAULT : request.k,
    exclude: request.excludeItemIds,
  });
  return {
    userId: user,
    items: items.map(({ item, title, score }) => ({ itemId: item, title, score })),
    generation: meta.generation,
    historyHash,
    modelVersion: meta.versions.model,
    catalogueVersion: meta.versions.catalogue,
    promptVersion: meta.versions.prompt,
    createdUnixSeconds: meta.createdUnixSeconds,
  };
}

function statusOf(error: unknown): status {
  if (error instanceof UnknownUserError) return status.NOT_FOUND;
  return error instanceof NothingPublishedError ? status.UNAVAILABLE : status.INTERNAL;
}

function exportGeneration(metrics: Metrics, meta: GenerationMeta): void {
  metrics.clear('collimate_serve_generation_info');
  metrics.set(
    'collimate_serve_generation_info',
    { generation: meta.generation, model_version: meta.versions.model },
    1,
  );
  metrics.set('collimate_serve_generation_created_timestamp_seconds', {}, meta.createdUnixSeconds);
  metrics.set('collimate_serve_users', {}, meta.users);
}
