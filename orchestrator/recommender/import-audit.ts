/**
 * Book-keeping of an imported file: every line that is not used is counted by its reason.
 *
 * 1. Malformed lines up to 10 % are counted and reported; more than that (in a file of at least 20 lines), or a file without one
 *    usable line, is bad input that names the first bad line, what was expected and what came.
 */
import { basename } from 'node:path';
import { BadInputError } from './domain-job.js';
import { excerpt } from './files.js';

const LINES_JUDGED_MIN = 20;
const MALFORMED_SHARE_MAX = 0.1;
const EXAMPLES_MAX = 5;

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
    this.report.lines += 1;
    this.report.usable += 1;
  }

  skipped(reason: string): void {
    this.report.lines += 1;
    this.report.skipped[reason] = (this.report.skipped[reason] ?? 0) + 1;
  }

  malformed(line: number, expected: string, text: string): void {
    this.report.lines += 1;
    this.report.malformed += 1;
    if (this.report.examples.length < EXAMPLES_MAX) {
      this.report.examples.push({ line, expected, got: excerpt(text) });
    }
  }

  finish(): AuditReport {
    const { lines, usable, malformed, examples } = this.report;
    const [first] = examples;
    const name = basename(this.path);
    if (usable === 0 && first === undefined) {
      throw new BadInputError(`${name}: expected ${this.holds}, got a file without a single record; check the path`);
    }
    const tooMany = lines >= LINES_JUDGED_MIN && malformed > lines * MALFORMED_SHARE_MAX;
    if (first !== undefined && (usable === 0 || tooMany)) {
      throw new BadInputError(
        `${name} line ${first.line}: expected ${first.expected}, got ${first.got}; ` +
          `${malformed} of ${lines} lines are malformed (limit 10 %): check the file and the format setting`,
      );
    }
    return this.report;
  }
}
