/**
 * The sequential task: item tokens of consecutive events behind the words of a template.
 *
 * 1. One example teaches every prefix at once: the tokens of each item after the first are labels.
 * 2. A training sequence of more than historyItemsMax + 1 items is cut into windows from its end; neighbours share one item, so
 *    that every event but a shopper's first is a label exactly once.
 * 3. The template is drawn by (seed, user, window). A weight above 1 shows every window again with another draw, the rest
 *    of it a part of them.
 */
import { type Dataset, trainingEventsOf } from '../dataset.js';
import { type PromptForm, tokensOfItems, windowsOf } from '../prompts.js';
import { RANDOM_SITES, uniformAt } from '../random.js';
import { type ExampleSet } from './example-set.js';

/** Windows of one user are fewer. */
const WINDOWS_MAX = 1 << 20;

/** Number of windows of all users: what the weights of other tasks multiply. */
export function countWindows(dataset: Dataset, historyItemsMax: number): number {
  let windows = 0;
  for (let user = 0; user < dataset.userCount; user += 1) {
    windows += windowsOf(trainingEventsOf(dataset, user), historyItemsMax + 1).length;
  }
  return windows;
}

export function addSequentialExamples(
  into: ExampleSet,
  { dataset, form, weight }: { dataset: Dataset; form: PromptForm; weight: number },
): void {
  for (let round = 0; round < weight; round += 1) {
    for (let user = 0; user < dataset.userCount; user += 1) {
      windowsOf(trainingEventsOf(dataset, user), form.historyItemsMax + 1).forEach((window, number) => {
        const index = round * WINDOWS_MAX + number;
        const from = { seed: form.seed, stream: user };
        if (uniformAt({ ...from, site: RANDOM_SITES.sequenceChoice }, index) >= weight - round) return;
        const draw = uniformAt({ ...from, site: RANDOM_SITES.templateChoice }, index);
        const words = form.templates[Math.floor(draw * form.templates.length)] ?? [];
        const tokens = tokensOfItems(window, form);
        into.add('sequential', {
          prompt: [words, tokens.subarray(0, form.levels)],
          answer: [tokens.subarray(form.levels)],
        });
      });
    }
  }
}
