import { describe, expect, it } from 'vitest';
import { type RunStatus } from '../../workflows/contract.js';
import { html, tableOf } from './html.js';
import { reportPage, SECTIONS } from './run-report.js';
import { type RunEvidence } from './run-evidence.js';
import { parsedPage, textOfPage } from './test-page.js';

const HOSTILE = `</title><script>alert("x")</script><img src=x onerror='alert(1)'>&amp;`;

const STATUS: RunStatus = {
  runId: 'shop-1',
  name: 'shop',
  state: 'failed',
  numericsClass: 'cpu',
  fleet: { min: 1, max: 2, spares: 0 },
  stages: [
    { name: 'ingest', state: 'done', jobs: [] },
    { name: 'embed', state: 'failed', jobs: [] },
  ],
  incidents: [],
  seconds: {},
  failure: HOSTILE,
  result: null,
};

/** A run that failed before it had anything to show. */
const NOTHING: RunEvidence = {
  plan: { runId: 'shop-1', name: 'shop', recipes: {}, inputs: {}, baseFiles: {} } as unknown as RunEvidence['plan'],
  status: STATUS,
  jobs: {},
  metrics: null,
  oracle: null,
  fusion: null,
  curves: [],
  codes: null,
  examples: [],
  trouble: [],
};

describe('escaping', () => {
  it('leaves no character of a value that begins or ends markup', () => {
    expect(html`${HOSTILE}`.text).not.toMatch(/[<>'"]|&(?!\w+;|#39;)/);
    expect(html`${`<&"'`}`.text).toBe('&lt;&amp;&quot;&#39;');
    expect(html`${['<', html`<i></i>`, null, 3]}`.text).toBe('&lt;<i></i>3');
    expect(tableOf([{ title: '<' }], [['&']]).text).toContain('<th>&lt;</th>');
  });
});

describe('the page', () => {
  it('has every section for a run that failed at once, and tells the failure as text', () => {
    const page = reportPage(NOTHING);
    const { ids, elements } = parsedPage(page);
    expect(ids).toEqual(SECTIONS.map(({ id }) => id));
    expect(elements).not.toContain('script');
    expect(elements).not.toContain('img');
    expect(textOfPage(page)).toContain(`failed: ${HOSTILE}`);
    expect(textOfPage(page)).toContain('stages done: ingest');
  });

  it('shows whatever a run, a shopper or a log named as text, wherever it stands', () => {
    const group = { hr: { 10: 0.5 }, ndcg: { 10: 0.25 } };
    const source = {
      ...group,
      intervals: { hr: { 10: { low: 0.4, high: 0.6 } }, ndcg: { 10: { low: 0.2, high: 0.3 } } },
      byActivity: { [HOSTILE]: group },
      byPopularity: { head: group },
      exposure: { coverage: { 10: 0.1 }, gini: { 10: 0.9 } },
    };
    const page = reportPage({
      ...NOTHING,
      status: {
        ...STATUS,
        seconds: { work: 3, [HOSTILE]: 1 },
        incidents: [
          {
            id: HOSTILE,
            stage: 'embed',
            job: 'dccf',
            jobKind: 'dccf',
            cause: 'worker_lost',
            message: HOSTILE,
            workerId: HOSTILE,
            rank: 0,
            epoch: 1,
            action: HOSTILE,
            failedAtStep: 5,
            resumedFromStep: 3,
            phases: { lastProgress: 1, detected: 2, fenced: 3, rescheduled: 4, restored: 5, firstStep: 6 },
            log: [HOSTILE],
          },
        ],
      },
      jobs: { [HOSTILE]: { key: HOSTILE, outputs: { [HOSTILE]: HOSTILE }, summary: {} } },
      metrics: {
        users: 3,
        items: 4,
        seed: 1,
        resamples: 9,
        sources: ['model', 'popularity', 'cooccurrence', HOSTILE],
        activity: [{ name: HOSTILE, eventsMin: 1, eventsMax: 2, users: 3 }],
        popularityOfTarget: [{ name: 'head', items: 4, eventShare: 1, users: 3 }],
        overCooccurrence: { [HOSTILE]: { ...group, intervals: source.intervals } },
        model: source,
        popularity: source,
        cooccurrence: { ...source, settings: { window: 1, backwardWeight: 0, historyDecay: 1 } },
        [HOSTILE]: source,
      } as unknown as NonNullable<RunEvidence['metrics']>,
      fusion: {
        cooccurrence: { window: 1, backwardWeight: 0, historyDecay: 1 },
        weights: { [HOSTILE]: 1 },
        validation: { users: 2, ndcg: { [HOSTILE]: 0.5 }, fused: 0.5, tried: 9 },
      },
      curves: [
        {
          job: HOSTILE,
          metric: HOSTILE,
          points: [
            { x: 1, y: 2 },
            { x: 2, y: NaN },
            { x: 3, y: 1 },
          ],
        },
      ],
      codes: { items: 4, codes: 5, counts: [Int32Array.of(4, 0, 0, 0, 0)] },
      examples: [
        {
          user: HOSTILE,
          history: [HOSTILE],
          earlier: 2,
          truth: HOSTILE,
          lists: [{ name: HOSTILE, titles: [HOSTILE, 'b'], rankOfTruth: 2 }],
        },
      ],
      trouble: [HOSTILE],
    });
    const { ids, elements, attributes } = parsedPage(page);
    expect(ids).toEqual(SECTIONS.map(({ id }) => id));
    expect(elements).not.toContain('script');
    expect(elements).not.toContain('img');
    expect(attributes.filter((name) => name.startsWith('on'))).toEqual([]);
    expect(page).not.toContain('Not to be shown');
    expect(page).not.toMatch(/NaN|Infinity|undefined/);
    expect(elements.filter((name) => name === 'rect').length).toBeGreaterThanOrEqual(5);
    expect(textOfPage(page).split(HOSTILE).length).toBeGreaterThan(20);
  });

  it('shows the other sections when one cannot be shown', () => {
    const broken = { ...NOTHING, metrics: { sources: ['model'] } as unknown as RunEvidence['metrics'] };
    const page = reportPage(broken);
    expect(page).toContain('Not to be shown');
    expect(parsedPage(page).ids).toEqual(SECTIONS.map(({ id }) => id));
  });
});
