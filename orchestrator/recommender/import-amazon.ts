/**
 * Import of Amazon review dumps, JSON lines of 2014 and 2018: reviews (`reviewerID`, `asin`, `unixReviewTime`) and metadata
 * (`asin`, `title`, `brand`, `categories` or `category`, `description`).
 */
import { type EventLog, type ImportedText } from './event-log.js';
import { parseJson, readLines } from './files.js';
import { type AuditReport, ImportAudit } from './import-audit.js';

const REVIEW_FORM = '{"reviewerID": string, "asin": string, "unixReviewTime": number, …}';
const ITEM_FORM = '{"asin": string, "title": string, …} as strict JSON (no Python literals)';

export async function importAmazonReviews(path: string, log: EventLog): Promise<AuditReport> {
  const audit = new ImportAudit(path, `lines of ${REVIEW_FORM}`);
  for await (const { number, text } of readLines(path)) {
    if (text.trim() === '') continue;
    const { reviewerID: user, asin: item, unixReviewTime: time } = fieldsOf(text);
    if (
      typeof user !== 'string' ||
      typeof item !== 'string' ||
      typeof time !== 'number' ||
      user === '' ||
      item === ''
    ) {
      audit.malformed(number, REVIEW_FORM, text);
    } else {
      log.add({ user, item, time });
      audit.usable();
    }
  }
  return audit.finish();
}

export async function importAmazonMetadata(path: string, into: Map<string, ImportedText>): Promise<AuditReport> {
  const audit = new ImportAudit(path, `lines of ${ITEM_FORM}`);
  for await (const { number, text } of readLines(path)) {
    if (text.trim() === '') continue;
    const fields = fieldsOf(text);
    const item = fields['asin'];
    if (typeof item !== 'string' || item === '') audit.malformed(number, ITEM_FORM, text);
    else if (into.has(item)) audit.skipped('repeated_item');
    else {
      into.set(item, {
        title: joined(fields['title'], ' '),
        brand: joined(fields['brand'], ' '),
        categories: joined(fields['categories'] ?? fields['category'], ', '),
        keywords: '',
        description: joined(fields['description'], ' '),
      });
      audit.usable();
    }
  }
  return audit.finish();
}

function fieldsOf(text: string): Record<string, unknown> {
  const value = parseJson(text);
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

/** Text of a string or of (nested) lists of strings, each different string once. */
function joined(value: unknown, separator: string): string {
  const strings = [value].flat(3).filter((entry): entry is string => typeof entry === 'string' && entry !== '');
  return [...new Set(strings)].join(separator);
}
