/**
 * Content keys: canonical JSON (RFC 8785), SHA-256, job keys and result digests. The only place that makes them.
 *
 * 1. Equal values give equal bytes: keys in the order of their UTF-16 code units, numbers as ECMAScript prints them.
 * 2. What JSON cannot carry is refused, never dropped: undefined, NaN, infinities, bigint, class instances, lone surrogates.
 * 3. A job key covers exactly the five fields of JobSpec; fleet size, paths, ports and times cannot enter it.
 */
import { createHash } from 'node:crypto';

import type { Digest, JobResult, JobSpec } from '../../workflows/contract.js';

/** RFC 8785 text of a JSON value. Throws TypeError naming the place of what JSON cannot carry. */
export function canonicalJson(value: unknown): string {
  return write(value, '$', []);
}

/** Lower-case hex SHA-256; text is hashed as UTF-8. */
export function sha256Hex(data: string | Uint8Array): Digest {
  return createHash('sha256').update(data).digest('hex');
}

export function isDigest(text: unknown): text is string {
  return typeof text === 'string' && /^[0-9a-f]{64}$/.test(text);
}

/** The canonical JSON that a job's key is the SHA-256 of; also what travels as `spec_json`. */
export function canonicalSpec(spec: JobSpec): string {
  const { kind, recipe, inputs, numericsClass, engineRevision } = spec;
  for (const [name, digest] of Object.entries(inputs)) {
    if (!isDigest(digest))
      throw new TypeError(`job ${kind}: input ${name}: expected a SHA-256 in hex, got ${String(digest)}`);
  }
  return canonicalJson({ kind, recipe, inputs, numericsClass, engineRevision });
}

export function jobKeyOf(spec: JobSpec): string {
  return sha256Hex(canonicalSpec(spec));
}

/**
 * Digest of a whole run: every job's outputs by name, and the published list. Run and worker ids, times, incidents,
 * generations and summaries are outside it. `published` is null when the run publishes nothing.
 */
export function resultDigestOf(result: { jobs: Record<string, JobResult>; published: Digest | null }): Digest {
  const jobs = Object.fromEntries(Object.entries(result.jobs).map(([name, job]) => [name, job.outputs]));
  return sha256Hex(canonicalJson({ jobs, published: result.published }));
}

function write(value: unknown, place: string, ancestors: readonly object[]): string {
  if (value === null || typeof value === 'boolean') return String(value);
  if (typeof value === 'number') return writeNumber(value, place);
  if (typeof value === 'string') return writeString(value, place);
  if (typeof value !== 'object') throw refused(place, typeof value);
  if (ancestors.includes(value)) throw refused(place, 'a cycle');
  const inside = [...ancestors, value];
  if (Array.isArray(value)) {
    // Array.from also visits holes, which map() would skip.
    return `[${Array.from(value, (element, i) => write(element, `${place}[${String(i)}]`, inside)).join(',')}]`;
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) throw refused(place, 'a class instance');
  const fields = value as Record<string, unknown>;
  const names = Object.keys(fields).sort();
  return `{${names.map((name) => `${writeString(name, place)}:${write(fields[name], `${place}.${name}`, inside)}`).join(',')}}`;
}

function writeNumber(value: number, place: string): string {
  if (!Number.isFinite(value)) throw refused(place, String(value));
  return JSON.stringify(value);
}

function writeString(text: string, place: string): string {
  if (/[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/.test(text)) {
    throw refused(place, 'a string with a lone surrogate');
  }
  return JSON.stringify(text);
}

function refused(place: string, what: string): TypeError {
  return new TypeError(
    `canonical JSON: at ${place}: expected null, boolean, finite number, string, array or plain object, got ${what}`,
  );
}
