/**
 * Trials one after the other on as few clusters as possible: one that has come through a trial whole serves the next one with
 * the same needs, every other is replaced.
 */
import { FaultCluster, type Features } from './fault-cluster.js';
import { featuresOf } from './injection.js';
import type { Schedule } from './schedule.js';
import { runTrial, scheduleMissing, emptyRow, undisturbedDigest, type TrialRow } from './trial.js';

/** The undisturbed run has more time: its digest is what all others are held against. */
const UNDISTURBED_DEADLINE_MS = 180_000;

export class TrialFleet {
  #cluster: FaultCluster | null = null;
  #expected: string | null = null;

  constructor(readonly deadlineMs: number) {}

  async trial(schedule: Schedule): Promise<TrialRow> {
    const why = scheduleMissing(schedule);
    if (why !== null) return emptyRow(schedule, 'skipped', why);
    const expectedDigest = await this.expectedDigest();
    let row: TrialRow;
    try {
      const cluster = await this.#clusterWith(featuresOf(schedule));
      row = await runTrial({ schedule, cluster, expectedDigest, deadlineMs: this.deadlineMs });
    } catch (error) {
      row = emptyRow(schedule, 'broken', error instanceof Error ? (error.stack ?? error.message) : String(error));
    }
    if (row.outcome !== 'identical' || row.trouble.length > 0) await this.close();
    return row;
  }

  async expectedDigest(): Promise<string> {
    this.#expected ??= await undisturbedDigest(
      await this.#clusterWith({ network: false, clocks: false }),
      UNDISTURBED_DEADLINE_MS,
    );
    return this.#expected;
  }

  async close(): Promise<void> {
    const cluster = this.#cluster;
    this.#cluster = null;
    await cluster?.close();
  }

  async #clusterWith(features: Features): Promise<FaultCluster> {
    const known = this.#cluster;
    if (known?.features.network === features.network && known.features.clocks === features.clocks) return known;
    await this.close();
    this.#cluster = await FaultCluster.start(features);
    return this.#cluster;
  }
}
