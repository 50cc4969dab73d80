/**
 * The standard gRPC health service (`grpc.health.v1.Health`), so that Kubernetes' `grpc:` probes and `grpc_health_probe`
 * work without further help. Its definition is the published wire contract, given here as a descriptor.
 */
import {
  status,
  type Server,
  type ServiceDefinition,
  type handleUnaryCall,
  type handleServerStreamingCall,
} from '@grpc/grpc-js';
import { fromJSON } from '@grpc/proto-loader';

type ServingStatus = 'SERVING' | 'NOT_SERVING';
interface CheckRequest {
  service: string;
}
interface CheckResponse {
  status: ServingStatus;
}

const WATCH_INTERVAL_MS = 500;

const DEFINITION = fromJSON(
  {
    nested: {
      'grpc.health.v1': {
        nested: {
          HealthCheckRequest: { fields: { service: { type: 'string', id: 1 } } },
          HealthCheckResponse: {
            fields: { status: { type: 'ServingStatus', id: 1 } },
            nested: { ServingStatus: { values: { UNKNOWN: 0, SERVING: 1, NOT_SERVING: 2, SERVICE_UNKNOWN: 3 } } },
          },
          Health: {
            methods: {
              Check: { requestType: 'HealthCheckRequest', responseType: 'HealthCheckResponse', comment: '' },
              Watch: {
                requestType: 'HealthCheckRequest',
                responseType: 'HealthCheckResponse',
                responseStream: true,
                comment: '',
              },
            },
          },
        },
      },
    },
  },
  { enums: String, defaults: true },
);
export const HEALTH_SERVICE = DEFINITION['grpc.health.v1.Health'] as ServiceDefinition;

/** Adds the health service. `services` maps full names to whether each is ready; the empty name means all of them. */
export function addHealthService(server: Server, services: Record<string, () => boolean>): void {
  const statusOf = (name: string): ServingStatus | null => {
    const ready = name === '' ? () => Object.values(services).every((of) => of()) : services[name];
    if (ready === undefined) return null;
    return ready() ? 'SERVING' : 'NOT_SERVING';
  };
  const Check: handleUnaryCall<CheckRequest, CheckResponse> = ({ request }, callback) => {
    const found = statusOf(request.service);
    if (found === null) callback({ code: status.NOT_FOUND, details: `no service ${request.service} here` });
    else callback(null, { status: found });
  };
  const Watch: handleServerStreamingCall<CheckRequest, CheckResponse | { status: 'SERVICE_UNKNOWN' }> = (call) => {
    let last = '';
    const tell = (): void => {
      const now = statusOf(call.request.service) ?? 'SERVICE_UNKNOWN';
      if (now !== last) call.write({ status: now });
      last = now;
    };
    tell();
    const timer = setInterval(tell, WATCH_INTERVAL_MS);
    call.on('cancelled', () => clearInterval(timer));
  };
  server.addService(HEALTH_SERVICE, { Check, Watch });
}
