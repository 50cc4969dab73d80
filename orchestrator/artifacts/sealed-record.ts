/**
 * Small records with their own checksum: `{"record": …, "sha256": …}` in canonical JSON. A flipped byte anywhere in
 * one is noticed when it is read, as it is for objects by their name.
 */
import { canonicalJson, sha256Hex } from './job-key.js';

export function seal(record: unknown): string {
  return `${canonicalJson({ record, sha256: sha256Hex(canonicalJson(record)) })}\n`;
}

/** The record, or undefined when the text is damaged. */
export function unseal(text: string): unknown {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof parsed !== 'object' || parsed === null || !('record' in parsed)) return undefined;
  return seal(parsed.record) === text ? parsed.record : undefined;
}
