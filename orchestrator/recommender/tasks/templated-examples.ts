/**
 * Examples of the tasks that templates describe: text, query and the yes/no form of negative sampling.
 *
 * 1. A template with a history asks for a training event, one without for an item of the catalogue; each kind is gone through
 *    in random orders, so that all come equally often.
 * 2. A template that needs text which the item lacks gives way to the next one; an example for which none is left is dropped.
 * 3. Answers of item tokens have the form that the beam search expects; answers of text end with the tokenizer's end, unless
 *    the text was cut.
 */
import { type PromptForm, tokensOfItems } from '../prompts.js';
import { TaskDraws } from './draws.js';
import { type ExampleSet } from './example-set.js';
import { type ItemTexts, type TextKind } from './item-text.js';
import { type TaskName } from './task-recipes.js';
import { type Placeholder, type Template, type TemplatePart } from './template.js';
import { type TrainingEvents } from './training-events.js';

/** Titles of a history take many tokens; the newest say the most. */
const TITLES_MAX = 5;

export interface TaskSources {
  events: TrainingEvents;
  itemCount: number;
  texts: ItemTexts;
  form: PromptForm;
  start: number[];
  /** Behind an answer of text; empty where the tokenizer has none. */
  end: number[];
  encode: (text: string) => number[];
}

interface Subject {
  target: number;
  history: Int32Array;
  candidate: number;
  /** Which of the answers is right. */
  answer: number;
  /** Which of the target's intentions is shown. */
  intention: number;
}

export function addTemplatedExamples(
  into: ExampleSet,
  { task, templates, count, sources }: { task: TaskName; templates: Template[]; count: number; sources: TaskSources },
): void {
  const draws = new TaskDraws(sources.form.seed, task);
  const writer = new TemplateWriter(sources);
  const taken = { events: 0, items: 0 };
  for (let example = 0; example < count; example += 1) {
    const first = draws.template(example, templates.length);
    for (let turn = 0; turn < templates.length; turn += 1) {
      const template = templates[(first + turn) % templates.length];
      if (template === undefined) break;
      const pool = template.usesHistory ? 'events' : 'items';
      const size = pool === 'events' ? sources.events.count : sources.itemCount;
      if (size === 0) continue;
      const entry = draws.fromPool(pool, taken[pool], size);
      taken[pool] += 1;
      const subject = subjectOf(entry, { template, draws, example, sources });
      const parts = subject === null ? null : writer.write(template, subject);
      if (parts === null) continue;
      into.add(task, parts);
      break;
    }
  }
}

function subjectOf(
  entry: number,
  {
    template,
    draws,
    example,
    sources,
  }: { template: Template; draws: TaskDraws; example: number; sources: TaskSources },
): Subject | null {
  const random = draws.sequence(example);
  const intentionDraw = random.uniform();
  const { user, target, history } = template.usesHistory
    ? sources.events.at(entry, sources.form.historyItemsMax)
    : { user: 0, target: entry, history: new Int32Array(0) };
  const intention = Math.floor(intentionDraw * Math.max(1, sources.texts.variants('query', target)));
  const subject = { target, history, candidate: target, answer: 0, intention };
  if (template.answers.length === 1 || random.uniform() < 0.5) return subject;
  const [other] = sources.events.sampleOthers(user, { count: 1, random });
  return other === undefined ? null : { ...subject, candidate: other, answer: 1 };
}

class TemplateWriter {
  private readonly words = new Map<string, number[]>();

  constructor(private readonly sources: TaskSources) {}

  /** Null where text is lacking. */
  write(template: Template, subject: Subject): { prompt: ArrayLike<number>[]; answer: ArrayLike<number>[] } | null {
    const prompt: ArrayLike<number>[] = [this.sources.start];
    for (const part of template.prompt) {
      const written = this.part(part, subject);
      if (written === null) return null;
      prompt.push(...written.tokens);
    }
    const [answerPart] = template.answers[subject.answer] ?? [];
    const answer = answerPart === undefined ? null : this.part(answerPart, subject);
    if (answer === null) return null;
    return { prompt, answer: answer.ends ? [...answer.tokens, this.sources.end] : answer.tokens };
  }

  /** `ends`: text that is whole. */
  private part(part: TemplatePart, subject: Subject): { tokens: ArrayLike<number>[]; ends: boolean } | null {
    if ('words' in part) return { tokens: [this.encoded(part.words)], ends: true };
    const { placeholder, spaced } = part;
    switch (placeholder) {
      case 'history':
        return this.items(subject.history);
      case 'item':
        return this.items([subject.target]);
      case 'candidate':
        return this.items([subject.candidate]);
      case 'title history':
        return this.titles(subject, spaced);
      case 'candidate title':
        return this.text('title', subject.candidate, { spaced, variant: 0 });
      case 'title':
      case 'text':
      case 'query':
        return this.text(placeholder, subject.target, {
          spaced,
          variant: placeholder === 'query' ? subject.intention : 0,
        });
    }
  }

  private items(items: ArrayLike<number>): { tokens: ArrayLike<number>[]; ends: boolean } {
    return { tokens: [tokensOfItems(items, this.sources.form)], ends: false };
  }

  private text(
    kind: TextKind & Placeholder,
    item: number,
    { spaced, variant }: { spaced: boolean; variant: number },
  ): { tokens: ArrayLike<number>[]; ends: boolean } | null {
    if (this.sources.texts.variants(kind, item) === 0) return null;
    const { tokens, whole } = this.sources.texts.tokensOf(kind, item, { lead: spaced ? ' ' : '', variant });
    return { tokens: [tokens], ends: whole };
  }

  private titles({ history, target }: Subject, spaced: boolean): { tokens: ArrayLike<number>[]; ends: boolean } | null {
    const { texts } = this.sources;
    // Of an item that is bought again the title would be the answer, in words.
    const named = [...history]
      .filter((item) => item !== target && texts.variants('title', item) > 0)
      .slice(-TITLES_MAX);
    if (named.length === 0) return null;
    const lead = spaced ? ' ' : '';
    return {
      tokens: named.map((item, i) => texts.tokensOf('title', item, { lead: i === 0 ? lead : ', ' }).tokens),
      ends: false,
    };
  }

  private encoded(words: string): number[] {
    const found = this.words.get(words) ?? this.sources.encode(words);
    this.words.set(words, found);
    return found;
  }
}
