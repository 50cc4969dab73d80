/** The text task: what an item is called and what its tokens are, both ways; and the next item across both languages. */
import { type TemplateForm } from './template.js';

export const TEXT_FORM: TemplateForm = {
  prompt: ['history', 'title history', 'item', 'title', 'text'],
  answer: ['item', 'title', 'text'],
};

export const TEXT_TEMPLATES: readonly string[] = [
  'Which product is called {title}? => {item}',
  'Product: {text} => {item}',
  'What is {item} called? => {title}',
  'Describe the product {item}: => {text}',
  'A shopper chose {history}. The next product is called => {title}',
  'A shopper chose {title history}. The next product is => {item}',
];
