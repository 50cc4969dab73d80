/** docs/results.json against the run files that it names; docs/results.md is held to it by the test of generated files. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { projectRoot } from '../../orchestrator/build-info.js';
import { parseRunFile } from '../../orchestrator/cli/run-file.js';
import { commandOf, readResults, resultsPage } from './results.js';

describe('results of public logs', () => {
  const { runs } = readResults();

  it('are of run files that are here, with settings that these take', () => {
    expect(runs.length).toBeGreaterThan(0);
    for (const { runFile, settings } of runs) {
      const text = readFileSync(join(projectRoot(), runFile), 'utf8');
      expect(() => parseRunFile({ file: runFile, text, settings })).not.toThrow();
    }
  });

  it('have each configuration once, always with the baselines beside', () => {
    const configurations = runs.map((run) => `${run.set}: ${commandOf(run)}`);
    expect(new Set(configurations).size).toBe(configurations.length);
    for (const { sources } of runs) expect(sources).toMatchObject({ popularity: {}, cooccurrence: {}, model: {} });
  });

  it('show what a list is ahead of co-occurrence, or behind', () => {
    const source = (value: number) => ({
      hr: { '5': value, '10': value },
      ndcg: { '5': value, '10': value },
      ndcg10Interval: { low: 0.01, high: 0.02 },
    });
    const [run] = runs;
    if (run === undefined) throw new Error('expected a result');
    const sources = {
      popularity: source(0.01),
      cooccurrence: source(0.1),
      model: source(0.09),
      published: source(0.125),
    };
    const page = resultsPage({ publishedElsewhere: [], runs: [{ ...run, sources }] });
    expect(page).toMatch(/generator .*\.0900 .*−10\.0 % \/ −10\.0 %/);
    expect(page).toMatch(/published list.*\.1250 .*\+25\.0 % \/ \+25\.0 %/);
  });
});
