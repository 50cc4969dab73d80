/** Import of S3-Rec lines (`user item item …`, oldest first) and their tab-separated items; the order in the file is the time. */
import { forEachRow } from './delimited-table.js';
import { type EventLog, intentionOf } from './event-log.js';
import { forEachLine } from './files.js';
import { type AuditReport, ImportAudit } from './import-audit.js';
import { type ItemTexts } from './item-texts.js';

const LINE_FORM = 'a user and its items, separated by spaces';

export async function importS3RecSequences(path: string, log: EventLog): Promise<AuditReport> {
  const audit = new ImportAudit(path, `lines of ${LINE_FORM}`);
  await forEachLine(path, (text, number) => {
    if (text.trim() === '') {
      audit.skipped('blank_line');
      return;
    }
    const [user, ...items] = text.trim().split(/\s+/);
    if (user === undefined || items.length === 0 || text.includes('{')) audit.malformed(number, LINE_FORM, text);
    else {
      for (const item of items) log.add({ user, item, time: null });
      audit.usable();
    }
  });
  return audit.finish();
}

/** The first column is the item's id; of the others those with a known name are used. */
export async function importS3RecItems(path: string, into: ItemTexts): Promise<AuditReport> {
  const audit = new ImportAudit(path, 'a tab-separated header and one item a line');
  const form = {
    ...{ separator: '\t', quoted: false, columns: null, required: ['item_id'] },
    columnName: (cell: string) => cell.trim().toLowerCase(),
  };
  await forEachRow(path, audit, {
    form,
    visit: ({ cell, first }) => {
      if (into.has(first)) {
        audit.skipped('repeated_item');
        return;
      }
      into.add(first, {
        title: cell('title') ?? '',
        brand: cell('brand') ?? '',
        categories: cell('categories') ?? '',
        keywords: cell('keywords') ?? '',
        description: cell('description') ?? '',
        ...intentionOf(cell('intention')),
      });
      audit.usable();
    },
  });
  return audit.finish();
}
