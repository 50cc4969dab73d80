/** What activities are given by the controller. */
import type { ArtifactStore } from '../artifacts/store.js';
import type { FleetRegistry } from '../fleet/registry.js';
import type { RunEvents } from '../fleet/run-events.js';
import type { WorkerClients } from '../fleet/worker-clients.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { Traces } from '../telemetry/traces.js';

export interface ActivityDependencies {
  store: ArtifactStore;
  fleet: FleetRegistry;
  workers: WorkerClients;
  events: RunEvents;
  metrics: Metrics;
  traces: Traces;
  /** host:port at which workers reach this controller's Rendezvous service. */
  rendezvousAddress: () => string;
  servingDir: string;
}
