/** What a supervisor process is told at its start, as one JSON argument. */
import { type ProcessRecord, type ProcessTable } from './home.js';

export interface SupervisorConfig {
  home: string;
  /** Address of the artifact store. */
  store: string;
  /** Null: the server at `addresses.temporal` runs elsewhere. */
  temporalBinary: string | null;
  /** Null: started without --monitoring. */
  prometheusBinary: string | null;
  addresses: ProcessTable['addresses'];
  workers: number;
  threads: number;
  owner: ProcessRecord | null;
}

/** Temporal namespace of local installations. */
export const NAMESPACE = 'default';
