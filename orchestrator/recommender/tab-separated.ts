/** Tab-separated tables with a header line, read row by row; rows of another width are malformed. */
import { basename } from 'node:path';
import { BadInputError } from './domain-job.js';
import { excerpt, readLines } from './files.js';
import { type ImportAudit } from './import-audit.js';

export interface TableRow {
  line: number;
  text: string;
  /** Cell of the first of the named columns that the table has; undefined when it has none of them. */
  cell: (...names: string[]) => string | undefined;
  /** Cell of the first column. */
  first: string;
}

/**
 * `columnName` maps a header cell to a column name; `required` names columns of which the header must have at least one each.
 */
export async function* readTable(
  path: string,
  audit: ImportAudit,
  { columnName, required }: { columnName: (cell: string) => string; required: string[] },
): AsyncGenerator<TableRow> {
  let columns: Map<string, number> | null = null;
  let width = 0;
  for await (const { number, text } of readLines(path)) {
    if (text === '') continue;
    const cells = text.split('\t');
    if (columns === null) {
      columns = new Map(cells.map((cell, i) => [columnName(cell), i]));
      width = cells.length;
      const missing = required.filter((name) => !columns?.has(name));
      if (missing.length > 0) {
        throw new BadInputError(
          `${basename(path)} line ${number}: expected a tab-separated header with ${required.join(', ')}, got ${excerpt(text)}`,
        );
      }
      continue;
    }
    if (cells.length !== width || cells[0] === '') {
      audit.malformed(number, `${width} tab-separated cells as in the header, the first not empty`, text);
      continue;
    }
    const found = columns;
    const cell = (...names: string[]): string | undefined => {
      const name = names.find((candidate) => found.has(candidate));
      return name === undefined ? undefined : cells[found.get(name) ?? -1];
    };
    yield { line: number, text, cell, first: cells[0] ?? '' };
  }
}
