import { describe, expect, it } from 'vitest';
import { type CatalogueItem } from '../catalogue.js';
import { type Dataset, datasetFromSequences, trainingEventsOf } from '../dataset.js';
import { type Tensor } from '../safetensors.js';
import { intentionsOf } from './intentions.js';
import { parseTasks, trainingExamples } from './registry.js';
import { INTENTION_WORDINGS, TASK_NAMES, type TaskName, type TasksRecipe, type TextField } from './task-recipes.js';

const ITEMS = 12;
const FIRST_ITEM_TOKEN = 100_000;
const BOS = 1;
const EOS = 2;

/** Every word gets a token of its own, so that tokens read back as what they stand for. */
class Speller {
  private readonly texts: string[] = [];
  encode = (text: string): number[] =>
    // Words with their space, as tokenizers have them.
    (text.match(/ ?[^ ]+/g) ?? []).map((word) => {
      if (!this.texts.includes(word)) this.texts.push(word);
      return 10 + this.texts.indexOf(word);
    });
  read(tokens: readonly number[]): string {
    return tokens
      .map((token) => {
        if (token === BOS) return '^';
        if (token === EOS) return '$';
        if (token < FIRST_ITEM_TOKEN) return this.texts[token - 10] ?? '?';
        const level = Math.floor((token - FIRST_ITEM_TOKEN) / 1000);
        return level === 0 ? `<${token - FIRST_ITEM_TOKEN}` : '>';
      })
      .join('');
  }
}

const CATALOGUE: CatalogueItem[] = Array.from({ length: ITEMS }, (_, item) => ({
  item: `id${item}`,
  title: item === 11 ? '' : `title${item} shop`,
  brand: `brand${item}`,
  categories: `All > kind${item % 3}`,
  keywords: '',
  description: item === 0 ? 'a long long long long long long long story' : '',
}));

/** Training parts: 0…5, 3 1 4, and the pair 7 8 of a training-only user; 9, 10 and 11 are never in training. */
const DATASET: Dataset = datasetFromSequences([
  [0, 1, 2, 3, 4, 5, 9, 10],
  [3, 1, 4, 9, 11],
  [7, 8],
  [6, 9, 10],
]);

interface Example {
  task: TaskName;
  prompt: string;
  answer: string;
}

function recipe(change: { [T in TaskName]?: Partial<TasksRecipe[T]> }): TasksRecipe {
  const off = { weight: 0 };
  return {
    sequential: { ...off, templates: ['Then:'], ...change.sequential },
    text: { ...off, templates: ['Called {title}? => {item}'], ...change.text },
    query: { ...off, templates: ['Wanted: {query} => {item}'], intentions: ['{brand}'], ...change.query },
    negative: { ...off, templates: ['After {history} comes {candidate}? => yes | no'], ...change.negative },
    ranking: { ...off, templates: ['Then:'], negatives: 3, ...change.ranking },
  };
}

function render(
  tasks: TasksRecipe,
  {
    seed = 4,
    textOrder = ['title', 'brand'],
    textTokensMax = 6,
    dataset = DATASET,
  }: { seed?: number; textOrder?: TextField[]; textTokensMax?: number; dataset?: Dataset } = {},
): {
  examples: Example[];
  tensors: Record<string, Tensor>;
  counts: Record<string, { examples: number; tokens: number; labels: number }>;
} {
  const speller = new Speller();
  const parsed = parseTasks(tasks);
  const itemTokens = Int32Array.from(
    { length: 2 * ITEMS },
    (_, i) => FIRST_ITEM_TOKEN + (i % 2) * 1000 + Math.floor(i / 2),
  );
  const form = {
    templates: parsed.sequential.map((words) => [BOS, ...speller.encode(words)]),
    itemTokens,
    levels: 2,
    historyItemsMax: 3,
    seed,
  };
  const inputs = { dataset, catalogue: CATALOGUE, tasks, parsed, form, textOrder, textTokensMax };
  const set = trainingExamples({ ...inputs, start: [BOS], end: [EOS], encode: speller.encode });
  const { tensors } = set.tensors();
  const numbers = (name: string): number[] => Array.from(tensors[name]?.data ?? [], Number);
  const [offsets, tokens, mask, task] = ['offsets', 'tokens', 'label_mask', 'tasks'].map(numbers);
  const groups = tensors['groups'] === undefined ? null : numbers('groups');
  const examples = (offsets ?? []).slice(1).map((end, sequence): Example => {
    const begin = offsets?.[sequence] ?? 0;
    const own = (tokens ?? []).slice(begin, end);
    const labels = (mask ?? []).slice(begin, end);
    const split = labels.indexOf(1);
    // Labels are the end of the sequence, without a gap.
    expect(labels.slice(split).every((label) => label === 1)).toBe(true);
    const number = groups === null ? sequence : groups.findLastIndex((first) => first <= sequence);
    return {
      task: TASK_NAMES[task?.[number] ?? 0] ?? 'sequential',
      prompt: speller.read(own.slice(0, split)),
      answer: speller.read(own.slice(split)),
    };
  });
  return { examples, tensors, counts: set.counts() };
}

const texts = (examples: Example[]): string[] => examples.map(({ prompt, answer }) => `${prompt}|${answer}`);

describe('the sequential task', () => {
  it('alone has the file that it always had', () => {
    const { tensors, examples } = render(recipe({ sequential: { weight: 1 } }));
    expect(Object.keys(tensors)).toEqual(['tokens', 'offsets', 'label_mask']);
    expect(texts(examples)).toEqual(['^Then:<0>|<1><2>', '^Then:<2>|<3><4><5>', '^Then:<3>|<1><4>', '^Then:<7>|<8>']);
  });

  it('comes as often as its weight says', () => {
    const whole = texts(render(recipe({ sequential: { weight: 1 } })).examples);
    expect(texts(render(recipe({ sequential: { weight: 2 } })).examples)).toEqual([...whole, ...whole]);
    const part = texts(render(recipe({ sequential: { weight: 0.5 } }), { seed: 5 }).examples);
    expect(part.length).toBeGreaterThan(0);
    expect(part.length).toBeLessThan(whole.length);
    for (const text of part) expect(whole).toContain(text);
  });
});

describe('the text task', () => {
  it('goes both ways, and ends whole texts only', () => {
    const { examples } = render(recipe({ text: { weight: 3, templates: ['{item}: => {text}'] } }), {
      textOrder: ['brand', 'title', 'description'],
    });
    expect(examples).toHaveLength(12);
    expect(texts(examples)).toContain('^<3>:| brand3, title3 shop$');
    expect(texts(examples)).toContain('^<11>:| brand11$');
    // Cut after six tokens: the text goes on, so no end.
    expect(texts(examples)).toContain('^<0>:| brand0, title0 shop, a long long');
  });

  it('asks for every item equally often, for those that have the text', () => {
    const { examples } = render(recipe({ text: { weight: 6 } }));
    const counts = new Map<string, number>();
    for (const { answer } of examples) counts.set(answer, (counts.get(answer) ?? 0) + 1);
    expect([...counts.values()]).toEqual(new Array<number>(11).fill(2));
    expect(counts.has('<11>')).toBe(false);
    expect(texts(examples)).toContain('^Called title4 shop?|<4>');
  });

  it('lets the run file set the order of the fields', () => {
    const about = (textOrder: TextField[]): string[] =>
      texts(render(recipe({ text: { weight: 3, templates: ['{text} => {item}'] } }), { textOrder }).examples);
    expect(about(['title', 'brand'])).toContain('^title5 shop, brand5|<5>');
    expect(about(['brand', 'title'])).toContain('^brand5, title5 shop|<5>');
    expect(about(['categories'])).toContain('^All > kind2|<5>');
  });

  it('shows histories in words and tokens, and of the next item nothing', () => {
    const templates = ['{title history}. Next => {item}', 'After {history} => {title}'];
    const { examples } = render(recipe({ text: { weight: 20, templates } }));
    expect(texts(examples)).toContain('^title1 shop, title2 shop, title3 shop. Next|<4>');
    expect(texts(examples)).toContain('^After<1><2><3>| title4 shop$');
    for (const { prompt, answer } of examples) {
      const target = /(\d+)/.exec(answer)?.[1] ?? '';
      expect(prompt).not.toMatch(new RegExp(`title${target} |<${target}>`));
      // Test and validation events of anyone are never histories or answers.
      expect(`${prompt}${answer}`).not.toMatch(/title(9|10|11)|<(9|10|11)>/);
    }
  });
});

describe('a shopper who buys something again', () => {
  it('does not have its title in the history that asks for it', () => {
    const dataset = datasetFromSequences([[4, 6, 4, 6, 4, 6]]);
    const tasks = recipe({ text: { weight: 12, templates: ['{title history}. Next => {item}'] } });
    const { examples } = render(tasks, { dataset });
    expect(new Set(texts(examples))).toEqual(
      new Set(['^title4 shop. Next|<6>', '^title6 shop. Next|<4>', '^title4 shop, title4 shop. Next|<6>']),
    );
  });
});

describe('the query task', () => {
  it('answers intentions with items, and histories with intentions', () => {
    const templates = ['Wanted: {query} => {item}', '{history}, asks {query} => {item}', '{history} wants => {query}'];
    const { examples, counts } = render(recipe({ query: { weight: 40, templates } }));
    expect(texts(examples)).toContain('^Wanted: brand9|<9>');
    expect(texts(examples)).toContain('^<0><1>, asks brand2|<2>');
    expect(texts(examples)).toContain('^<0><1> wants| brand2$');
    expect(counts['query']?.examples).toBe(160);
  });
});

describe('intentions', () => {
  it('are made of the words that tell an item apart, each once', () => {
    expect(intentionsOf(CATALOGUE, ['{words}', '{brand} {category}', '{keywords}', '{words}'])[4]).toEqual([
      'title4',
      'brand4 kind1',
    ]);
    expect(intentionsOf(CATALOGUE, INTENTION_WORDINGS)[11]).toEqual(['brand11 kind2']);
  });

  it('say no word twice, and drop words that most items have', () => {
    const shop = Array.from({ length: 20 }, (_, i): CatalogueItem => ({
      item: `i${i}`,
      title: `Best kettle model ${i} ${i % 2 === 0 ? 'Steel' : 'Glass'} K${i}`,
      brand: i === 0 ? 'Kettle Works' : 'Works',
      categories: 'Home > Kettle',
      keywords: '',
      description: '',
    }));
    const [first] = intentionsOf(shop, ['{words}', '{brand} {category}', '{words} by {words}']);
    // Half of the items are steel: that is told; all are best kettles, models, of the same category and of works.
    expect(first).toEqual(['steel k0']);
    const [only] = intentionsOf(shop.slice(0, 1), ['{words}', '{brand} {category}', 'a {category} of {brand}']);
    expect(only).toEqual(['best kettle model steel', 'a kettle of works']);
  });

  it('give way to those that a user brings', () => {
    const [first, ...rest] = CATALOGUE;
    const brought = [{ ...first, intention: ' something warm ' } as CatalogueItem, ...rest];
    expect(intentionsOf(brought, ['{brand}']).slice(0, 2)).toEqual([['something warm'], ['brand1']]);
  });
});

describe('the negative task', () => {
  it('says yes to what came next and no to what the shopper does not have', () => {
    const { examples } = render(recipe({ negative: { weight: 30 } }));
    const answers = examples.map(({ answer }) => answer);
    const yes = answers.filter((answer) => answer === ' yes$').length;
    expect(answers.filter((answer) => answer === ' no$').length + yes).toBe(120);
    expect(Math.abs(yes - 60)).toBeLessThan(20);
    const chosen = new Set<string>();
    const owned = new Map<string, number[]>();
    for (const user of [0, 1, 2]) {
      const events = [...trainingEventsOf(DATASET, user)];
      for (let at = 1; at < events.length; at += 1) {
        const history = events.slice(Math.max(0, at - 3), at).join(' ');
        chosen.add(`${history} ${events[at]}`);
        owned.set(history, events);
      }
    }
    for (const { prompt, answer } of examples) {
      const items = [...prompt.matchAll(/<(\d+)>/g)].map(([, item]) => Number(item));
      expect(chosen.has(items.join(' '))).toBe(answer === ' yes$');
      if (answer === ' no$') expect(owned.get(items.slice(0, -1).join(' '))).not.toContain(items.at(-1));
    }
  });
});

describe('the ranking form', () => {
  it('has groups of one prompt, the chosen item first', () => {
    const { examples, tensors, counts } = render(
      recipe({ sequential: { weight: 1 }, ranking: { weight: 2, negatives: 3 } }),
    );
    expect([...(tensors['tasks']?.data ?? [])].map(Number)).toEqual([0, 0, 0, 0, ...new Array<number>(8).fill(4)]);
    expect([...(tensors['groups']?.data ?? [])].map(Number)).toEqual([0, 1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 36]);
    expect(counts['ranking']).toMatchObject({ examples: 8, labels: 64 });
    for (let first = 4; first < examples.length; first += 4) {
      const group = examples.slice(first, first + 4);
      expect(new Set(group.map(({ prompt }) => prompt)).size).toBe(1);
      expect(new Set(group.map(({ answer }) => answer)).size).toBe(4);
      const prompt = group[0]?.prompt ?? '';
      for (const { answer } of group.slice(1)) expect(prompt).not.toContain(answer);
    }
  });
});

describe('all tasks together', () => {
  const all = recipe({
    sequential: { weight: 1, templates: ['Then:', 'So far:'] },
    text: { weight: 2, templates: ['Called {title}? => {item}', '{item} => {title}'] },
    query: { weight: 1.5 },
    negative: { weight: 1 },
    ranking: { weight: 0.5 },
  });

  it('are as many as their weights say, and add up', () => {
    const { counts, tensors } = render(all);
    expect(Object.entries(counts).map(([task, { examples }]) => [task, examples])).toEqual([
      ['sequential', 4],
      ['text', 8],
      ['query', 6],
      ['negative', 4],
      ['ranking', 2],
    ]);
    const sum = (of: 'tokens' | 'labels'): number =>
      Object.values(counts).reduce((total, count) => total + count[of], 0);
    expect(sum('tokens')).toBe(tensors['tokens']?.data.length);
    expect(sum('labels')).toBe([...(tensors['label_mask']?.data ?? [])].filter((label) => Number(label) === 1).length);
  });

  it('are the same for the same seed and others for another', () => {
    expect(render(all).tensors).toEqual(render(all).tensors);
    expect(render(all, { seed: 5 }).tensors).not.toEqual(render(all).tensors);
  });

  it('of one task do not depend on what the others are', () => {
    const alone = render(recipe({ query: { weight: 1.5 } })).examples;
    expect(texts(render(all).examples.filter(({ task }) => task === 'query'))).toEqual(texts(alone));
  });
});
