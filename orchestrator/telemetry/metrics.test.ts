import { spawnSync } from 'node:child_process';
import { createServer } from 'node:net';

import { afterEach, describe, expect, it, vi } from 'vitest';

import { Metrics, startMetricsServer, type MetricsServer } from './metrics.js';
import { METRICS, STEP_NUMBERS, type MetricDeclaration } from './registry.js';

const declarations = Object.entries<MetricDeclaration>(METRICS);
const SUFFIX = { seconds: '_seconds', bytes: '_bytes', ratio: '_ratio', none: '' } as const;
const UNBOUNDED = ['step', 'user', 'item', 'user_id', 'item_id', 'job_id', 'key', 'epoch'];

describe('registry', () => {
  it.each(declarations)('%s follows the naming rules', (name, { type, unit, labels, help, buckets }) => {
    expect(name).toMatch(/^collimate_[a-z][a-z_]*[a-z]$/);
    expect(name.endsWith('_total')).toBe(type === 'counter');
    expect(name.replace(/_total$/, '').endsWith(SUFFIX[unit])).toBe(true);
    if (unit === 'none') expect(name.replace(/_total$/, '')).not.toMatch(/_(seconds|bytes|ratio)$/);
    if (name.includes('timestamp')) expect(name).toMatch(/_timestamp_seconds$/);
    if (name.endsWith('_info')) expect(type).toBe('gauge');
    expect(new Set(labels).size).toBe(labels.length);
    for (const label of labels) {
      expect(label).toMatch(/^[a-z][a-z_]*$/);
      expect(UNBOUNDED).not.toContain(label);
    }
    expect(help).toMatch(/^[A-Z1-9].*\.$/);
    expect(buckets !== undefined).toBe(type === 'histogram');
    expect([...(buckets ?? [])]).toEqual([...(buckets ?? [])].sort((a, b) => a - b));
  });
});

const controller = (): Metrics => new Metrics({ exporter: 'controller', version: '1.2.3' });

/** Gives every declared metric of a process a value, through the public methods. */
function fillAll(metrics: Metrics, exporter: string): void {
  for (const [name, { type, labels, exporter: of }] of declarations) {
    if (of !== exporter && of !== 'every process') continue;
    const values = Object.fromEntries(labels.map((label) => [label, `a "${label}"\\\n`]));
    if (type === 'counter') metrics.inc(name as 'collimate_steps_total', values as never);
    else if (type === 'gauge') metrics.set(name as 'collimate_grad_norm', values as never, 0.5);
    else metrics.observe(name as 'collimate_step_duration_seconds', values as never, 0.5);
  }
}

describe('Metrics', () => {
  it('exports only what this process owns', async () => {
    const text = await controller().text();
    expect(text).toContain('collimate_build_info{component="controller",version="1.2.3"} 1');
    for (const [name, { exporter }] of declarations) {
      expect(text.includes(`# TYPE ${name} `)).toBe(exporter === 'controller' || exporter === 'every process');
    }
  });

  it('refuses undeclared names and wrong labels', () => {
    const metrics = controller();
    expect(() => metrics.inc('collimate_made_up_total' as 'collimate_workers_lost_total', {})).toThrow(
      /collimate_made_up_total is not declared/,
    );
    expect(() => metrics.set('collimate_worker_busy', {}, 1)).toThrow(/not declared for this process/);
    expect(() => metrics.inc('collimate_steps_total', { run: 'r' } as never)).toThrow(
      /expected labels {run, stage}, got {run}/,
    );
    expect(() => metrics.inc('collimate_steps_total', { run: 'r', user: 'u' } as never)).toThrow(/got {run, user}/);
  });

  it('turns a step event into metrics, from rank 0 alone but for the time', async () => {
    const metrics = controller();
    const numbers = {
      loss: 2.5,
      loss_rank: 1,
      learning_rate: 0.01,
      grad_norm: 3,
      tokens: 100,
      samples: 4,
      step_seconds: 0.2,
    };
    for (const rank of [0, 1]) metrics.recordStep({ run: 'r', stage: 's', rank, step: 7, stepsTotal: 9, numbers });
    metrics.recordStep({ run: 'r', stage: 's', rank: 0, step: 8, stepsTotal: 9, numbers: { ...numbers, loss: 2 } });
    const text = await metrics.text();
    for (const line of [
      'collimate_steps_total{run="r",stage="s"} 2',
      'collimate_tokens_total{run="r",stage="s"} 200',
      'collimate_samples_total{run="r",stage="s"} 8',
      'collimate_loss{run="r",stage="s",task="total"} 2',
      'collimate_loss{run="r",stage="s",task="rank"} 1',
      'collimate_learning_rate{run="r",stage="s"} 0.01',
      'collimate_grad_norm{run="r",stage="s"} 3',
      'collimate_stage_step{run="r",stage="s"} 8',
      'collimate_stage_target_step{run="r",stage="s"} 9',
      'collimate_step_duration_seconds_count{run="r",stage="s",rank="0"} 2',
      'collimate_step_duration_seconds_count{run="r",stage="s",rank="1"} 1',
    ]) {
      expect(text).toContain(`${line}\n`);
    }
    const odd = { run: 'r', stage: 's', rank: 0, step: 1, stepsTotal: 2, numbers: { speed: 1 } };
    expect(() => metrics.recordStep(odd)).toThrow(/step metric "speed" of stage s: expected one of loss, /);
  });

  it('knows every step number that it declares', async () => {
    const metrics = controller();
    const numbers = Object.fromEntries(Object.keys(STEP_NUMBERS).map((name) => [name, 1]));
    metrics.recordStep({ run: 'r', stage: 's', rank: 0, step: 1, stepsTotal: 2, numbers });
    const text = await metrics.text();
    for (const name of Object.values(STEP_NUMBERS)) expect(text).toMatch(new RegExp(`^${name}[_a-z]*{run="r"`, 'm'));
  });

  it('shows one state at a time', async () => {
    const metrics = controller();
    metrics.setRunState('r', 'running');
    metrics.setRunState('r', 'done');
    metrics.setRunState('other', 'running');
    metrics.setStageState({ run: 'r', stage: 'embed', state: 'running' });
    metrics.setStageState({ run: 'r', stage: 'ingest', state: 'done' });
    const text = await metrics.text();
    expect(text).toContain('collimate_run_state{run="r",state="running"} 0');
    expect(text).toContain('collimate_run_state{run="r",state="done"} 1');
    expect(text).toContain('collimate_run_state{run="other",state="running"} 1');
    expect(text).toContain('collimate_stage_state{run="r",stage="embed",state="running"} 1');
  });

  it('removes the series of an ended run after the grace time, and no others', async () => {
    vi.useFakeTimers();
    try {
      const metrics = controller();
      fillAll(metrics, 'controller');
      for (const run of ['old', 'kept']) {
        metrics.setRunState(run, 'done');
        metrics.observe('collimate_step_duration_seconds', { run, stage: 's', rank: '0' }, 1);
        metrics.removeRun(run, { graceMs: 1000 });
      }
      metrics.keepRun('kept');
      vi.advanceTimersByTime(999);
      expect(await metrics.text()).toContain('run="old"');
      vi.advanceTimersByTime(2);
      const text = await metrics.text();
      expect(text).not.toContain('run="old"');
      expect(text).toContain('collimate_step_duration_seconds_count{run="kept",stage="s",rank="0"} 1');
      metrics.setRunState('old', 'running');
      expect(await metrics.text()).toContain('collimate_run_state{run="old",state="running"} 1');
    } finally {
      vi.useRealTimers();
    }
  });

  it('removes the series of a run of which nothing more is heard', async () => {
    vi.useFakeTimers();
    try {
      const metrics = controller();
      for (const run of ['terminated', 'waiting']) metrics.setRunState(run, 'running');
      vi.advanceTimersByTime(40 * 60_000);
      metrics.set('collimate_run_purpose_seconds', { run: 'waiting', purpose: 'queue' }, 2400);
      vi.advanceTimersByTime(20 * 60_000);
      const text = await metrics.text();
      expect(text).not.toContain('run="terminated"');
      expect(text).toContain('collimate_run_state{run="waiting",state="running"} 1');
    } finally {
      vi.useRealTimers();
    }
  });

  it('counts processor time once', async () => {
    const metrics = controller();
    const told = async (): Promise<number> =>
      Number(/^collimate_process_cpu_seconds_total (\S+)$/m.exec(await metrics.text())?.[1]);
    const first = await told();
    expect(first).toBeGreaterThan(0);
    const { user, system } = process.cpuUsage();
    expect(await told()).toBeLessThan((user + system) / 1e6 + 1);
    expect(await told()).toBeGreaterThanOrEqual(first);
  });

  it('has fewer than 2,000 series of a run on eight workers', async () => {
    const stages = ['ingest', 'embed', 'align_tokens', 'align_tasks', 'evaluate', 'publish'];
    const ranks = ['0', '1', '2', '3', '4', '5', '6', '7'];
    const metrics = controller();
    const run = 'r';
    const each: Record<string, string[]> = {
      stage: stages,
      state: ['waiting', 'running', 'paused', 'done'],
      task: ['total', 'rank', 'contrast', 'sequential', 'text', 'query', 'negative', 'ranking'],
      items: ['all', 'held_out'],
      moment: ['before', 'after'],
      cutoff: ['1', '10'],
      outcome: ['finished', 'memoised', 'failed'],
      cause: ['worker_lost', 'worker_hung', 'preempted'],
      phase: ['detect', 'fence', 'reschedule', 'restore', 'first_step'],
      purpose: ['work', 'start', 'queue', 'orchestration', 'recovery:worker_lost', 'repeated:worker_lost', 'store'],
      level: ['1', '2', '3', '4'],
      name: ['n'],
      numerics_class: ['c'],
    };
    const fill = (on: Metrics, of: string, changes: Record<string, string[]>): void => {
      for (const [name, { type, labels, exporter }] of declarations) {
        if (exporter !== of || !labels.includes('run')) continue;
        let sets: Record<string, string>[] = [{ run }];
        for (const label of labels.filter((other) => other !== 'run')) {
          const values = { ...each, ...changes }[label] ?? [];
          expect(values.length, `values of ${label}`).toBeGreaterThan(0);
          sets = sets.flatMap((set) => values.map((value) => ({ ...set, [label]: value })));
        }
        for (const set of sets) {
          // Only tuning has ranks; every other job is of one.
          if (set['rank'] !== undefined && set['rank'] !== '0' && set['stage'] !== 'align_tasks') continue;
          if (type === 'counter') on.inc(name as 'collimate_steps_total', set as never);
          else if (type === 'gauge') on.set(name as 'collimate_grad_norm', set as never, 0.5);
          else on.observe(name as 'collimate_step_duration_seconds', set as never, 0.5);
        }
      }
    };
    const countOf = async (from: Metrics): Promise<number> => (await from.text()).match(/run="r"/g)?.length ?? 0;
    // Failures and recoveries are told of the stage that has gangs.
    fill(metrics, 'controller', { rank: ranks });
    let count = await countOf(metrics);
    for (const rank of ranks) {
      const worker = new Metrics({ exporter: 'worker', version: '1' });
      // Shards of the later stages go to every worker; the earlier ones are jobs of one.
      const stage = rank === '0' ? stages : ['align_tasks', 'evaluate'];
      fill(worker, 'worker', {
        rank: [rank],
        stage,
        phase: ['data', 'forward', 'backward', 'reduce', 'optimizer', 'checkpoint'],
      });
      count += await countOf(worker);
    }
    expect(count).toBeGreaterThan(500);
    expect(count).toBeLessThan(2_000);
  });

  it('removes one series', async () => {
    const metrics = controller();
    for (const worker of ['a', 'b']) metrics.set('collimate_worker_last_seen_timestamp_seconds', { worker }, 1);
    metrics.remove('collimate_worker_last_seen_timestamp_seconds', { worker: 'a' });
    const text = await metrics.text();
    expect(text).not.toContain('worker="a"');
    expect(text).toContain('worker="b"');
  });
});

const promtool = spawnSync('promtool', ['--version']);
describe.skipIf(promtool.error !== undefined)(
  `promtool${promtool.error === undefined ? '' : ' (skipped: promtool of Debian package prometheus is not on the PATH)'}`,
  () => {
    it.each(['controller', 'worker', 'serve'] as const)('accepts the output of %s', async (exporter) => {
      const metrics = new Metrics({ exporter, version: '1' });
      fillAll(metrics, exporter);
      const check = spawnSync('promtool', ['check', 'metrics'], { input: await metrics.text(), encoding: 'utf8' });
      expect(check.stdout + check.stderr).toBe('');
      expect(check.status).toBe(0);
    });
  },
);

describe('metrics server', () => {
  let server: MetricsServer | undefined;
  afterEach(async () => {
    await server?.close();
    server = undefined;
  });
  const get = async (path: string, method = 'GET') => {
    const response = await fetch(`http://127.0.0.1:${String(server?.port)}${path}`, { method });
    return { status: response.status, type: response.headers.get('content-type'), body: await response.text() };
  };

  it('serves metrics and health', async () => {
    let reason: string | null = null;
    server = await startMetricsServer({ metrics: controller(), host: '127.0.0.1', port: 0, unhealthy: () => reason });
    const metrics = await get('/metrics?x=1');
    expect(metrics.status).toBe(200);
    expect(metrics.type).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(metrics.body).toMatch(/^collimate_process_resident_memory_bytes \d+$/m);
    expect(await get('/healthz')).toMatchObject({ status: 200, body: 'ok\n' });
    reason = 'the store is full';
    expect(await get('/healthz')).toMatchObject({ status: 503, body: 'the store is full\n' });
    expect((await get('/')).status).toBe(404);
    expect((await get('/metrics', 'POST')).status).toBe(405);
  });

  it('tells Prometheus what else to scrape, where that is known', async () => {
    const groups = [{ targets: ['10.0.0.1:9'], labels: { worker: 'w' } }];
    const listen = { host: '127.0.0.1', port: 0 };
    server = await startMetricsServer({ metrics: controller(), ...listen, targets: () => groups });
    expect(await get('/targets')).toEqual({
      status: 200,
      type: 'application/json',
      body: `${JSON.stringify(groups)}\n`,
    });
    await server.close();
    server = await startMetricsServer({ metrics: controller(), ...listen });
    expect((await get('/targets')).status).toBe(404);
  });

  it('says when the port is taken', async () => {
    const holder = createServer();
    await new Promise<void>((resolve) => holder.listen(0, '127.0.0.1', resolve));
    const { port } = holder.address() as { port: number };
    await expect(startMetricsServer({ metrics: controller(), host: '127.0.0.1', port })).rejects.toThrow(
      `metrics server: cannot listen on 127.0.0.1:${String(port)}: the port is in use`,
    );
    holder.close();
  });
});
