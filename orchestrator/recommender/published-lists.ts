/**
 * The published lists: external ids, seen items removed, at most k items a user. A short list stays short; filling it is the
 * reader's policy.
 */
import { createHash } from 'node:crypto';
import { type CatalogueItem } from './catalogue.js';
import { type Dataset, eventsOf } from './dataset.js';
import { listOf, type RankedList, showable } from './ranked-lists.js';

export type PublishedList = {
  user: string;
  /** Best first. */
  items: string[];
  scores: number[];
  /** Of the history that the list was made for. */
  historyHash: string;
};

/** Scores are float32: more digits would be noise of the wider type. */
const SCORE_DIGITS = 7;

/** SHA-256 of the item ids, oldest first, each followed by a line feed. */
export function historyHashOf(itemIds: readonly string[]): string {
  return createHash('sha256')
    .update(itemIds.map((id) => `${id}\n`).join(''))
    .digest('hex');
}

/** One list a user, in user order. */
export function* publishedLists(
  {
    dataset,
    catalogue,
    userIds,
  }: { dataset: Dataset; catalogue: readonly CatalogueItem[]; userIds: readonly string[] },
  lists: ReadonlyMap<number, RankedList>,
  k: number,
): Generator<PublishedList> {
  const idOf = (item: number): string => {
    const id = catalogue[item]?.item;
    if (id === undefined) throw new Error(`no catalogue line for item ${item}`);
    return id;
  };
  for (const [user, id] of userIds.entries()) {
    const history = eventsOf(dataset, user);
    const shown = showable(listOf(lists, user), { removed: new Set(history), k });
    yield {
      user: id,
      items: shown.map(({ item }) => idOf(item)),
      scores: shown.map(({ score }) => Number(score.toPrecision(SCORE_DIGITS))),
      historyHash: historyHashOf(Array.from(history, idOf)),
    };
  }
}
