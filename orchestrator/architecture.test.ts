/** What ARCHITECTURE.md and docs/first-incident.md say in tables is what the code does. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, it } from 'vitest';

import { BUDGETS } from '../workflows/failure-policy.js';
import { projectRoot } from './build-info.js';

const text = readFileSync(join(projectRoot(), 'ARCHITECTURE.md'), 'utf8');

it('the table of failure classes has every class with its budget', () => {
  const rows = [...text.matchAll(/^\| `(\w+)` +\|.*\| +([\d,]+) \|$/gm)];
  const told = Object.fromEntries(rows.map(([, cause = '', budget = '']) => [cause, Number(budget.replace(',', ''))]));
  expect(told).toEqual(BUDGETS);
});

it('docs/first-incident.md says of every class what to look at', () => {
  const page = readFileSync(join(projectRoot(), 'docs', 'first-incident.md'), 'utf8');
  const told = [...page.matchAll(/^\| `(\w+)` +\| \S.* \|$/gm)].map(([, cause]) => cause);
  expect(told.sort()).toEqual(Object.keys(BUDGETS).sort());
});

it('the table of complaints names each of the fifteen, in a test file that has it', () => {
  const rows = [...text.matchAll(/^\| (\d+ .*?) +\| `((?:e2e|cli)\/[\w-]+\.test\.ts)`/gm)];
  const numbers = rows.flatMap(([, complaints = '', file = '']) => {
    const tests = readFileSync(join(projectRoot(), 'test', file), 'utf8');
    return [...complaints.matchAll(/\b\d+\b/g)].map(([number]) => {
      expect(tests, `${file} on complaint ${number}`).toContain(`describe('complaint ${number}:`);
      return Number(number);
    });
  });
  expect(numbers.sort((a, b) => a - b)).toEqual(Array.from({ length: 15 }, (_, index) => index + 1));
});
