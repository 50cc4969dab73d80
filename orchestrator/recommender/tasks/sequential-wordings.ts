/** Wordings of the sequential task and of the ranking form. The item tokens of the history, then of the answer, follow. */
export const SEQUENTIAL_TEMPLATES: readonly string[] = [
  'A shopper chose these items, one after the other:',
  'Purchase history, oldest first:',
  'Continue the sequence of products:',
  'What will this customer buy next?',
];
