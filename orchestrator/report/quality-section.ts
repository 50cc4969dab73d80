/** How good the lists are: every source beside the baselines, with intervals, by groups of users and of items, and exposure. */
import { type Interval } from '../recommender/bootstrap.js';
import { type EvaluationReport, type SourceMetrics } from '../recommender/evaluation.js';
import { type CutoffMetrics } from '../recommender/ranking-metrics.js';
import { intervalChart } from './charts.js';
import { type Content, html, type Html, tableOf } from './html.js';
import { type RunEvidence } from './run-evidence.js';

const GROUP_CUTOFF = '10';
const MEANINGS: Record<string, string> = {
  model: "the generator's own beam: the paper's form",
  published: 'what shoppers see: sources fused by weights from validation events',
  dense: 'the dense sequence model',
  popularity: 'the same for all: most training events first',
  cooccurrence: 'co-occurrence, tuned on validation events',
  oracle: "the simulator's own probabilities",
};

export function qualitySection({ metrics, oracle, fusion }: RunEvidence): Html {
  if (metrics === null) return html`<p class="soft">This run has no evaluation.</p>`;
  const cutoffs = Object.keys(metrics.model.hr);
  const shown = cutoffs.includes(GROUP_CUTOFF) ? GROUP_CUTOFF : (cutoffs.at(-1) ?? '');
  const sources = metrics.sources.map((name) => ({ name, values: sourceOf(metrics, name) }));
  const charted = sources.map(({ name, values }) => ({
    name,
    value: values.ndcg[shown] ?? 0,
    ...(values.intervals.ndcg[shown] ?? { low: 0, high: 0 }),
  }));
  return html`<p>
      Leave-one-out, full ranking of ${metrics.items} items for ${metrics.users} users with a test event; small: 95 %
      intervals of ${metrics.resamples} bootstrap resamples of users (seed ${metrics.seed}).
    </p>
    ${qualityTable(metrics, oracle as CutoffMetrics | null)}
    <h3>NDCG@${shown} with 95 % intervals</h3>
    ${intervalChart(charted, { label: `NDCG@${shown} of every source` })} ${overCooccurrence(metrics, cutoffs)}
    <div class="columns">
      <div>
        <h3>NDCG@${shown} by history length</h3>
        ${groupTable(
          metrics.activity.map(({ name, eventsMin, eventsMax, users }) => [
            name,
            `${eventsMin} to ${eventsMax} events, ${users} users`,
          ]),
          sources.map(({ name, values }) => ({ name, groups: values.byActivity })),
          shown,
        )}
      </div>
      <div>
        <h3>NDCG@${shown} by popularity of the item to find</h3>
        ${groupTable(
          metrics.popularityOfTarget.map(({ name, items, users }) => [name, `${items} items, ${users} users`]),
          sources.map(({ name, values }) => ({ name, groups: values.byPopularity })),
          shown,
        )}
      </div>
    </div>
    <h3>Exposure in the first ${shown}</h3>
    ${tableOf(
      [{ title: 'source' }, { title: 'coverage of the catalogue', isNumber: true }, { title: 'Gini', isNumber: true }],
      sources.map(({ name, values }) => [
        name,
        `${(100 * (values.exposure.coverage[shown] ?? 0)).toFixed(1)} %`,
        (values.exposure.gini[shown] ?? 0).toFixed(3),
      ]),
    )}
    ${fusion === null ? html`<p class="soft">Fusion is off: the model's own lists are published.</p>` : fusionTable(fusion)}`;
}

function qualityTable(metrics: EvaluationReport, oracle: CutoffMetrics | null): Html {
  const cutoffs = Object.keys(metrics.model.hr);
  const columns = ['HR', 'NDCG'].flatMap((name) => cutoffs.map((k) => ({ title: `${name}@${k}`, isNumber: true })));
  const rows = metrics.sources.map((name) => {
    const { hr, ndcg, intervals } = sourceOf(metrics, name);
    const cells = (values: Record<string, number>, its: Record<string, Interval>): Content[] =>
      cutoffs.map((k) => withInterval(values[k], its[k]));
    return [nameCell(name), ...cells(hr, intervals.hr), ...cells(ndcg, intervals.ndcg)];
  });
  if (oracle !== null) {
    const cells = (values: Record<string, number>): Content[] => cutoffs.map((k) => fixed(values[k]));
    rows.push([nameCell('oracle'), ...cells(oracle.hr), ...cells(oracle.ndcg)]);
  }
  return tableOf([{ title: 'source' }, ...columns], rows);
}

function overCooccurrence(metrics: EvaluationReport, cutoffs: string[]): Html {
  const columns = ['HR', 'NDCG'].flatMap((name) => cutoffs.map((k) => ({ title: `${name}@${k}`, isNumber: true })));
  const rows = Object.entries(metrics.overCooccurrence).map(([name, { hr, ndcg, intervals }]) => {
    const cells = (values: Record<string, number>, its: Record<string, Interval>): Content[] =>
      cutoffs.map((k) => signed(values[k] ?? 0, its[k] ?? { low: 0, high: 0 }));
    return [name, ...cells(hr, intervals.hr), ...cells(ndcg, intervals.ndcg)];
  });
  return html`<h3>Above co-occurrence, paired</h3>
    ${tableOf([{ title: 'source' }, ...columns], rows)}
    <p class="soft">Coloured where the 95 % interval of the difference does not hold zero.</p>`;
}

function fusionTable({ weights, validation, cooccurrence }: NonNullable<RunEvidence['fusion']>): Html {
  const rows = Object.entries(weights).map(([name, weight]) => [name, weight, fixed(validation.ndcg[name])]);
  return html`<h3>Fusion</h3>
    <p>
      Fitted on the validation events of ${validation.users} users, ${validation.tried} combinations of weights: NDCG@10
      ${fixed(validation.fused)} fused. Co-occurrence: window ${cooccurrence.window}, backward weight
      ${cooccurrence.backwardWeight}, decay ${cooccurrence.historyDecay}.
    </p>
    ${tableOf(
      [
        { title: 'source' },
        { title: 'weight', isNumber: true },
        { title: 'NDCG@10 alone (validation)', isNumber: true },
      ],
      rows,
    )}`;
}

function groupTable(
  groups: [name: string, what: string][],
  sources: { name: string; groups: Record<string, CutoffMetrics> }[],
  cutoff: string,
): Html {
  const columns = sources.map(({ name }) => ({ title: name, isNumber: true }));
  const rows = groups.map(([name, what]) => [
    html`${name}<small>${what}</small>`,
    ...sources.map((source) => fixed(source.groups[name]?.ndcg[cutoff])),
  ]);
  return tableOf([{ title: 'group' }, ...columns], rows);
}

function sourceOf(metrics: EvaluationReport, name: string): SourceMetrics {
  return (metrics as unknown as Record<string, SourceMetrics | undefined>)[name] ?? metrics.model;
}

function nameCell(name: string): Html {
  return html`${name}<small>${MEANINGS[name] ?? 'a source of lists'}</small>`;
}

function withInterval(value: number | undefined, interval: Interval | undefined): Html {
  if (interval === undefined) return html`${fixed(value)}`;
  return html`${fixed(value)}<small>${interval.low.toFixed(4)} – ${interval.high.toFixed(4)}</small>`;
}

function signed(value: number, { low, high }: Interval): Html {
  const text = `${value > 0 ? '+' : ''}${value.toFixed(4)}`;
  const range = html`<small>${low.toFixed(4)} to ${high.toFixed(4)}</small>`;
  if (low > 0) return html`<span class="good">${text}</span>${range}`;
  return high < 0 ? html`<span class="bad">${text}</span>${range}` : html`${text}${range}`;
}

function fixed(value: number | undefined): string {
  return value === undefined ? '–' : value.toFixed(4);
}
