/** Job kind `simulate`: the shop's events, items and oracle. */
import { type DomainJob } from './domain-job.js';
import { writeJson, writeNdjson } from './files.js';
import { outputPath } from './job-files.js';
import { RecipeFields } from './recipe-fields.js';
import { oracleMetrics } from './shop-oracle.js';
import { buildShop, itemText, simulateEvents } from './simulated-shop.js';

export const simulateJob: DomainJob = async (context) => {
  const fields = new RecipeFields('simulate', context.recipe);
  const recipe = {
    seed: fields.integer('seed', { min: 0 }),
    items: fields.integer('items', { min: 1 }),
    users: fields.integer('users', { min: 1 }),
    eventsPerUserMin: fields.integer('eventsPerUserMin', { min: 1 }),
    eventsPerUserMax: fields.integer('eventsPerUserMax', { min: 1 }),
  };
  const shop = buildShop(recipe);
  const events = simulateEvents(shop, recipe);
  context.report(1, 2, { events: events.length });
  const oracle = oracleMetrics(shop, events);
  context.report(2, 2, { oracle_hr_10: oracle.hr['10'] ?? 0 });
  const userId = (user: number): string => `user-${String(user + 1).padStart(5, '0')}`;
  const itemId = (item: number): string => `item-${String(item + 1).padStart(5, '0')}`;
  const outputs = { interactions: 'interactions.ndjson', items: 'items.ndjson', oracle: 'oracle.json' };
  await writeNdjson(
    outputPath(context, outputs.interactions),
    events.map(({ user, item, time }) => ({ user: userId(user), item: itemId(item), time })),
  );
  await writeNdjson(
    outputPath(context, outputs.items),
    shop.items.map((item, index) => ({ item: itemId(index), ...itemText(item) })),
  );
  await writeJson(outputPath(context, outputs.oracle), oracle);
  return { outputs, summary: { users: recipe.users, items: recipe.items, events: events.length, oracle } };
};
