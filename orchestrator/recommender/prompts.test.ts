import { describe, expect, it } from 'vitest';
import { type Dataset, datasetFromSequences } from './dataset.js';
import {
  type PromptForm,
  publishPromptTensors,
  testPromptTensors,
  validationPromptTensors,
  windowsOf,
} from './prompts.js';
import { encodeSafetensors, SafetensorsFile, type Tensor } from './safetensors.js';
import { itemTokenIds, readSemanticIds } from './semantic-ids.js';
import { ExampleSet } from './tasks/example-set.js';
import { addSequentialExamples } from './tasks/sequential.js';

/** Items 0…19 of two tokens: 100 + item and 200 + item. */
const ITEM_TOKENS = Int32Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? 100 : 200) + Math.floor(i / 2));
const FORM = {
  templates: [
    [1, 50],
    [1, 60, 61],
  ],
  itemTokens: ITEM_TOKENS,
  levels: 2,
  historyItemsMax: 3,
  seed: 5,
};

function trainExampleTensors(dataset: Dataset, form: PromptForm, weight = 1): Record<string, Tensor> {
  const examples = new ExampleSet();
  addSequentialExamples(examples, { dataset, form, weight });
  return examples.tensors().tensors;
}

function sequencesOf(tensors: Record<string, Tensor>, name = 'tokens'): number[][] {
  const offsets = Array.from(tensors['offsets']?.data ?? [], Number);
  const values = Array.from(tensors[name]?.data ?? [], Number);
  return offsets.slice(1).map((end, i) => values.slice(offsets[i], end));
}

describe('windows', () => {
  it('cover every event, label each but the first once and hold at most so many items', () => {
    const events = Int32Array.from({ length: 11 }, (_, i) => i);
    const windows = windowsOf(events, 4).map((window) => [...window]);
    expect(windows).toEqual([
      [0, 1],
      [1, 2, 3, 4],
      [4, 5, 6, 7],
      [7, 8, 9, 10],
    ]);
    expect(windows.flatMap((window) => window.slice(1))).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(windowsOf(events.subarray(0, 1), 4)).toEqual([]);
    expect(windowsOf(events.subarray(0, 4), 4)).toHaveLength(1);
  });
});

describe('rendering', () => {
  // Training parts: [0,1,2], [3,4] (training-only user) and [5] (nothing to learn from).
  const dataset = datasetFromSequences([
    [0, 1, 2, 6, 7],
    [3, 4],
    [5, 8, 9],
  ]);

  it('teaches all prefixes of a training sequence in one example', () => {
    const tensors = trainExampleTensors(dataset, FORM);
    const [first = [], second = []] = sequencesOf(tensors);
    expect(sequencesOf(tensors)).toHaveLength(2);
    expect(first.slice(-6)).toEqual([100, 200, 101, 201, 102, 202]);
    expect(second.slice(-4)).toEqual([103, 203, 104, 204]);
    expect(FORM.templates).toContainEqual(first.slice(0, -6));
    const [firstMask = []] = sequencesOf(tensors, 'label_mask');
    expect(firstMask).toEqual([...new Array<number>(first.length - 4).fill(0), 1, 1, 1, 1]);
  });

  it('never shows a test or validation item in training', () => {
    const tokens = new Set(sequencesOf(trainExampleTensors(dataset, FORM)).flat());
    for (const item of [6, 7, 8, 9]) expect(tokens.has(100 + item)).toBe(false);
  });

  it('prompts with the latest known events behind the first wording', () => {
    const test = testPromptTensors(dataset, FORM);
    expect(Array.from(test['users']?.data ?? [], Number)).toEqual([0, 2]);
    expect(sequencesOf(test)).toEqual([
      [1, 50, 101, 201, 102, 202, 106, 206],
      [1, 50, 105, 205, 108, 208],
    ]);
    const publish = publishPromptTensors(dataset, FORM);
    expect(Array.from(publish['users']?.data ?? [], Number)).toEqual([0, 1, 2]);
    expect(sequencesOf(publish)[0]).toEqual([1, 50, 102, 202, 106, 206, 107, 207]);
  });

  it('asks for the validation event of as many users as wanted, the same ones for the same seed', () => {
    const validation = (usersMax: number, seed = 0): ReturnType<typeof validationPromptTensors> =>
      validationPromptTensors(dataset, { form: { ...FORM, seed }, usersMax });
    const usersOf = (tensors: ReturnType<typeof validation>): number[] =>
      Array.from(tensors['users']?.data ?? [], Number);
    expect(usersOf(validation(9))).toEqual([0, 2]);
    // One event fewer than for the test event.
    const known = (sequences: number[][]): (number | undefined)[] => sequences.map((tokens) => tokens.at(-1));
    expect(known(sequencesOf(validation(9)))).toEqual([202, 205]);
    expect(usersOf(validation(0))).toEqual([]);
    const drawn = Array.from({ length: 20 }, (_, seed) => usersOf(validation(1, seed))[0]);
    expect(new Set(drawn)).toEqual(new Set([0, 2]));
    expect(usersOf(validation(1, 3))).toEqual(usersOf(validation(1, 3)));
  });

  it('draws all wordings, the same ones for the same seed', () => {
    const many = datasetFromSequences(Array.from({ length: 60 }, () => [0, 1, 2, 3]));
    const lengths = sequencesOf(trainExampleTensors(many, FORM)).map((tokens) => tokens.length);
    expect(new Set(lengths)).toEqual(new Set([6, 7]));
    expect(sequencesOf(trainExampleTensors(many, FORM)).map((tokens) => tokens.length)).toEqual(lengths);
    expect(sequencesOf(trainExampleTensors(many, { ...FORM, seed: 6 })).map((tokens) => tokens.length)).not.toEqual(
      lengths,
    );
  });
});

describe('semantic ids', () => {
  const fileOf = (codes: number[]): SafetensorsFile =>
    SafetensorsFile.decode(
      encodeSafetensors({
        codes: { shape: [codes.length / 2, 2], data: Int32Array.from(codes) },
        centroids: { shape: [2, 4, 1], data: new Float32Array(8) },
      }),
      'codes',
    );

  it('become token ids level by level', () => {
    const ids = readSemanticIds(fileOf([0, 3, 2, 1]), 2);
    expect([...itemTokenIds(ids, 512)]).toEqual([512, 519, 514, 517]);
  });

  it('must be unique, in range and one for each item', () => {
    expect(() => readSemanticIds(fileOf([0, 3, 0, 3]), 2)).toThrow(/expected unique ids, got 1 for 2 items/);
    expect(() => readSemanticIds(fileOf([0, 4]), 1)).toThrow(/item 0: expected codes from 0 to 3, got 0, 4/);
    expect(() => readSemanticIds(fileOf([0, 3]), 2)).toThrow(/one row for each of 2 items, got 1/);
  });
});
