/** Events of a run as NDJSON: one line of canonical JSON each, so that a line cut short costs that line only. */
import type { JsonObject } from '../../workflows/contract.js';
import type { StoreWarning } from './artifact-store.js';
import { canonicalJson } from './job-key.js';

export function eventText(events: readonly JsonObject[]): string {
  return events.map((event) => `${canonicalJson(event)}\n`).join('');
}

export interface EventText {
  runId: string;
  text: string;
  warn: (warning: StoreWarning) => void;
}

export function parseEvents({ runId, text, warn }: EventText): JsonObject[] {
  const lines = text.split('\n').filter((line) => line !== '');
  return lines.flatMap((line, i) => {
    try {
      return [JSON.parse(line) as JsonObject];
    } catch {
      warn({ subject: `events of run ${runId}`, message: `line ${String(i + 1)} is damaged and left out` });
      return [];
    }
  });
}
