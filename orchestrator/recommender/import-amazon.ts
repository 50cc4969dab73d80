/**
 * Import of Amazon review dumps; each line tells by its fields which generation it is of.
 *
 * | | reviews | metadata |
 * |---|---|---|
 * | 2014 | JSON: `reviewerID`, `asin`, `unixReviewTime` | Python literals: `asin`, `title`, `brand`, nested `categories` |
 * | 2018 | the same | JSON: `asin`, `title`, `brand`, `category`, `description` list |
 * | 2023 | JSON: `user_id`, `parent_asin`, `timestamp` in ms | JSON: `parent_asin`, `title`, `store`, `categories`, `description` list |
 *
 * Ratings-only files are comma-separated: `user,item,rating,time` in 2014, `item,user,rating,time` in 2018, with a header in 2023.
 *
 * 1. Where columns have no names the ids say which is which (an ASIN is B and nine characters, or an ISBN; a reviewer's id begins
 *    with A and is longer or of another form); where they do not, the file is bad input: users and items are never swapped by a guess.
 */
import { basename } from 'node:path';
import { importTableEvents, type TableForm } from './delimited-table.js';
import { BadInputError } from './domain-job.js';
import { type EventLog } from './event-log.js';
import { excerpt, firstLine, forEachLine, parseJson } from './files.js';
import { type AuditReport, ImportAudit } from './import-audit.js';
import { type ItemTexts } from './item-texts.js';
import { parsePythonLiteral } from './python-literal.js';

const REVIEW_FORM =
  '{"reviewerID": string, "asin": string, "unixReviewTime": number, …} or {"user_id", "parent_asin", "timestamp", …}';
const ITEM_FORM = '{"asin" or "parent_asin": string, "title": string, …} as JSON or as a Python literal';
const RATING_FORM = 'user,item,rating,time or item,user,rating,time';
const ASIN = /^(B[0-9A-Z]{9}|[0-9]{9}[0-9X])$/;
const REVIEWER = /^A[0-9A-Z]{9,24}$/;

export async function importAmazonReviews(path: string, log: EventLog): Promise<AuditReport> {
  const first = await firstLine(path);
  if (first !== '' && !first.startsWith('{') && first.split(',').length >= 4) {
    return importRatings(path, log, ratingsForm(path, first));
  }
  const audit = new ImportAudit(path, `lines of ${REVIEW_FORM}`);
  await forEachLine(path, (text, number) => {
    if (text.trim() === '') {
      audit.skipped('blank_line');
      return;
    }
    const fields = asFields(parseJson(text));
    const user = fields['reviewerID'] ?? fields['user_id'];
    const item = fields['parent_asin'] ?? fields['asin'];
    const time = fields['unixReviewTime'] ?? fields['timestamp'];
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
  });
  return audit.finish();
}

export async function importAmazonMetadata(path: string, into: ItemTexts): Promise<AuditReport> {
  const audit = new ImportAudit(path, `lines of ${ITEM_FORM}`);
  await forEachLine(path, (text, number) => {
    if (text.trim() === '') {
      audit.skipped('blank_line');
      return;
    }
    const fields = asFields(parseJson(text) ?? (text.startsWith('{') ? parsePythonLiteral(text) : undefined));
    const item = fields['parent_asin'] ?? fields['asin'];
    if (typeof item !== 'string' || item === '') audit.malformed(number, ITEM_FORM, text);
    else if (into.has(item)) audit.skipped('repeated_item');
    else {
      into.add(item, {
        title: joined(fields['title'], ' '),
        brand: joined(fields['brand'] ?? fields['store'], ' '),
        categories: joined(fields['categories'] ?? fields['category'], ', '),
        keywords: '',
        description: joined(fields['description'], ' '),
      });
      audit.usable();
    }
  });
  return audit.finish();
}

function importRatings(path: string, log: EventLog, columns: string[] | null): Promise<AuditReport> {
  const form: TableForm = {
    ...{ separator: ',', quoted: false, columns, required: ['user_id', 'parent_asin', 'timestamp'] },
    columnName: (cell) => cell.trim().toLowerCase(),
  };
  return importTableEvents(path, log, {
    form,
    columns: { user: 'user_id', item: 'parent_asin', time: 'timestamp' },
    holds: `lines of ${RATING_FORM}`,
  });
}

/** Columns of a file without a header; null: it has one. */
function ratingsForm(path: string, line: string): string[] | null {
  const [a = '', b = ''] = line.split(',');
  if (/^(user_id|parent_asin|asin)$/i.test(a.trim())) return null;
  const [userFirst, itemFirst] = [REVIEWER.test(a) && ASIN.test(b), ASIN.test(a) && REVIEWER.test(b)];
  if (userFirst && !itemFirst) return ['user_id', 'parent_asin', 'rating', 'timestamp'];
  if (itemFirst && !userFirst) return ['parent_asin', 'user_id', 'rating', 'timestamp'];
  throw new BadInputError(
    `${basename(path)} line 1: expected ${RATING_FORM} whose ids tell which is the user, or a header, got ${excerpt(line)}; ` +
      'give the file a header and use format csv with "columns"',
  );
}

function asFields(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

/** Text of a string or of (nested) lists of strings, each different string once. */
function joined(value: unknown, separator: string): string {
  const strings = [value].flat(3).filter((entry): entry is string => typeof entry === 'string' && entry !== '');
  return [...new Set(strings)].join(separator);
}
