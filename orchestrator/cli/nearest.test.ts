import { expect, test } from 'vitest';

import { nearest } from './nearest.js';

const KEYS = ['steps', 'batchSequences', 'learningRate', 'data', 'seed'];

test.each([
  ['stepss', 'steps'],
  ['Steps', 'steps'],
  ['date', 'data'],
  ['dtaa', 'data'],
  ['learning_rate', 'learningRate'],
  ['batchsequence', 'batchSequences'],
  ['zzzz', null],
  ['temperature', null],
])('%s -> %s', (word, expected) => {
  expect(nearest(word, KEYS)).toBe(expected);
});
