/**
 * Templates of the alignment tasks: `words with {placeholders} => answer`, parsed once.
 *
 * 1. A template has words and placeholders before the arrow, and one answer behind it: a placeholder, or two wordings divided
 *    by `|` where the task asks for a verdict (the first one: yes).
 * 2. A space before text belongs to the text ("called {title}" gives "called" and " Tent"), as tokenizers see words; one
 *    before item tokens is dropped, since it would be a token that says nothing.
 * 3. No leak: where a history is shown, nothing that the item to predict consists of may stand before the arrow (a query may:
 *    it is what a shopper says). Nowhere may the answer itself.
 */
import { BadInputError } from '../domain-job.js';

/** What a placeholder stands for: the shopper's items so far, the item that is the answer's, or a candidate to judge. */
export const PLACEHOLDERS = {
  history: { of: 'history', text: false },
  'title history': { of: 'history', text: true },
  item: { of: 'target', text: false },
  title: { of: 'target', text: true },
  text: { of: 'target', text: true },
  query: { of: 'target', text: true },
  candidate: { of: 'candidate', text: false },
  'candidate title': { of: 'candidate', text: true },
} as const;
export type Placeholder = keyof typeof PLACEHOLDERS;

export type TemplatePart = { words: string } | { placeholder: Placeholder; spaced: boolean };

export interface Template {
  prompt: TemplatePart[];
  /** One, or two for a verdict. */
  answers: TemplatePart[][];
  usesHistory: boolean;
}

export interface TemplateForm {
  /** Allowed before the arrow. */
  prompt: readonly Placeholder[];
  /** Allowed as the answer; none: two wordings. */
  answer: readonly Placeholder[];
}

const ARROW = '=>';

/** A wording that cannot be used: `path` leads to it in the run file, `problem` is the message without it. */
export class WordingError extends BadInputError {
  constructor(
    readonly path: readonly string[],
    readonly problem: string,
  ) {
    super(`${path.join('.')}: ${problem}`);
  }
}

/** `path` leads to the template, as `render`, `tasks`, `text`, `templates`, `0`. */
export function parseTemplate(
  source: string,
  { path, form }: { path: readonly string[]; form: TemplateForm },
): Template {
  const fail = (expected: string): never => {
    throw new WordingError(path, `expected ${expected}, got ${JSON.stringify(source)}`);
  };
  const halves = source.split(ARROW);
  if (halves.length !== 2) fail(`one "${ARROW}" between prompt and answer`);
  const [left = '', right = ''] = halves.map((half) => half.trim());
  const prompt = parseParts(left, { allowed: form.prompt, fail });
  if (prompt.length === 0) fail(`words or placeholders before the "${ARROW}"`);
  const answers =
    form.answer.length === 0
      ? verdicts(right, fail)
      : [parseParts(right, { allowed: form.answer, fail }).map((part) => asPlaceholder(part, form, fail))];
  if (answers[0]?.length !== 1) fail(`one placeholder as the answer (${braced(form.answer)})`);
  const shown = prompt.flatMap((part) => ('placeholder' in part ? [part.placeholder] : []));
  const usesHistory = shown.some((name) => PLACEHOLDERS[name].of === 'history');
  const judges = shown.some((name) => PLACEHOLDERS[name].of === 'candidate');
  if (form.answer.length === 0 && !(judges && usesHistory)) fail('a history and a candidate before the verdict');
  checkNoLeak({ shown, answers, usesHistory }, fail);
  return { prompt, answers: answers.map(([answer]) => [answer as TemplatePart]), usesHistory };
}

/** Words of a sequential wording: the item tokens of the history follow, so `{history}` may only be at the end. */
export function parseSequentialWords(source: string, path: readonly string[]): string {
  const fail = (expected: string): never => {
    throw new WordingError(path, `expected ${expected}, got ${JSON.stringify(source)}`);
  };
  const words = source.replace(/\s*\{history\}\s*$/, '').trim();
  if (/[{}]|=>/.test(words))
    fail('words, with {history} at most at their end (one sequence teaches all of its prefixes)');
  if (words === '') fail('words before the history');
  return words;
}

/** All literal words: what a learned tokenizer should know. */
export function wordsOfTemplate(template: Template): string[] {
  return [template.prompt, ...template.answers].flat().flatMap((part) => ('words' in part ? [part.words] : []));
}

type Fail = (expected: string) => never;

function parseParts(text: string, { allowed, fail }: { allowed: readonly Placeholder[]; fail: Fail }): TemplatePart[] {
  const parts: TemplatePart[] = [];
  let rest = text;
  while (rest !== '') {
    const open = rest.indexOf('{');
    const words = open < 0 ? rest : rest.slice(0, open);
    if (words.includes('}')) fail('every "}" to close a "{"');
    const spaced = open >= 0 && words.endsWith(' ');
    const kept = open < 0 ? words : words.trimEnd();
    if (kept !== '') parts.push({ words: kept });
    if (open < 0) break;
    const close = rest.indexOf('}', open);
    if (close < 0) fail('a "}" behind every "{"');
    const name = rest.slice(open + 1, close);
    const placeholder = allowed.find((known) => known === name);
    if (placeholder === undefined) fail(`only the placeholders ${braced(allowed)} here, not {${name}}`);
    else parts.push({ placeholder, spaced: spaced && PLACEHOLDERS[placeholder].text });
    rest = rest.slice(close + 1);
  }
  return parts;
}

function asPlaceholder(part: TemplatePart, form: TemplateForm, fail: Fail): TemplatePart {
  if ('words' in part) return fail(`one placeholder as the answer (${braced(form.answer)})`);
  // The answer follows the prompt as the next word does.
  return { ...part, spaced: PLACEHOLDERS[part.placeholder].text };
}

function verdicts(text: string, fail: Fail): TemplatePart[][] {
  const wordings = text.split('|').map((wording) => wording.trim());
  const [yes = '', no = ''] = wordings;
  if (wordings.length !== 2 || yes === '' || no === '' || yes === no || /[{}]/.test(text)) {
    fail('two different wordings "yes | no" as the answer');
  }
  return wordings.map((wording) => [{ words: ` ${wording}` }]);
}

function checkNoLeak(
  { shown, answers, usesHistory }: { shown: Placeholder[]; answers: TemplatePart[][]; usesHistory: boolean },
  fail: Fail,
): void {
  const [answer] = answers[0] ?? [];
  if (answer === undefined || 'words' in answer) return;
  if (shown.includes(answer.placeholder)) fail(`an answer that the prompt does not hold ({${answer.placeholder}})`);
  const told = shown.find((name) => PLACEHOLDERS[name].of === 'target' && name !== 'query');
  if (usesHistory && told !== undefined) {
    fail(
      `nothing of the next item before the "${ARROW}" where a history is shown (not {${told}}: it gives the answer away)`,
    );
  }
  // A title is part of the text: the one gives the other away.
  if (answer.placeholder === 'title' && shown.includes('text')) fail('no {text} before a {title} that it holds');
  if (!usesHistory && !shown.some((name) => PLACEHOLDERS[name].of === 'target')) {
    fail(`a placeholder before the "${ARROW}" that the answer follows from`);
  }
}

function braced(names: readonly Placeholder[]): string {
  return names.map((name) => `{${name}}`).join(', ');
}
