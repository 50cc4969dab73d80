/** What a run leaves to see and to use: metrics in Prometheus form, its event log, and the lists over gRPC. */
import { spawnSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { status as grpcStatus } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';

import { panelQueries, variableQueries } from '../../deploy/grafana/queries.js';
import { ROOMS } from '../../deploy/grafana/rooms.js';
import { choosePort, HOST } from '../../orchestrator/cli/ports.js';
import { loadService, makeClient, unary } from '../../orchestrator/fleet/channel.js';
import { REPORT_FILE, SECTIONS } from '../../orchestrator/report/run-report.js';
import { parsedPage, textOfPage } from '../../orchestrator/report/test-page.js';
import { traceIdOf } from '../../orchestrator/telemetry/traces.js';
import { METRICS, type MetricDeclaration } from '../../orchestrator/telemetry/registry.js';
import type { RecommendServiceClient } from '../../proto/generated/collimate/v1/RecommendService.js';
import type { RunResult, RunSeconds, RunStatus } from '../../workflows/contract.js';
import { projectRoot } from '../../orchestrator/cli/project-paths.js';
import { cli, eventually, temporaryHome } from '../support/cli.js';
import { Cluster, stepOf } from '../support/cluster.js';
import { OtlpReceiver } from '../support/otlp-receiver.js';
import { noPrometheus, TestPrometheus } from '../support/prometheus.js';

/** `collimate_run_purpose_seconds` of the run, by purpose. */
function secondsIn(metricsText: string, runId: string): RunSeconds {
  const series = new RegExp(`^collimate_run_purpose_seconds\\{run="${runId}",purpose="([^"]+)"\\} (\\S+)$`, 'gm');
  return Object.fromEntries(
    [...metricsText.matchAll(series)].map(([, purpose = '', value]) => [purpose, Number(value)]),
  );
}

describe('complaint 14: the dashboards are empty', () => {
  let cluster: Cluster;
  let result: RunResult;
  let metricsText = '';
  let status: RunStatus;
  let prometheus: TestPrometheus | null = null;
  let otlp: OtlpReceiver;
  let serveMetrics = '';
  /** Work so far by the metrics, twice while one stage was under way. */
  const workSeconds: number[] = [];

  const scrape = async (): Promise<string> => (await fetch(`http://${cluster.controllerMetrics}/metrics`)).text();

  beforeAll(async () => {
    otlp = await OtlpReceiver.start();
    vi.stubEnv('OTEL_EXPORTER_OTLP_ENDPOINT', otlp.endpoint);
    cluster = await Cluster.start([{ id: 'w-0' }, { id: 'w-1' }]);
    serveMetrics = `${HOST}:${String(await choosePort(0, 'serve'))}`;
    if (noPrometheus() === null) {
      prometheus = await TestPrometheus.start(cluster.folder, {
        controllerMetrics: cluster.controllerMetrics,
        serveMetrics,
      });
    }
    const plan = await cluster.plan([
      ...['tune.steps=300', 'tune.batchSequences=128'],
      // So that every panel has something to show.
      ...['codebooks.alignment.weight=0.1', 'codebooks.alignment.steps=40', 'codebooks.holdoutShare=0.1'],
    ]);
    const noteWork = async (): Promise<void> => {
      workSeconds.push(secondsIn(await scrape(), plan.runId)['work'] ?? 0);
    };
    const before = cluster.firstEvent(plan.runId, stepOf('tune', 50));
    // The third gang, if the worker is back so soon.
    const after = cluster.firstEvent(
      plan.runId,
      (event) => stepOf('tune', 200)(event) && (event.jobEvent?.epoch ?? 0) > 1,
    );
    await cluster.submit(plan);
    const { workerId } = await before;
    await noteWork();
    await cluster.workers.get(workerId)?.kill('SIGKILL');
    await cluster.startWorker({ id: workerId });
    await after;
    await noteWork();
    result = await cluster.result(plan.runId);
    metricsText = await scrape();
    status = await cluster.status(plan.runId);
  });
  afterAll(async () => {
    await prometheus?.child.kill();
    await cluster.close();
    await otlp.close();
    vi.unstubAllEnvs();
  });

  it.each([
    'collimate_run_state{run="RUN",state="done"} 1',
    'collimate_steps_total{run="RUN",stage="align_tasks"}',
    'collimate_tokens_total{run="RUN",stage="align_tasks"}',
    'collimate_samples_total{run="RUN",stage="align_tasks"}',
    'collimate_loss{run="RUN",stage="align_tasks",task="total"}',
    'collimate_step_duration_seconds_count{run="RUN",stage="align_tasks",rank="1"}',
    'collimate_checkpoint_duration_seconds_count{run="RUN",stage="align_tasks"}',
    'collimate_checkpoint_size_bytes{run="RUN",stage="align_tasks"}',
    'collimate_dispatch_duration_seconds_count{run="RUN",stage="align_tasks"}',
    'collimate_codebook_perplexity{run="RUN",level="1"}',
    'collimate_restarts_total{run="RUN",stage="align_tasks",cause="worker_lost"} 1',
    'collimate_recovery_duration_seconds_count{run="RUN",stage="align_tasks",phase="detect"} 1',
    'collimate_recovery_duration_seconds_count{run="RUN",stage="align_tasks",phase="fence"} 1',
    'collimate_recovery_duration_seconds_count{run="RUN",stage="align_tasks",phase="reschedule"} 1',
    'collimate_recovery_duration_seconds_count{run="RUN",stage="align_tasks",phase="restore"} 1',
    'collimate_recovery_duration_seconds_count{run="RUN",stage="align_tasks",phase="first_step"} 1',
    'collimate_run_purpose_seconds{run="RUN",purpose="recovery:worker_lost"}',
    'collimate_workers{state="idle"} 2',
    'collimate_worker_last_seen_timestamp_seconds{worker="w-0"}',
  ])('the controller exports %s', (series) => {
    expect(metricsText).toContain(series.replace('RUN', result.runId));
  });

  it('the seconds by purpose move while a stage is under way, and end as the run has them', () => {
    const [first = 0, second = 0] = workSeconds;
    expect(first).toBeGreaterThan(0);
    expect(second).toBeGreaterThan(first);
    expect(secondsIn(metricsText, result.runId)).toEqual(status.seconds);
  });

  it('is one trace from the run down to the job on each rank, across a killed worker', async () => {
    const named = (name: string) =>
      otlp.spans.find((span) => span.name === name && span.traceId === traceIdOf(result.runId));
    // Spans are sent every second.
    await eventually('the span of the run', () => named(`run ${result.runId}`) ?? null);
    const spans = otlp.spans.filter(({ traceId }) => traceId === traceIdOf(result.runId));
    const byId = new Map(spans.map((span) => [span.spanId, span]));
    const roots = spans.filter(({ parentSpanId }) => parentSpanId === null);
    expect(roots.map(({ name }) => name)).toEqual([`run ${result.runId}`]);
    const pathOf = (name: string, chosen: (attributes: Record<string, string | number>) => boolean): string[] => {
      let span = spans.find((one) => one.name === name && chosen(one.attributes));
      const path: string[] = [];
      for (; span !== undefined; span = byId.get(span.parentSpanId ?? '')) path.push(span.name);
      return path;
    };
    const call = 'collimate.v1.WorkerService/StartJob';
    const up = [call, 'tune', 'align_tasks', `run ${result.runId}`];
    // The survivor left the first attempt; both finished the last one.
    expect(pathOf('tune, rank 1', (of) => of['collimate.outcome'] === 'parked')).toEqual(['tune, rank 1', ...up]);
    expect(pathOf('tune, rank 0', (of) => of['collimate.outcome'] === 'finished')).toEqual(['tune, rank 0', ...up]);
    expect(spans.filter(({ name, failed }) => name === 'tune' && failed)).toHaveLength(1);
    const pids = new Set(
      spans.filter(({ name }) => name.startsWith('tune, rank')).map((span) => span.attributes['process.pid']),
    );
    expect(pids.size).toBeGreaterThan(1);
    for (const { startMs, endMs } of spans) expect(endMs).toBeGreaterThanOrEqual(startMs);
  });

  it('every line of a job in the log of a worker says of which run', async () => {
    const log = await readFile(join(cluster.folder, 'logs', 'w-0.log'), 'utf8');
    const lines = log.split('\n').flatMap((line) => (line.startsWith('{') ? [JSON.parse(line) as object] : []));
    const ofJobs = lines.filter((line) => 'job' in line);
    expect(ofJobs.length).toBeGreaterThan(0);
    expect(ofJobs.filter((line) => !('run' in line) || line.run !== result.runId)).toEqual([]);
  });

  it('keeps the events of the run', async () => {
    const events = await cluster.store.readRunEvents(result.runId);
    const types = new Set(events.map((event) => event['type']));
    for (const type of ['note', 'step', 'checkpoint', 'finished']) expect(types).toContain(type);
  });

  it('docs/first-incident.md leads to the worker, its rank and the cause in three commands, without a server', async () => {
    const page = await readFile(join(projectRoot, 'docs', 'first-incident.md'), 'utf8');
    const commands = [...page.matchAll(/```sh\n(.*?)\n```/gs)].map(([, command = '']) => command);
    expect(commands).toHaveLength(3);
    const home = temporaryHome();
    try {
      await writeFile(join(home.path, 'store-address'), cluster.store.url);
      const told: string[] = [];
      for (const command of commands) {
        const words = command.replace('RUN', result.runId).split(' ').slice(1);
        const { code, stdout, stderr } = await cli([...words, '--home', home.path]);
        expect({ command, code, stderr }).toMatchObject({ code: 0 });
        told.push(stdout);
      }
      const [incident] = status.incidents;
      const [short = '', whole = '', events = ''] = told;
      expect(short).toContain(`${incident?.id ?? '?'}: worker_lost on ${incident?.workerId ?? '?'} (rank`);
      expect(short).toMatch(/^goodput .*recovery:worker_lost/m);
      for (const part of ['worker_lost', incident?.workerId, `rank ${String(incident?.rank)}`]) {
        expect(whole).toContain(part);
      }
      expect(whole).toContain('epoch');
      expect(events).toMatch(/tune epoch 2 started on .* from/);
    } finally {
      home.remove();
    }
  });

  it('leaves a report with every section, its examples, its curve and the worker that was lost', async () => {
    const page = (await cluster.store.readRunFile(result.runId, REPORT_FILE))?.toString('utf8') ?? '';
    expect(parsedPage(page).ids).toEqual(SECTIONS.map(({ id }) => id));
    expect(page).not.toMatch(/Not to be (shown|read)|This run has no/);
    const text = textOfPage(page);
    expect(text).toContain('worker_lost');
    expect(text).toContain(result.resultDigest);
    expect(text).toContain('300 values');
    expect(text).toContain('published');
  });

  it('serves exactly the published lists, and knows no others', async () => {
    const address = await cluster.startServer(serveMetrics);
    const client = makeClient<RecommendServiceClient>(loadService('RecommendService'), address);
    try {
      const published = await readFile(
        await cluster.store.localPath(result.jobs['assemble']?.outputs['published'] ?? ''),
        'utf8',
      );
      const lines = published.trimEnd().split('\n').slice(0, 20);
      for (const line of lines) {
        const { user, items } = JSON.parse(line) as { user: string; items: string[] };
        const answer = await unary(client, 'recommend', { userId: user, k: 5 }, { deadlineMs: 5_000 });
        expect(answer.items.map((item) => item.itemId)).toEqual(items.slice(0, 5));
        expect(answer.items.every((item) => item.title !== '')).toBe(true);
        expect(answer.generation).toBe(result.generation);
      }
      const unknown = unary(client, 'recommend', { userId: 'nobody', k: 5 }, { deadlineMs: 5_000 });
      await expect(unknown).rejects.toMatchObject({ code: grpcStatus.NOT_FOUND });
    } finally {
      client.close();
    }
  });

  /** What a test asks of Prometheus; skipped where there is none. */
  const withPrometheus = (name: string, ask: (prometheus: TestPrometheus) => Promise<void>): void => {
    it(name, async (context) => {
      if (prometheus === null) context.skip(noPrometheus() ?? '');
      else await ask(prometheus);
    });
  };
  const values = () => ({ run: result.runId, rateInterval: '4s', range: '10m' });

  withPrometheus('a worker is scraped while it trains, found by itself, also the one that came back', async (asked) => {
    // Rates of the recommender need some scrapes since its first call.
    await eventually('scrapes of the recommender', async () =>
      (await asked.number('count_over_time(collimate_serve_users[1m])')) >= 5 ? true : null,
    );
    const workers = await asked.query('count by (worker) (up{job="collimate-worker"} == 1)');
    expect(workers.map(({ metric }) => metric['worker']).sort()).toEqual(['w-0', 'w-1']);
    const p99 = await asked.number(
      'max(quantile_over_time(0.99, scrape_duration_seconds{job="collimate-worker"}[10m]))',
    );
    console.log(`scrape of a worker, p99: ${(1000 * p99).toFixed(1)} ms`);
    // The bar is 0.05 on a machine of its own; tests share theirs.
    expect(p99).toBeLessThan(0.5);
  });

  for (const room of ROOMS) {
    withPrometheus(`every panel of ${room.uid} shows something`, async (asked) => {
      const empty: string[] = [];
      for (const { panel, expr } of panelQueries(room, values())) {
        if ((await asked.queryRange(expr)).length === 0) empty.push(`${panel}: ${expr}`);
      }
      expect(empty).toEqual([]);
    });
  }

  withPrometheus('every variable has a value, and every rule is evaluated', async (asked) => {
    for (const { panel, expr } of variableQueries(values())) {
      expect((await asked.query(expr)).length, `values of ${panel}`).toBeGreaterThan(0);
    }
    expect(await asked.brokenRules()).toEqual([]);
  });

  withPrometheus('exported is what is declared, and of a run fewer than 2,000 series', async (asked) => {
    const declarations = Object.entries<MetricDeclaration>(METRICS);
    const exported = (await asked.metricNames()).filter((name) => name.startsWith('collimate_'));
    const seen = new Set<string>();
    for (const name of exported) {
      const whole = name.replace(/_(bucket|sum|count)$/, '');
      const found = declarations.find(([declared]) => declared === name || declared === whole);
      expect(found, `${name} is exported but not declared`).toBeDefined();
      seen.add(found?.[0] ?? '');
    }
    const missing = declarations.filter(([name, { rare }]) => rare !== true && !seen.has(name)).map(([name]) => name);
    expect(missing).toEqual([]);
    // Without buckets and sums a histogram would count for one.
    expect(await asked.number(`count(last_over_time({run="${result.runId}"}[10m]))`)).toBeLessThan(2_000);
  });

  withPrometheus('promtool accepts what every process shows', async (asked) => {
    const endpoints = (await asked.query('up == 1')).map(({ metric }) => metric['instance'] ?? '');
    expect(endpoints.length).toBe(4);
    for (const endpoint of endpoints) {
      const input = await (await fetch(`http://${endpoint}/metrics`)).text();
      const { error, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input, timeout: 10_000 });
      expect(error).toBeUndefined();
      expect(`${String(stdout)}${String(stderr)}`, endpoint).toBe('');
    }
  });
});
