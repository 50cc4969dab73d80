/** Import of S3-Rec lines (`user item item …`, oldest first) and their tab-separated items; the order in the file is the time. */
import { type EventLog, type ImportedText, intentionOf } from './event-log.js';
import { readLines } from './files.js';
import { type AuditReport, ImportAudit } from './import-audit.js';
import { readTable } from './tab-separated.js';

const LINE_FORM = 'a user and its items, separated by spaces';

export async function importS3RecSequences(path: string, log: EventLog): Promise<AuditReport> {
  const audit = new ImportAudit(path, `lines of ${LINE_FORM}`);
  for await (const { number, text } of readLines(path)) {
    if (text.trim() === '') continue;
    const [user, ...items] = text.trim().split(/\s+/);
    if (user === undefined || items.length === 0 || text.includes('{')) audit.malformed(number, LINE_FORM, text);
    else {
      for (const item of items) log.add({ user, item, time: null });
      audit.usable();
    }
  }
  return audit.finish();
}

/** The first column is the item's id; of the others those with a known name are used. */
export async function importS3RecItems(path: string, into: Map<string, ImportedText>): Promise<AuditReport> {
  const audit = new ImportAudit(path, 'a tab-separated header and one item a line');
  const rows = readTable(path, audit, { columnName: (cell) => cell.trim().toLowerCase(), required: ['item_id'] });
  for await (const { cell, first } of rows) {
    if (into.has(first)) {
      audit.skipped('repeated_item');
      continue;
    }
    into.set(first, {
      title: cell('title') ?? '',
      brand: cell('brand') ?? '',
      categories: cell('categories') ?? '',
      keywords: cell('keywords') ?? '',
      description: cell('description') ?? '',
      ...intentionOf(cell('intention')),
    });
    audit.usable();
  }
  return audit.finish();
}
