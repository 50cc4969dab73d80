/** The interface between the worker process and a domain job. The job reads its inputs and writes into `outputDir` only. */
import type { JsonObject } from '../../workflows/contract.js';

export interface DomainJobContext {
  recipe: JsonObject;
  /** Input name to path of a verified file. */
  inputs: Record<string, string>;
  outputDir: string;
  /** Progress for people; never part of the result. */
  report(step: number, stepsTotal: number, metrics: Record<string, number>): void;
}

export interface DomainJobOutcome {
  /** Output name to path below `outputDir`. */
  outputs: Record<string, string>;
  summary: JsonObject;
}

export type DomainJob = (context: DomainJobContext) => Promise<DomainJobOutcome>;

/** Input that can never succeed: the message says what was expected, what came and what to do. Never retried. */
export class BadInputError extends Error {
  override readonly name = 'BadInputError';
}
