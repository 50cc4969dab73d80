/** Negative sampling, the generative form: a history and a candidate, answered with yes or no. Half of the candidates are sampled. */
import { type TemplateForm } from './template.js';

export const NEGATIVE_FORM: TemplateForm = {
  prompt: ['history', 'title history', 'candidate', 'candidate title'],
  answer: [],
};

export const NEGATIVE_TEMPLATES: readonly string[] = [
  'A shopper chose {history}. Will they choose {candidate} next? => yes | no',
  'After {history} comes {candidate}: true? => yes | no',
];
