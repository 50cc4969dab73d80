/**
 * What a dashboard ("room") is, before Grafana's own form of it: panels that each say what they show, in which unit, and
 * which room to enter next.
 */

export type VariableName = 'run' | 'stage' | 'rank' | 'worker';

/** Grafana's names of units. */
export type Unit = 's' | 'bytes' | 'percentunit' | 'short' | 'none' | 'reqps' | 'ops' | 'dateTimeAsIso';

export interface Query {
  expr: string;
  /** Template over labels, `{{rank}}`. */
  legend: string;
}

export interface PanelSpec {
  title: string;
  /** What is seen, and what to conclude from it. */
  description: string;
  kind: 'timeseries' | 'stat' | 'bars' | 'states' | 'grid' | 'heatmap';
  unit: Unit;
  queries: readonly Query[];
  /** Of 24 columns; 12 when left out. */
  width?: number;
  /** Uid of the room that explains what is odd here. */
  next: string;
  stacked?: true;
}

export interface Room {
  uid: string;
  title: string;
  description: string;
  variables: readonly VariableName[];
  panels: readonly PanelSpec[];
}

/** The values that a variable can take within the time range: also of series that have ended since. */
export const VARIABLE_QUERIES: Readonly<Record<VariableName, { expr: string; regex: string }>> = {
  run: { expr: 'count by (run) (last_over_time(collimate_run_state[$__range]))', regex: '/run="([^"]+)"/' },
  stage: {
    expr: 'count by (stage) (last_over_time(collimate_steps_total{run=~"$run"}[$__range]))',
    regex: '/stage="([^"]+)"/',
  },
  rank: {
    expr: 'count by (rank) (last_over_time(collimate_step_duration_seconds_count{run=~"$run",stage=~"$stage"}[$__range]))',
    regex: '/rank="([^"]+)"/',
  },
  worker: {
    expr: 'count by (worker) (last_over_time(collimate_worker_last_seen_timestamp_seconds[$__range]))',
    regex: '/worker="([^"]+)"/',
  },
};
