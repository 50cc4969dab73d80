/** What the world of `gang-protocol-world.ts` consists of. */
import type { FleetMember } from '../../orchestrator/fleet/registry.js';
import type { AttemptRef, Lease } from '../../native/worker/lease.js';

/** The world's size, and what may go wrong in it. */
export interface Budget {
  workers: string[];
  jobs: string[];
  crashes: number;
  freezes: number;
  lapses: number;
}

export interface Run extends AttemptRef {
  rank: number;
  state: 'started' | 'put' | 'computing';
}

export interface ModelWorker {
  incarnation: number;
  state: 'up' | 'down' | 'frozen';
  lease: Lease;
  nowMs: number;
  run: Run | null;
  member: FleetMember | null;
}

export type Phase = 'acquire' | 'start' | 'await' | 'release' | 'done';

export interface ModelJob {
  id: string;
  epoch: number;
  phase: Phase;
  /** Acquiring: those who are asked in turn. Afterwards: the gang. */
  members: string[];
  /** How many of `members` were reserved, started or, releasing, are still to be told. */
  count: number;
  /** After releasing: whether the next attempt is a new epoch. */
  failed: boolean;
  committed: boolean;
}

export interface LateCall extends AttemptRef {
  to: string;
  incarnation: number;
  call: 'reserve' | 'start' | 'release';
  rank: number;
}
