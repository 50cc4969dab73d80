/** Delimited tables, with a header line or with columns that the format fixes; rows of another width are malformed. */
import { basename } from 'node:path';
import { type DelimitedRecord, RecordJoiner } from './delimited-cells.js';
import { BadInputError } from './domain-job.js';
import { type EventLog } from './event-log.js';
import { decodedLine, excerpt, forEachLine } from './files.js';
import { type AuditReport, ImportAudit } from './import-audit.js';
import { parseTime } from './time-cell.js';

export interface TableForm {
  separator: string;
  /** Cells may be quoted (RFC 4180). */
  quoted: boolean;
  /** Names of the columns in their order; null: the first line has them. */
  columns: string[] | null;
  /** A header cell to the name of its column. */
  columnName: (cell: string) => string;
  /** Columns that the header must have. */
  required: string[];
  /** Bytes that are no UTF-8 are latin1, as in files of before. */
  maybeLatin1?: boolean;
}

export interface TableRow {
  line: number;
  text: string;
  /** Cell of the first of the named columns that the table has; undefined when it has none of them. */
  cell: (...names: string[]) => string | undefined;
  /** Cell of the first column. */
  first: string;
}

const SEPARATOR_NAMES: Record<string, string> = { '\t': 'tab', ',': 'comma', ';': 'semicolon', '|': 'bar' };

export async function forEachRow(
  path: string,
  audit: ImportAudit,
  { form, visit }: { form: TableForm; visit: (row: TableRow) => void },
): Promise<void> {
  const separated = `${SEPARATOR_NAMES[form.separator] ?? `"${form.separator}"`}-separated`;
  let columns = form.columns === null ? null : columnsOf(form.columns);
  let width = form.columns?.length ?? 0;
  let cells: string[] = [];
  const row: TableRow = {
    line: 0,
    text: '',
    first: '',
    cell: (...names) => {
      for (const name of names) {
        const at = columns?.get(name);
        if (at !== undefined) return cells[at];
      }
      return undefined;
    },
  };
  const take = (record: DelimitedRecord): void => {
    if (columns === null) {
      const header = (record.cells ?? []).map(form.columnName);
      if (form.required.some((name) => !header.includes(name))) {
        throw new BadInputError(
          `${basename(path)} line ${record.line}: expected a ${separated} header with ${form.required.join(', ')}, got ${excerpt(record.text)}`,
        );
      }
      columns = columnsOf(header);
      width = header.length;
    } else if (record.cells === null) {
      audit.malformed(record.line, `${separated} cells with quotes around whole cells (RFC 4180)`, record.text);
    } else if (record.cells.length !== width || record.cells[0] === '') {
      const like = form.columns === null ? 'as in the header' : `(${form.columns.join(', ')})`;
      audit.malformed(record.line, `${width} ${separated} cells ${like}, the first not empty`, record.text);
    } else {
      cells = record.cells;
      row.line = record.line;
      row.text = record.text;
      row.first = cells[0] ?? '';
      visit(row);
    }
  };
  const joiner = new RecordJoiner(form.separator, take);
  const readLine = (text: string, line: number): void => {
    if (text === '') audit.skipped('blank_line');
    else if (form.quoted) joiner.add(text, line);
    else take({ line, text, cells: text.split(form.separator) });
  };
  if (form.maybeLatin1 === true) {
    await forEachLine(path, (text, line) => readLine(decodedLine(text), line), { encoding: 'latin1' });
  } else {
    await forEachLine(path, readLine);
  }
  joiner.end();
}

/** Columns of a table of events; `time` null: the order in the file is the time. */
export interface EventColumns {
  user: string;
  item: string;
  time: string | null;
}

/** `holds`: what the file holds, for the error of an empty one. A named time column that the table lacks is no error. */
export async function importTableEvents(
  path: string,
  log: EventLog,
  { form, columns, holds }: { form: TableForm; columns: EventColumns; holds: string },
): Promise<AuditReport> {
  const audit = new ImportAudit(path, holds);
  const visit = (row: TableRow): void => {
    const user = row.cell(columns.user) ?? '';
    const item = row.cell(columns.item) ?? '';
    const stamp = columns.time === null ? undefined : row.cell(columns.time);
    const time = stamp === undefined ? null : parseTime(stamp);
    if (user === '' || item === '') audit.malformed(row.line, 'a user and an item', row.text);
    else if (Number.isNaN(time)) audit.malformed(row.line, 'a numeric timestamp', row.text);
    else {
      log.add({ user, item, time });
      audit.usable();
    }
  };
  await forEachRow(path, audit, { form, visit });
  return audit.finish();
}

function columnsOf(names: string[]): Map<string, number> {
  return new Map(names.map((name, i) => [name, i]));
}
