/**
 * The sequential task as token sequences: `<bos>`, the words of a template, then the item tokens of consecutive events.
 *
 * 1. One training example teaches every prefix at once: the tokens of each item after the first are labels.
 * 2. A training sequence of more than historyItemsMax + 1 items is cut into windows from its end; neighbours share one item, so
 *    that every event but a user's first is a label exactly once.
 * 3. A prompt is a prefix of the training form: the latest historyItemsMax known events behind the words of the first template.
 * 4. The template of a training example is drawn by (seed, user, window).
 */
import { type Dataset, EVENTS_FOR_TEST_MIN, eventsOf, int64, knownEventsOf, trainingEventsOf } from './dataset.js';
import { RANDOM_SITES, RandomSequence, uniformAt } from './random.js';
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

export function trainExampleTensors(dataset: Dataset, form: PromptForm): Record<string, Tensor> {
  const packed = new PackedSequences();
  const mask: number[] = [];
  for (let user = 0; user < dataset.userCount; user += 1) {
    windowsOf(trainingEventsOf(dataset, user), form.historyItemsMax + 1).forEach((window, number) => {
      const draw = uniformAt({ seed: form.seed, site: RANDOM_SITES.templateChoice, stream: user }, number);
      const words = form.templates[Math.floor(draw * form.templates.length)] ?? [];
      const unlabelled = words.length + form.levels;
      const labelled = (window.length - 1) * form.levels;
      packed.push(words, tokensOf(window, form));
      for (let i = 0; i < unlabelled; i += 1) mask.push(0);
      for (let i = 0; i < labelled; i += 1) mask.push(1);
    });
  }
  return { ...packed.tensors(), label_mask: { shape: [mask.length], data: Uint8Array.from(mask) } };
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
    packed.push(form.templates[0] ?? [], tokensOf(history.slice(-form.historyItemsMax), form));
    users.push(user);
  }
  return { ...packed.tensors(), users: { shape: [users.length], data: Int32Array.from(users) } };
}

function tokensOf(items: Int32Array, { itemTokens, levels }: PromptForm): number[] {
  const tokens: number[] = [];
  for (const item of items) for (let l = 0; l < levels; l += 1) tokens.push(itemTokens[item * levels + l] ?? 0);
  return tokens;
}

class PackedSequences {
  private readonly tokens: number[] = [];
  private readonly offsets: number[] = [0];

  push(...parts: number[][]): void {
    for (const part of parts) for (const token of part) this.tokens.push(token);
    this.offsets.push(this.tokens.length);
  }

  tensors(): Record<string, Tensor> {
    return {
      tokens: { shape: [this.tokens.length], data: Int32Array.from(this.tokens) },
      offsets: { shape: [this.offsets.length], data: int64(this.offsets) },
    };
  }
}
