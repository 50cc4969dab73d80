/**
 * Import of any CSV or NDJSON: the run file names the columns (or fields) of user, item, time and texts.
 *
 * 1. A named column that the file lacks is bad input; texts that are not named stay empty.
 * 2. Times are numbers of one unit, or dates of ISO 8601 (taken as milliseconds since 1970).
 */
import { forEachRow, importTableEvents, type TableForm } from './delimited-table.js';
import { type EventLog, type ImportedText } from './event-log.js';
import { forEachLine, parseJson } from './files.js';
import { type AuditReport, ImportAudit } from './import-audit.js';
import { type ItemTexts } from './item-texts.js';
import { type IngestColumns } from './recipes.js';
import { parseTime } from './time-cell.js';

const TEXTS = ['title', 'brand', 'categories', 'keywords', 'description'] as const;

function csvForm(columns: IngestColumns, required: (string | null)[]): TableForm {
  return {
    ...{ separator: columns.separator, quoted: true, columns: null },
    columnName: (cell) => cell.trim(),
    required: required.filter((name) => name !== null),
  };
}

export function importCsvEvents(path: string, log: EventLog, columns: IngestColumns): Promise<AuditReport> {
  const { user, item, time } = columns;
  return importTableEvents(path, log, {
    form: csvForm(columns, [user, item, time]),
    columns: { user, item, time },
    holds: `a header with ${[user, item, time].filter(Boolean).join(', ')} and one event a line`,
  });
}

export async function importCsvItems(path: string, into: ItemTexts, columns: IngestColumns): Promise<AuditReport> {
  const named = [columns.item, ...TEXTS.map((text) => columns[text])];
  const audit = new ImportAudit(path, `a header with ${named.filter(Boolean).join(', ')} and one item a line`);
  await forEachRow(path, audit, {
    form: csvForm(columns, named),
    visit: (row) => {
      const text = (name: string | null): string => (name === null ? '' : (row.cell(name) ?? ''));
      const item = text(columns.item);
      if (item === '') audit.malformed(row.line, `an item in column ${columns.item}`, row.text);
      else if (into.has(item)) audit.skipped('repeated_item');
      else {
        into.add(item, textsOf(columns, text));
        audit.usable();
      }
    },
  });
  return audit.finish();
}

export async function importNdjsonEvents(path: string, log: EventLog, columns: IngestColumns): Promise<AuditReport> {
  const { user, item, time } = columns;
  const form = `{"${user}": id, "${item}": id${time === null ? '' : `, "${time}": number or date`}, …}`;
  const audit = new ImportAudit(path, `lines of ${form}`);
  await forEachLine(path, (text, number) => {
    if (text.trim() === '') {
      audit.skipped('blank_line');
      return;
    }
    const fields = asFields(parseJson(text));
    const event = {
      user: idOf(fields[user]),
      item: idOf(fields[item]),
      time: time === null ? null : timeOf(fields[time]),
    };
    if (event.user === '' || event.item === '' || Number.isNaN(event.time)) audit.malformed(number, form, text);
    else {
      log.add(event);
      audit.usable();
    }
  });
  return audit.finish();
}

export async function importNdjsonItems(path: string, into: ItemTexts, columns: IngestColumns): Promise<AuditReport> {
  const form = `{"${columns.item}": id, …}`;
  const audit = new ImportAudit(path, `lines of ${form}`);
  await forEachLine(path, (text, number) => {
    if (text.trim() === '') {
      audit.skipped('blank_line');
      return;
    }
    const fields = asFields(parseJson(text));
    const item = idOf(fields[columns.item]);
    if (item === '') audit.malformed(number, form, text);
    else if (into.has(item)) audit.skipped('repeated_item');
    else {
      into.add(
        item,
        textsOf(columns, (name) => (name === null ? '' : joinedText(fields[name]))),
      );
      audit.usable();
    }
  });
  return audit.finish();
}

function textsOf(columns: IngestColumns, text: (name: string | null) => string): ImportedText {
  const [title, brand, categories] = [text(columns.title), text(columns.brand), text(columns.categories)];
  return { title, brand, categories, keywords: text(columns.keywords), description: text(columns.description) };
}

function asFields(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

/** Ids are text or whole numbers; anything else is ''. */
function idOf(value: unknown): string {
  if (typeof value === 'string') return value;
  return typeof value === 'number' && Number.isSafeInteger(value) ? String(value) : '';
}

function timeOf(value: unknown): number {
  if (typeof value === 'number') return value;
  return typeof value === 'string' ? parseTime(value) : Number.NaN;
}

function joinedText(value: unknown): string {
  return [value]
    .flat(3)
    .filter((entry) => typeof entry === 'string' && entry !== '')
    .join(', ');
}
