/**
 * The protocol by which jobs get gangs, driven through every interleaving of a bounded world: one or two jobs that each want two
 * of two or three workers, a crash, a freeze with its late messages, a lease that lapses too early.
 *
 * Real code: the worker's `Lease`, the `RendezvousStore`, the `FleetRegistry`. Modelled, because they are bound to gRPC: the
 * calls between them (delivered, or late to a frozen process, never to another incarnation of it: TCP ends with the process),
 * what `JobHost.reserve` does with a superseded attempt, and the order of calls of `orchestrator/activities/gang.ts`.
 *
 * Invariants, held in every state:
 *  A. one epoch: of a job at most one epoch has all its ranks computing;
 *  B. no stale join: a rank neither puts nor joins below the highest epoch that any rank of the job has put;
 *  C. no partial gang: a rank computes only when every rank of its epoch has put;
 *  D. one lease: what runs on a worker is what holds its lease.
 * And over the whole graph:
 *  E. no deadlock, no livelock: from every state the end can be reached, where both jobs are done and no lease is held.
 */
import { describe, expect, it } from 'vitest';

import type { Budget } from './gang-protocol-state.js';
import { World } from './gang-protocol-world.js';

const STATES_MAX = 200_000;

interface Explored {
  states: number;
  broken: string[];
  /** Paths to states from which the end cannot be reached. */
  stuck: string[];
}

/** Depth first over all states; the real objects cannot be copied, so a state is reached again by its path. */
async function explore(budget: Budget): Promise<Explored> {
  const path: string[] = [];
  const pathTo = new Map<string, string[]>();
  const before = new Map<string, Set<string>>();
  const ends: string[] = [];
  const broken: string[] = [];
  const replay = async (): Promise<World> => {
    const world = new World(budget);
    for (const move of path) await world.apply(move);
    return world;
  };
  const first = await replay();
  const open: { key: string; path: string[]; moves: string[] }[] = [
    { key: first.key(), path: [], moves: first.moves() },
  ];
  pathTo.set(first.key(), []);
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    for (const move of next.moves) {
      path.splice(0, path.length, ...next.path, move);
      const world = await replay();
      const key = world.key();
      if (world.broken.length > 0) broken.push(`${world.broken.join('; ')} after: ${path.join(', ')}`);
      before.set(key, (before.get(key) ?? new Set()).add(next.key));
      if (pathTo.has(key)) continue;
      if (pathTo.size > STATES_MAX) throw new Error(`more than ${String(STATES_MAX)} states: the world is not bounded`);
      pathTo.set(key, [...path]);
      if (world.isGoodEnd) ends.push(key);
      if (world.broken.length === 0) open.push({ key, path: [...path], moves: world.moves() });
    }
  }
  const canEnd = new Set(ends);
  for (const key of canEnd) for (const earlier of before.get(key) ?? []) canEnd.add(earlier);
  const stuck = [...pathTo].flatMap(([key, moves]) => (canEnd.has(key) ? [] : [moves.join(', ')]));
  return { states: pathTo.size, broken, stuck };
}

describe('the gang protocol, in every interleaving', () => {
  const two = { workers: ['a', 'b'], jobs: ['J', 'K'] };
  const three = { workers: ['a', 'b', 'c'], jobs: ['J', 'K'] };
  const alone = { workers: ['a', 'b', 'c'], jobs: ['J'] };
  // With two jobs, three workers and a freeze there are millions of states: each pair of the three is here.
  for (const [name, budget, statesMin] of [
    ['two jobs, three workers, a crash', { ...three, crashes: 1, freezes: 0, lapses: 0 }, 20_000],
    ['two jobs, three workers, a lapse', { ...three, crashes: 0, freezes: 0, lapses: 1 }, 5_000],
    ['two jobs, two workers, a freeze', { ...two, crashes: 0, freezes: 1, lapses: 0 }, 2_000],
    ['two jobs, two workers, a crash and a lapse', { ...two, crashes: 1, freezes: 0, lapses: 1 }, 2_000],
    ['one job, three workers, a freeze and a crash', { ...alone, crashes: 1, freezes: 1, lapses: 0 }, 500],
  ] as [string, Budget, number][]) {
    it(
      name,
      async () => {
        const { states, broken, stuck } = await explore(budget);
        expect(broken.slice(0, 3)).toEqual([]);
        expect(stuck.slice(0, 3)).toEqual([]);
        expect(states).toBeGreaterThan(statesMin);
      },
      120_000,
    );
  }
});
