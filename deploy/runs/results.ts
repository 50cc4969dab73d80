/**
 * What the runs of this folder gave: docs/results.json, and docs/results.md made of it.
 *
 * 1. Numbers come from the stores of finished runs (collect.ts); nobody types one in but those of `publishedElsewhere`.
 * 2. A run is in the file once for each of its configurations; test events were read once for each, whatever came out.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { projectRoot } from '../../orchestrator/build-info.js';

/** In the order of the tables. */
export const RESULT_SOURCES = ['popularity', 'cooccurrence', 'model', 'dense', 'published'] as const;
export type ResultSource = (typeof RESULT_SOURCES)[number];
const CUTOFFS = ['5', '10'] as const;

export interface SourceResult {
  hr: Record<string, number>;
  ndcg: Record<string, number>;
  /** 95 %, of NDCG@10, by bootstrap over users. */
  ndcg10Interval: { low: number; high: number };
}

export interface ResultRun {
  /** As in the headings: Beauty, Sports, … */
  set: string;
  /** Run file, from the project's root. */
  runFile: string;
  /** Settings over the run file, as for --set. */
  settings: string[];
  date: string;
  users: number;
  items: number;
  numericsClass: string;
  resultDigest: string;
  /** On the machine of that day, beside whatever else ran there. */
  seconds: number;
  sources: Partial<Record<ResultSource, SourceResult>>;
  /** Of the fused list; null where the model's own is published. */
  fusionWeights: Record<string, number> | null;
  /** NDCG@10 on the validation events that the weights were fitted on. */
  validationNdcg10: Record<string, number> | null;
}

export interface ElsewhereResult {
  set: string;
  name: string;
  hr5: number;
  ndcg5: number;
}

export interface Results {
  publishedElsewhere: ElsewhereResult[];
  runs: ResultRun[];
}

export const RESULTS_JSON = 'docs/results.json';

export function readResults(): Results {
  return JSON.parse(readFileSync(join(projectRoot(), RESULTS_JSON), 'utf8')) as Results;
}

export function commandOf({ runFile, settings }: Pick<ResultRun, 'runFile' | 'settings'>): string {
  return ['collimate run', runFile, '--data DIR', ...settings.map((setting) => `--set ${setting}`)].join(' ');
}

const MEANINGS: Record<ResultSource, string> = {
  popularity: 'popularity',
  cooccurrence: 'co-occurrence, tuned on validation',
  model: 'generator (the paper’s form)',
  dense: 'dense sequence model',
  published: '**published list** (fused)',
};

/** docs/results.md. */
export function resultsPage({ runs, publishedElsewhere }: Results): string {
  const sets = [...new Set(runs.map(({ set }) => set))];
  return [
    '# Results on public logs',
    'Made from [results.json](results.json) by `npm run generate`; that file is filled from the stores of finished runs by `node dist/deploy/runs/collect.js`.',
    'Leave-one-out, full ranking of the whole catalogue, items of the history removed, averaged over all users. Selection on validation events only; test events read once for each configuration, and each that was read is here. One seed where the command does not say otherwise. ± is the 95 % interval of NDCG@10 by bootstrap over users. "over co-occurrence" compares HR@5 / NDCG@5. Seconds are those of two CPU cores that had other work beside.',
    ...sets.map((set) =>
      setSection(
        set,
        runs.filter((run) => run.set === set),
        publishedElsewhere.filter((row) => row.set === set),
      ),
    ),
  ]
    .join('\n\n')
    .concat('\n');
}

function setSection(set: string, runs: readonly ResultRun[], elsewhere: readonly ElsewhereResult[]): string {
  const [first] = runs;
  const parts = [`## ${set}`, `${String(first?.users ?? 0)} users, ${String(first?.items ?? 0)} items.`];
  for (const run of runs) parts.push(runTable(run));
  if (elsewhere.length > 0) {
    const rows = elsewhere.map(({ name, hr5, ndcg5 }) => `${name} ${four(hr5)} / ${four(ndcg5)}`);
    parts.push(`Published elsewhere on this log, HR@5 / NDCG@5: ${rows.join(' · ')}.`);
  }
  return parts.join('\n\n');
}

function runTable(run: ResultRun): string {
  const base = run.sources.cooccurrence;
  const rows = RESULT_SOURCES.flatMap((name) => {
    const source = run.sources[name];
    if (source === undefined) return [];
    const numbers = CUTOFFS.flatMap((k) => [four(source.hr[k] ?? 0), four(source.ndcg[k] ?? 0)]);
    const { low, high } = source.ndcg10Interval;
    const over =
      base === undefined || name === 'cooccurrence' || name === 'popularity'
        ? ''
        : `${percent(source.hr['5'], base.hr['5'])} / ${percent(source.ndcg['5'], base.ndcg['5'])}`;
    return [`| ${MEANINGS[name]} | ${numbers.join(' | ')} | ${four(low)} – ${four(high)} | ${over} |`];
  });
  const weights = Object.entries(run.fusionWeights ?? {}).map(([name, weight]) => `${name} ${String(weight)}`);
  const validation = Object.entries(run.validationNdcg10 ?? {}).map(([name, value]) => `${name} ${four(value)}`);
  const notes = [
    `\`${commandOf(run)}\``,
    `${run.date}, ${String(Math.round(run.seconds))} s, class \`${run.numericsClass}\`, digest \`${run.resultDigest.slice(0, 16)}\``,
    ...(weights.length > 0 ? [`weights ${weights.join(', ')}`] : []),
    ...(validation.length > 0 ? [`NDCG@10 on validation: ${validation.join(', ')}`] : []),
  ];
  return [
    notes.join('; '),
    '',
    '| list | HR@5 | NDCG@5 | HR@10 | NDCG@10 | 95 % of NDCG@10 | over co-occurrence |',
    '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
    ...rows,
  ].join('\n');
}

/** .0738, as such tables have it. */
function four(value: number): string {
  return value.toFixed(4).replace(/^0/, '');
}

function percent(value = 0, base = 0): string {
  const change = (value / base - 1) * 100;
  return `${change < 0 ? '−' : '+'}${Math.abs(change).toFixed(1)} %`;
}
