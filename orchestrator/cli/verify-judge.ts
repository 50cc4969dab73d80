/**
 * Whether what was computed again is what was recorded, and if not, where it first differs.
 *
 * 1. Equal digests are equal bytes: nothing is read then.
 * 2. Of what differs the first file in name order is described: of safetensors the first element, of others the text.
 * 3. An interval that could not be computed, or that nothing could be compared with, is never exact.
 */
import { readFile } from 'node:fs/promises';

import { type CheckpointManifest } from '../artifacts/artifact-store.js';
import { type ArtifactStore, CorruptArtifactError } from '../artifacts/store.js';
import { canonicalJson } from '../artifacts/job-key.js';
import { BadInputError } from '../recommender/domain-job.js';
import { describeTensorDifference, tensorDifference } from '../recommender/tensor-difference.js';
import {
  type Digest,
  type IntervalOutcome,
  type JobResult,
  type JsonObject,
  type VerifiedInterval,
} from '../../workflows/contract.js';

export type Verdict = 'exact' | 'different' | 'not verified';

export interface JudgedInterval extends VerifiedInterval {
  key: Digest;
  /** Digest of the manifest (interval to a checkpoint), or of each output by name (to the end). */
  recorded: Digest | Record<string, Digest>;
  computed: Digest | Record<string, Digest> | null;
  workers: string[];
  seconds: number;
  verdict: Verdict;
  /** What differs, or why nothing could be said; null when exact. */
  difference: string | null;
}

export async function judgeInterval(
  store: ArtifactStore,
  interval: VerifiedInterval,
  { outcome, recorded }: { outcome: IntervalOutcome; recorded: JobResult },
): Promise<JudgedInterval> {
  const { workers, seconds, end } = outcome;
  const { to } = interval;
  const judged: JudgedInterval = {
    ...interval,
    key: recorded.key,
    recorded: to === null ? recorded.outputs : to.manifestDigest,
    computed: null,
    workers,
    seconds,
    verdict: 'not verified',
    difference: null,
  };
  if (end.type === 'failed') return { ...judged, difference: `${end.cause}: ${end.message}` };
  if (end.type === 'checkpoint') {
    const computed = end.manifestDigest;
    if (to === null) return { ...judged, computed, difference: `expected the end of the job, got step ${end.step}` };
    const difference = await checkpointDifference(store, { recorded: to.manifestDigest, computed });
    return { ...judged, computed, ...verdictOf(difference) };
  }
  const computed = end.result.outputs;
  if (to !== null) {
    return { ...judged, computed, ...verdictOf(`expected step ${to.step}, but the job ended without coming to it`) };
  }
  return { ...judged, computed, ...verdictOf(await resultDifference(store, { recorded, computed: end.result })) };
}

function verdictOf(difference: string | null): { verdict: Verdict; difference: string | null } {
  return { verdict: difference === null ? 'exact' : 'different', difference };
}

interface Pair<T> {
  recorded: T;
  computed: T;
}

async function checkpointDifference(store: ArtifactStore, pair: Pair<Digest>): Promise<string | null> {
  if (pair.recorded === pair.computed) return null;
  return unlessDamaged(async () => {
    const recorded = await manifestOf(store, pair.recorded);
    const computed = await manifestOf(store, pair.computed);
    const difference = await filesDifference(store, { recorded: recorded.files, computed: computed.files });
    return difference ?? `manifest: expected ${canonicalJson(recorded)}, got ${canonicalJson(computed)}`;
  });
}

async function resultDifference(store: ArtifactStore, { recorded, computed }: Pair<JobResult>): Promise<string | null> {
  const outputs = await unlessDamaged(() =>
    filesDifference(store, { recorded: recorded.outputs, computed: computed.outputs }),
  );
  if (outputs !== null) return outputs;
  const summaries = { recorded: canonicalJson(recorded.summary), computed: canonicalJson(computed.summary) };
  if (summaries.recorded === summaries.computed) return null;
  return `summary: expected ${summaries.recorded}, got ${summaries.computed}`;
}

/** The digests differ whatever the bytes look like: that a file cannot be read hides only where. */
async function unlessDamaged(describe: () => Promise<string | null>): Promise<string | null> {
  try {
    return await describe();
  } catch (error) {
    if (!(error instanceof CorruptArtifactError)) throw error;
    return `the digests differ, and where cannot be told: ${error.message}`;
  }
}

/** The first in name order. */
async function filesDifference(store: ArtifactStore, files: Pair<Record<string, Digest>>): Promise<string | null> {
  const names = [...new Set([...Object.keys(files.recorded), ...Object.keys(files.computed)])].sort();
  for (const name of names) {
    const recorded = files.recorded[name];
    const computed = files.computed[name];
    if (recorded === computed) continue;
    if (recorded === undefined) return `${name}: expected no such file`;
    if (computed === undefined) return `${name}: expected this file, got none`;
    return `${name}: ${await bytesDifference(store, { recorded, computed })}`;
  }
  return null;
}

async function bytesDifference(store: ArtifactStore, { recorded, computed }: Pair<Digest>): Promise<string> {
  const paths = { recorded: await store.localPath(recorded), computed: await store.localPath(computed) };
  try {
    const difference = await tensorDifference(paths.recorded, paths.computed);
    if (difference !== null) return describeTensorDifference(difference);
    return 'the same tensors in another layout';
  } catch (error) {
    if (!(error instanceof BadInputError)) throw error;
    const text = async (path: string): Promise<string> => JSON.stringify((await readFile(path, 'utf8')).slice(0, 200));
    return `expected ${await text(paths.recorded)}, got ${await text(paths.computed)}`;
  } finally {
    await store.releasePaths([recorded, computed]);
  }
}

async function manifestOf(store: ArtifactStore, digest: Digest): Promise<CheckpointManifest> {
  return (await store.readJson(digest)) as JsonObject & CheckpointManifest;
}
