/**
 * From a log in one of the known formats to the dataset: import, order, k-core, indices, and a report of everything left out.
 *
 * 1. Items without metadata keep empty text and are counted; metadata of items without events is dropped and counted.
 *    Metadata is read after the events where the format allows, so that texts of items without events take no memory.
 * 2. A result that cannot be evaluated (no user with three events) is bad input.
 */
import { type CatalogueItem } from './catalogue.js';
import { type Dataset, EVENTS_FOR_TEST_MIN, eventsOf } from './dataset.js';
import { BadInputError } from './domain-job.js';
import { EventLog, type IndexedEvents, NO_TEXT } from './event-log.js';
import { importAmazonMetadata, importAmazonReviews } from './import-amazon.js';
import { type AuditReport } from './import-audit.js';
import { importCollimateEvents, importCollimateItems } from './import-collimate.js';
import { importCsvEvents, importCsvItems, importNdjsonEvents, importNdjsonItems } from './import-mapped.js';
import { importMovieLensMovies, importMovieLensRatings } from './import-movielens.js';
import { importRecBoleInteractions, importRecBoleItems } from './import-recbole.js';
import { importS3RecItems, importS3RecSequences } from './import-s3rec.js';
import { ItemTexts } from './item-texts.js';
import { type IngestColumns, type IngestFormat, type IngestRecipe } from './recipes.js';

export interface IngestReport {
  format: IngestFormat;
  interactions: AuditReport;
  /** Null without an items file. */
  items: AuditReport | null;
  /** Events of usable lines; a line may hold many. */
  eventsRead: number;
  duplicateEvents: number;
  removedByCore: { users: number; items: number; events: number };
  itemsWithoutMetadata: number;
  metadataWithoutEvents: number;
  users: number;
  itemsKept: number;
  events: number;
  /** Users with fewer than three events. */
  usersTrainingOnly: number;
}

export interface IngestResult {
  dataset: Dataset;
  catalogue: CatalogueItem[];
  userIds: string[];
  report: IngestReport;
}

interface Importer {
  /** `known`: the items file as read, where `itemsFirst` and there is one. */
  events(path: string, log: EventLog, known: ItemTexts | null): Promise<AuditReport>;
  items(path: string, into: ItemTexts): Promise<AuditReport>;
  itemsFirst?: boolean;
}

const IMPORTERS: Record<Exclude<IngestFormat, 'csv' | 'ndjson'>, Importer> = {
  collimate: { events: importCollimateEvents, items: importCollimateItems, itemsFirst: true },
  s3rec: { events: importS3RecSequences, items: importS3RecItems },
  recbole: { events: importRecBoleInteractions, items: importRecBoleItems },
  amazon: { events: importAmazonReviews, items: importAmazonMetadata },
  movielens: { events: importMovieLensRatings, items: importMovieLensMovies },
};

function importerOf({ format, columns }: IngestRecipe): Importer {
  if (format !== 'csv' && format !== 'ndjson') return IMPORTERS[format];
  if (columns === null) throw new BadInputError(`ingest: expected "columns" with format ${format}, got none`);
  return format === 'csv' ? csvImporter(columns) : ndjsonImporter(columns);
}

function csvImporter(columns: IngestColumns): Importer {
  return {
    events: (path, log) => importCsvEvents(path, log, columns),
    items: (path, into) => importCsvItems(path, into, columns),
  };
}

function ndjsonImporter(columns: IngestColumns): Importer {
  return {
    events: (path, log) => importNdjsonEvents(path, log, columns),
    items: (path, into) => importNdjsonItems(path, into, columns),
  };
}

/** `items` null: no metadata, every item has empty text. */
export async function ingest(
  files: { interactions: string; items: string | null },
  recipe: IngestRecipe,
): Promise<IngestResult> {
  const importer = importerOf(recipe);
  const log = new EventLog();
  const itemsFirst = importer.itemsFirst === true;
  const metadata = itemsFirst ? new ItemTexts() : new ItemTexts((item) => log.hasItem(item));
  const readItems = async (): Promise<AuditReport | null> =>
    files.items === null ? null : importer.items(files.items, metadata);
  const before = itemsFirst ? await readItems() : null;
  const interactions = await importer.events(files.interactions, log, files.items === null ? null : metadata);
  const itemsReport = itemsFirst ? before : await readItems();
  const indexed = log.index(recipe);
  const usersTrainingOnly = checkEvaluable(indexed.dataset, recipe);
  const catalogue = indexed.itemIds.map((item) => ({ item, ...(metadata.get(item) ?? NO_TEXT) }));
  const known = indexed.itemIds.filter((item) => metadata.get(item) !== undefined).length;
  return {
    dataset: indexed.dataset,
    catalogue,
    userIds: indexed.userIds,
    report: {
      format: recipe.format,
      interactions,
      items: itemsReport,
      eventsRead: log.length,
      ...filterReport(indexed),
      itemsWithoutMetadata: catalogue.length - known,
      metadataWithoutEvents: metadata.size - known,
      users: indexed.dataset.userCount,
      itemsKept: indexed.dataset.itemCount,
      events: indexed.dataset.items.length,
      usersTrainingOnly,
    },
  };
}

function filterReport({ duplicates, removed }: IndexedEvents): Pick<IngestReport, 'duplicateEvents' | 'removedByCore'> {
  return { duplicateEvents: duplicates, removedByCore: removed };
}

/** Number of users that are training only. */
function checkEvaluable(dataset: Dataset, recipe: IngestRecipe): number {
  let short = 0;
  for (let user = 0; user < dataset.userCount; user += 1) {
    if (eventsOf(dataset, user).length < EVENTS_FOR_TEST_MIN) short += 1;
  }
  if (short === dataset.userCount) {
    throw new BadInputError(
      `ingest: expected at least one user with ${EVENTS_FOR_TEST_MIN} events, got ${dataset.userCount} users with fewer after ` +
        `minEventsPerUser ${recipe.minEventsPerUser} and minEventsPerItem ${recipe.minEventsPerItem}: bring more events or lower these`,
    );
  }
  return short;
}
