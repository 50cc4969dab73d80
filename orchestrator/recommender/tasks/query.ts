/** The query task: from what a shopper looks for, with or without a history, to the item; and from a history to the wish. */
import { type TemplateForm } from './template.js';

export const QUERY_FORM: TemplateForm = {
  prompt: ['history', 'title history', 'query'],
  answer: ['item', 'query'],
};

export const QUERY_TEMPLATES: readonly string[] = [
  'A customer searches for {query}. Product: => {item}',
  'Wanted: {query} => {item}',
  'After {history} the customer asks for {query} => {item}',
  'A shopper chose {history}. What will they look for next? => {query}',
];
