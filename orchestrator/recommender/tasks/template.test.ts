import { describe, expect, it } from 'vitest';
import { NEGATIVE_FORM } from './negative.js';
import { QUERY_FORM } from './query.js';
import { parseTasks } from './registry.js';
import { defaultTasks } from './task-recipes.js';
import { parseSequentialWords, parseTemplate, type Template, type TemplateForm, wordsOfTemplate } from './template.js';
import { TEXT_FORM } from './text.js';

function parse(source: string, form: TemplateForm = TEXT_FORM): Template {
  return parseTemplate(source, { path: ['render', 'tasks', 'text', 'templates', '2'], form });
}

describe('templates', () => {
  it('give the space before text to the text and drop the one before item tokens', () => {
    expect(parse('Called {title}? => {item}')).toEqual({
      prompt: [{ words: 'Called' }, { placeholder: 'title', spaced: true }, { words: '?' }],
      answers: [[{ placeholder: 'item', spaced: false }]],
      usesHistory: false,
    });
    expect(parse('What is {item} called? => {title}')).toEqual({
      prompt: [{ words: 'What is' }, { placeholder: 'item', spaced: false }, { words: ' called?' }],
      answers: [[{ placeholder: 'title', spaced: true }]],
      usesHistory: false,
    });
    expect(parse('{title history} => {item}').usesHistory).toBe(true);
    expect(wordsOfTemplate(parse('A {history} b => {title}'))).toEqual(['A', ' b']);
  });

  it('have two wordings as a verdict', () => {
    const { answers } = parse('{history} then {candidate}? => yes | no', NEGATIVE_FORM);
    expect(answers).toEqual([[{ words: ' yes' }], [{ words: ' no' }]]);
  });

  it.each([
    ['no arrow {title}', TEXT_FORM, /one "=>" between prompt and answer, got "no arrow/],
    ['{title} => {item} => {text}', TEXT_FORM, /one "=>"/],
    [' => {item}', TEXT_FORM, /words or placeholders before/],
    ['{title => {item}', TEXT_FORM, /a "}" behind every|only the placeholders/],
    ['title} => {item}', TEXT_FORM, /every "}" to close/],
    ['{titel} => {item}', TEXT_FORM, /only the placeholders \{history\}.* here, not \{titel\}/],
    ['{title} => the {item}', TEXT_FORM, /one placeholder as the answer/],
    ['{title} => ', TEXT_FORM, /one placeholder as the answer/],
    ['{title} => item', TEXT_FORM, /one placeholder as the answer/],
    ['Nothing to go by => {item}', TEXT_FORM, /that the answer follows from/],
    ['{item} => {item}', TEXT_FORM, /an answer that the prompt does not hold/],
    ['{text} => {title}', TEXT_FORM, /no \{text\} before a \{title\}/],
    ['{history} and {title} => {item}', TEXT_FORM, /nothing of the next item before .*not \{title\}/],
    ['{title history} {item} => {text}', TEXT_FORM, /nothing of the next item/],
    ['{query} => {title}', QUERY_FORM, /only the placeholders/],
    ['{history} {candidate} => yes', NEGATIVE_FORM, /two different wordings/],
    ['{history} {candidate} => yes | yes', NEGATIVE_FORM, /two different wordings/],
    ['{candidate}? => yes | no', NEGATIVE_FORM, /a history and a candidate/],
    ['{history}? => yes | no', NEGATIVE_FORM, /a history and a candidate/],
  ])('refuse %s', (source, form, message) => {
    expect(() => parse(source, form)).toThrow(message);
    expect(() => parse(source, form)).toThrow(/^render\.tasks\.text\.templates\.2: expected/);
  });

  it('of the sequential task hold words, and the history at most at their end', () => {
    expect(parseSequentialWords('History: {history}', ['p'])).toBe('History:');
    expect(parseSequentialWords('History:', ['p'])).toBe('History:');
    expect(() => parseSequentialWords('{history} and next', ['p'])).toThrow(
      /p: expected words, with \{history\} at most/,
    );
    expect(() => parseSequentialWords('{history}', ['p'])).toThrow(/expected words before the history/);
  });
});

describe('the tasks of a recipe', () => {
  it('parse by default, and bring only the words of what is used to the tokenizer', () => {
    const tasks = defaultTasks();
    for (const name of ['text', 'query', 'negative', 'ranking'] as const) tasks[name].weight = 0;
    const parsed = parseTasks(tasks);
    expect(parsed.wordings).toEqual(parsed.sequential);
    tasks.negative.weight = 1;
    expect(parseTasks(tasks).wordings).toContain(' yes');
  });

  it('name the place of what is wrong, used or not', () => {
    const tasks = defaultTasks();
    tasks.query.weight = 0;
    tasks.query.templates[1] = '{query}';
    expect(() => parseTasks(tasks)).toThrow(/render\.tasks\.query\.templates\.1: expected one "=>"/);
    const wordings = defaultTasks();
    wordings.query.intentions = ['{colour}'];
    expect(() => parseTasks(wordings)).toThrow(
      /render\.tasks\.query\.intentions\.0: expected words with one or more of \{words\}/,
    );
    const none = defaultTasks();
    for (const task of Object.values(none)) task.weight = 0;
    expect(() => parseTasks(none)).toThrow(/expected a task with a weight above 0/);
  });
});
