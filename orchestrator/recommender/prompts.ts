/**
 * Prompts of the sequential task as token sequences: `<bos>`, the words of a template, then the item tokens of a history.
 *
 * 1. A prompt is a prefix of the training form (tasks/sequential.ts): the latest historyItemsMax known events behind the words
 *    of the first template.
 */
import { type Dataset, EVENTS_FOR_TEST_MIN, eventsOf, knownEventsOf } from './dataset.js';
import { PackedSequences } from './packed-sequences.js';
import { RANDOM_SITES, RandomSequence } from './random.js';
import { type Tensor } from './safetensors.js';

export interface PromptForm {
  /** Token ids of every template's words, `<bos>` included. */
  templates: number[][];
  /** [items × levels]. */
  itemTokens: Int32Array;
  levels: number;
  historyItemsMax: number;
  seed: number;
}

/** Prompts for the test event of every user that has one. */
export function testPromptTensors(dataset: Dataset, form: PromptForm): Record<string, Tensor> {
  return promptTensors(dataset, form, (user) =>
    eventsOf(dataset, user).length < EVENTS_FOR_TEST_MIN ? null : knownEventsOf(dataset, user, 'test'),
  );
}

/** Prompts for the validation event of at most `usersMax` users that have one, drawn by the seed. */
export function validationPromptTensors(
  dataset: Dataset,
  { form, usersMax }: { form: PromptForm; usersMax: number },
): Record<string, Tensor> {
  const hasTarget = (user: number): boolean => eventsOf(dataset, user).length >= EVENTS_FOR_TEST_MIN;
  const users = Array.from({ length: dataset.userCount }, (_, user) => user).filter(hasTarget);
  const random = new RandomSequence({ seed: form.seed, site: RANDOM_SITES.validationUsers, stream: 0 });
  const drawn = new Set(Array.from(random.permutation(users.length).subarray(0, usersMax), (place) => users[place]));
  return promptTensors(dataset, form, (user) => (drawn.has(user) ? knownEventsOf(dataset, user, 'validation') : null));
}

/** Prompts for what every user will do next. */
export function publishPromptTensors(dataset: Dataset, form: PromptForm): Record<string, Tensor> {
  return promptTensors(dataset, form, (user) => eventsOf(dataset, user));
}

/** Windows of two or more events, oldest first. */
export function windowsOf(events: Int32Array, itemsMax: number): Int32Array[] {
  const windows: Int32Array[] = [];
  for (let end = events.length; end >= 2; end -= itemsMax - 1) {
    windows.unshift(events.subarray(Math.max(0, end - itemsMax), end));
  }
  return windows;
}

export function tokensOfItems(
  items: ArrayLike<number>,
  { itemTokens, levels }: Pick<PromptForm, 'itemTokens' | 'levels'>,
): Int32Array {
  const tokens = new Int32Array(items.length * levels);
  for (let i = 0; i < items.length; i += 1) {
    const item = items[i] ?? 0;
    tokens.set(itemTokens.subarray(item * levels, (item + 1) * levels), i * levels);
  }
  return tokens;
}

function promptTensors(
  dataset: Dataset,
  form: PromptForm,
  historyOf: (user: number) => Int32Array | null,
): Record<string, Tensor> {
  const packed = new PackedSequences();
  const users: number[] = [];
  for (let user = 0; user < dataset.userCount; user += 1) {
    const history = historyOf(user);
    if (history === null) continue;
    packed.push(form.templates[0] ?? [], tokensOfItems(history.slice(-form.historyItemsMax), form));
    users.push(user);
  }
  return { ...packed.tensors(), users: { shape: [users.length], data: Int32Array.from(users) } };
}
