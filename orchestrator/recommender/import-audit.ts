/**
 * Book-keeping of an imported file: every line that is not used is counted by its reason.
 *
 * 1. Malformed lines up to 10 % are counted and reported; more than that (in a file of at least 20 lines), or a file without one
 *    usable line, is bad input that names the first bad line, what was expected and what came.
 * 2. A wrong file is not read to its end: more than 5 % of the first 10,000 lines malformed is the same error at once.
 * 3. Blank lines are passed over and counted as such.
 */
import { basename } from 'node:path';
import { BadInputError } from './domain-job.js';
import { excerpt } from './files.js';

const LINES_JUDGED_MIN = 20;
const MALFORMED_SHARE_MAX = 0.1;
const EARLY_LINES = 10_000;
const EARLY_MALFORMED_SHARE_MAX = 0.05;
const EXAMPLES_MAX = 5;
/** Reasons are told apart up to so many: they come from code, but a mapped column may be in their words. */
const REASONS_MAX = 50;

export interface MalformedLine {
  line: number;
  expected: string;
  got: string;
}

export interface AuditReport {
  lines: number;
  usable: number;
  malformed: number;
  /** Lines that are well-formed but not used, by reason. */
  skipped: Record<string, number>;
  /** Malformed lines by what was expected of them; left out when there is none. */
  malformedBy?: Record<string, number>;
  /** The first malformed lines. */
  examples: MalformedLine[];
}

export class ImportAudit {
  private readonly report: AuditReport = { lines: 0, usable: 0, malformed: 0, skipped: {}, examples: [] };

  constructor(
    private readonly path: string,
    /** What the file holds, for the error of an empty one. */
    private readonly holds: string,
  ) {}

  usable(): void {
    this.report.usable += 1;
    this.countLine();
  }

  skipped(reason: string): void {
    this.report.skipped[reason] = (this.report.skipped[reason] ?? 0) + 1;
    this.countLine();
  }

  malformed(line: number, expected: string, text: string): void {
    this.report.malformed += 1;
    const by = (this.report.malformedBy ??= {});
    if (Object.hasOwn(by, expected) || Object.keys(by).length < REASONS_MAX) by[expected] = (by[expected] ?? 0) + 1;
    if (this.report.examples.length < EXAMPLES_MAX) {
      this.report.examples.push({ line, expected, got: excerpt(text) });
    }
    this.countLine();
  }

  finish(): AuditReport {
    const { lines, usable, malformed, examples } = this.report;
    if (usable === 0 && examples.length === 0) {
      throw new BadInputError(
        `${basename(this.path)}: expected ${this.holds}, got a file without a single record; check the path`,
      );
    }
    const tooMany = lines >= LINES_JUDGED_MIN && malformed > lines * MALFORMED_SHARE_MAX;
    if (usable === 0 || tooMany) this.refuse(`${malformed} of ${lines} lines are malformed (limit 10 %)`);
    return this.report;
  }

  private countLine(): void {
    this.report.lines += 1;
    const { lines, malformed } = this.report;
    if (lines === EARLY_LINES && malformed > EARLY_LINES * EARLY_MALFORMED_SHARE_MAX) {
      this.refuse(`${malformed} of the first ${lines} lines are malformed (limit 5 %)`);
    }
  }

  private refuse(share: string): void {
    const [first] = this.report.examples;
    if (first === undefined) return;
    throw new BadInputError(
      `${basename(this.path)} line ${first.line}: expected ${first.expected}, got ${first.got}; ` +
        `${share}: check the file and the format setting`,
    );
  }
}
