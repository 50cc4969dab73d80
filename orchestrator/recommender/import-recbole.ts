/**
 * Import of RecBole atomic files: tab-separated, with typed header cells (`user_id:token`). Without a timestamp column the order
 * in the file is the time.
 */
import { forEachRow, importTableEvents, type TableForm } from './delimited-table.js';
import { type EventLog, intentionOf } from './event-log.js';
import { type AuditReport, ImportAudit } from './import-audit.js';
import { type ItemTexts } from './item-texts.js';

const columnName = (cell: string): string => cell.split(':')[0]?.trim().toLowerCase() ?? '';
const FORM: Omit<TableForm, 'required'> = { separator: '\t', quoted: false, columns: null, columnName };

export function importRecBoleInteractions(path: string, log: EventLog): Promise<AuditReport> {
  return importTableEvents(path, log, {
    form: { ...FORM, required: ['user_id', 'item_id'] },
    columns: { user: 'user_id', item: 'item_id', time: 'timestamp' },
    holds: 'a header user_id:token, item_id:token, timestamp:float and one event a line',
  });
}

export async function importRecBoleItems(path: string, into: ItemTexts): Promise<AuditReport> {
  const audit = new ImportAudit(path, 'a header with item_id:token and one item a line');
  await forEachRow(path, audit, {
    form: { ...FORM, required: ['item_id'] },
    visit: ({ cell }) => {
      const item = cell('item_id') ?? '';
      if (into.has(item)) {
        audit.skipped('repeated_item');
        return;
      }
      into.add(item, {
        title: cell('title', 'item_title', 'movie_title', 'product_title', 'name') ?? '',
        brand: cell('brand', 'sales_type', 'store') ?? '',
        categories: cell('categories', 'category', 'genre', 'class') ?? '',
        keywords: cell('keywords', 'tags') ?? '',
        description: cell('description') ?? '',
        ...intentionOf(cell('intention')),
      });
      audit.usable();
    },
  });
  return audit.finish();
}
