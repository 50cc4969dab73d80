/**
 * Import of RecBole atomic files: tab-separated, with typed header cells (`user_id:token`). Without a timestamp column the order
 * in the file is the time.
 */
import { type EventLog, type ImportedText, intentionOf } from './event-log.js';
import { type AuditReport, ImportAudit } from './import-audit.js';
import { readTable } from './tab-separated.js';

const columnName = (cell: string): string => cell.split(':')[0]?.trim().toLowerCase() ?? '';

export async function importRecBoleInteractions(path: string, log: EventLog): Promise<AuditReport> {
  const audit = new ImportAudit(path, 'a header user_id:token, item_id:token, timestamp:float and one event a line');
  for await (const row of readTable(path, audit, { columnName, required: ['user_id', 'item_id'] })) {
    const user = row.cell('user_id') ?? '';
    const item = row.cell('item_id') ?? '';
    const stamp = row.cell('timestamp');
    const time = stamp === undefined ? null : Number(stamp);
    if (user === '' || item === '') audit.malformed(row.line, 'a user and an item', row.text);
    else if (stamp?.trim() === '' || !Number.isFinite(time ?? 0))
      audit.malformed(row.line, 'a numeric timestamp', row.text);
    else {
      log.add({ user, item, time });
      audit.usable();
    }
  }
  return audit.finish();
}

export async function importRecBoleItems(path: string, into: Map<string, ImportedText>): Promise<AuditReport> {
  const audit = new ImportAudit(path, 'a header with item_id:token and one item a line');
  for await (const { cell } of readTable(path, audit, { columnName, required: ['item_id'] })) {
    const item = cell('item_id') ?? '';
    if (into.has(item)) {
      audit.skipped('repeated_item');
      continue;
    }
    into.set(item, {
      title: cell('title', 'item_title', 'movie_title', 'product_title', 'name') ?? '',
      brand: cell('brand', 'sales_type', 'store') ?? '',
      categories: cell('categories', 'category', 'genre', 'class') ?? '',
      keywords: cell('keywords', 'tags') ?? '',
      description: cell('description') ?? '',
      ...intentionOf(cell('intention')),
    });
    audit.usable();
  }
  return audit.finish();
}
