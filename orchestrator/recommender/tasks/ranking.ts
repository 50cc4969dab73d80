/**
 * Negative sampling, the ranking form (S-DPO, Chen et al. 2024): a shopper's next item is preferred to n sampled ones.
 *
 * 1. A group is 1 + n sequences of one prompt, that of the sequential task; the first one's answer is what was chosen.
 * 2. Negatives are items that the shopper does not have in training; a shopper who has nearly everything gives no group.
 */
import { tokensOfItems } from '../prompts.js';
import { TaskDraws } from './draws.js';
import { type ExampleSet } from './example-set.js';
import { type TaskSources } from './templated-examples.js';

export function addRankingGroups(
  into: ExampleSet,
  {
    words,
    count,
    negatives,
    sources,
  }: { words: readonly number[][]; count: number; negatives: number; sources: TaskSources },
): void {
  const { events, form } = sources;
  if (events.count === 0) return;
  const draws = new TaskDraws(form.seed, 'ranking');
  for (let example = 0; example < count; example += 1) {
    const event = draws.fromPool('events', example, events.count);
    const { user, target, history } = events.at(event, form.historyItemsMax);
    const others = events.sampleOthers(user, { count: negatives, random: draws.sequence(example) });
    if (others.length < negatives) continue;
    const prompt = [words[draws.template(example, words.length)] ?? [], tokensOfItems(history, form)];
    into.add('ranking', ...[target, ...others].map((item) => ({ prompt, answer: [tokensOfItems([item], form)] })));
  }
}
