/** Job kind `ingest`: raw logs to dataset, catalogue, users and graph. */
import { datasetTensors, trainingGraphTensors } from './dataset.js';
import { type DomainJob } from './domain-job.js';
import { writeJson, writeNdjson } from './files.js';
import { ingest } from './ingest.js';
import { inputPath, outputPath } from './job-files.js';
import { RecipeFields } from './recipe-fields.js';
import { INGEST_FORMATS, ingestColumns, type IngestColumns } from './recipes.js';
import { writeSafetensors } from './safetensors.js';

export const ingestJob: DomainJob = async (context) => {
  const fields = new RecipeFields('ingest', context.recipe);
  const recipe = {
    format: fields.oneOf('format', INGEST_FORMATS),
    minEventsPerUser: fields.integer('minEventsPerUser', { min: 1 }),
    minEventsPerItem: fields.integer('minEventsPerItem', { min: 1 }),
    columns: columnsOf(fields),
  };
  const files = { interactions: inputPath(context, 'interactions'), items: context.inputs['items'] ?? null };
  const { dataset, catalogue, userIds, report } = await ingest(files, recipe);
  context.report(1, 1, { users: dataset.userCount, items: dataset.itemCount, events: dataset.items.length });
  const outputs = {
    dataset: 'dataset.safetensors',
    catalogue: 'catalogue.ndjson',
    users: 'users.ndjson',
    graph: 'graph.safetensors',
    ingest_report: 'ingest_report.json',
  };
  await writeSafetensors(outputPath(context, outputs.dataset), datasetTensors(dataset));
  await writeNdjson(outputPath(context, outputs.catalogue), catalogue);
  await writeNdjson(outputPath(context, outputs.users), userRecords(userIds));
  await writeSafetensors(outputPath(context, outputs.graph), trainingGraphTensors(dataset));
  await writeJson(outputPath(context, outputs.ingest_report), report);
  const { users, itemsKept, events, usersTrainingOnly, duplicateEvents, itemsWithoutMetadata } = report;
  const malformedLines = report.interactions.malformed + (report.items?.malformed ?? 0);
  return {
    outputs,
    summary: {
      users,
      items: itemsKept,
      events,
      usersTrainingOnly,
      duplicateEvents,
      itemsWithoutMetadata,
      malformedLines,
    },
  };
};

function* userRecords(userIds: string[]): Generator<{ user: string }> {
  for (const user of userIds) yield { user };
}

function columnsOf(fields: RecipeFields): IngestColumns | null {
  if (fields.isNull('columns')) return null;
  const columns = fields.section('columns');
  const named = (name: string): string | null => (columns.isNull(name) ? null : columns.text(name));
  return ingestColumns({
    user: columns.text('user'),
    item: columns.text('item'),
    time: named('time'),
    title: named('title'),
    brand: named('brand'),
    categories: named('categories'),
    keywords: named('keywords'),
    description: named('description'),
    separator: columns.text('separator'),
  });
}
