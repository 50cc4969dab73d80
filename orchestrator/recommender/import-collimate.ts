/** Import of Collimate's own NDJSON: one event or one item a line. An event of an item that the items file lacks is malformed. */
import { type EventLog, intentionOf } from './event-log.js';
import { forEachLine, parseJson } from './files.js';
import { type AuditReport, ImportAudit } from './import-audit.js';
import { type ItemTexts } from './item-texts.js';

const EVENT_FORM = '{"user": string, "item": string, "time": number}';
const ITEM_FORM = '{"item": string, "title": string, …}';

export async function importCollimateEvents(
  path: string,
  log: EventLog,
  known: ItemTexts | null,
): Promise<AuditReport> {
  const audit = new ImportAudit(path, `lines of ${EVENT_FORM}`);
  await forEachLine(path, (text, number) => {
    if (text.trim() === '') {
      audit.skipped('blank_line');
      return;
    }
    const event = parseEvent(parseJson(text));
    if (event === null) audit.malformed(number, EVENT_FORM, text);
    else if (known !== null && !known.has(event.item))
      audit.malformed(number, 'an item that the items file lists', text);
    else {
      log.add(event);
      audit.usable();
    }
  });
  return audit.finish();
}

export async function importCollimateItems(path: string, into: ItemTexts): Promise<AuditReport> {
  const audit = new ImportAudit(path, `lines of ${ITEM_FORM}`);
  await forEachLine(path, (text, number) => {
    if (text.trim() === '') {
      audit.skipped('blank_line');
      return;
    }
    const value = parseJson(text);
    const fields = typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
    const field = (name: string): string => (typeof fields[name] === 'string' ? fields[name] : '');
    if (field('item') === '') audit.malformed(number, ITEM_FORM, text);
    else if (into.has(field('item'))) audit.skipped('repeated_item');
    else {
      const [title, brand, categories] = [field('title'), field('brand'), field('categories')];
      into.add(field('item'), {
        title,
        brand,
        categories,
        keywords: field('keywords'),
        description: field('description'),
        ...intentionOf(field('intention')),
      });
      audit.usable();
    }
  });
  return audit.finish();
}

function parseEvent(value: unknown): { user: string; item: string; time: number } | null {
  if (typeof value !== 'object' || value === null) return null;
  const { user, item, time } = value as Record<string, unknown>;
  if (typeof user !== 'string' || typeof item !== 'string' || typeof time !== 'number') return null;
  return user === '' || item === '' ? null : { user, item, time };
}
