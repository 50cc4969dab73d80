/** Metrics, their page, dashboards, rules, alerts and runbook agree with each other; Prometheus' own tools accept all of it. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';

import { projectRoot } from '../orchestrator/build-info.js';
import { prometheusConfig } from '../orchestrator/cli/prometheus.js';
import { METRICS, type MetricDeclaration } from '../orchestrator/telemetry/registry.js';
import { generatedFiles, outOfDate } from './generate.js';
import { panelQueries, variableQueries } from './grafana/queries.js';
import { ROOMS } from './grafana/rooms.js';

interface RuleFile {
  groups: { rules: { alert?: string; record?: string; expr: string; annotations?: Record<string, string> }[] }[];
}
interface RuleTests {
  tests: { name: string; alert_rule_test: { alertname: string; exp_alerts: unknown[] }[] }[];
}

const read = (path: string): string => readFileSync(join(projectRoot(), path), 'utf8');
const rulesIn = (path: string) => (parse(read(path)) as RuleFile).groups.flatMap(({ rules }) => rules);
const recorded = rulesIn('deploy/prometheus/rules.yml');
const alerts = rulesIn('deploy/prometheus/alerts.yml');
const values = { rateInterval: '4s', range: '1h' };
const panels = ROOMS.flatMap((room) => panelQueries(room, values));

/** Names of metrics without the suffixes that a histogram's series have. */
function metricsIn(expr: string): string[] {
  return [...expr.matchAll(/\bcollimate_\w+/g)].map(([name]) => {
    const whole = name.replace(/_(bucket|sum|count)$/, '');
    const declaration: MetricDeclaration | undefined = METRICS[whole as keyof typeof METRICS];
    return declaration?.type === 'histogram' ? whole : name;
  });
}

function promtool(args: string[]): void {
  const { status, stdout, stderr, error } = spawnSync('promtool', args, { encoding: 'utf8', timeout: 60_000 });
  expect(error, 'promtool').toBeUndefined();
  expect(status, `${stdout}${stderr}`).toBe(0);
}
const withPromtool = it.skipIf(spawnSync('promtool', ['--version']).error !== undefined);

describe('what is generated', () => {
  it('is up to date', () => {
    expect(outOfDate(generatedFiles())).toEqual([]);
  });

  it('tells what is not', () => {
    expect(outOfDate(new Map([['docs/metrics.md', 'something else']]))).toEqual(['docs/metrics.md']);
  });

  it('documents exactly the declared metrics', () => {
    const documented = [...read('docs/metrics.md').matchAll(/^\| `(collimate_\w+)`/gm)].map(([, name]) => name);
    expect(documented.sort()).toEqual(Object.keys(METRICS).sort());
  });
});

describe('what dashboards and alerts use', () => {
  it('is exactly what is declared', () => {
    const used = [...panels, ...variableQueries(values), ...recorded, ...alerts].flatMap(({ expr }) => metricsIn(expr));
    expect([...new Set(used)].sort()).toEqual(Object.keys(METRICS).sort());
  });

  it('of recording rules exists', () => {
    const known = new Set(recorded.map(({ record }) => record));
    for (const { expr } of [...panels, ...recorded, ...alerts]) {
      for (const [name] of expr.matchAll(/\bcollimate:[\w:]+/g)) expect(known, expr).toContain(name);
    }
  });
});

describe('rooms', () => {
  it.each(ROOMS.flatMap((room) => room.panels.map((panel) => ({ room, panel, name: `${room.uid}: ${panel.title}` }))))(
    '$name says what it shows and leads on',
    ({ room, panel }) => {
      expect(panel.description.length).toBeGreaterThan(10);
      expect(panel.queries.length).toBeGreaterThan(0);
      expect(panel.next).not.toBe(room.uid);
      expect(ROOMS.map(({ uid }) => uid)).toContain(panel.next);
    },
  );

  it('refuse a variable that nobody fills', () => {
    const [room] = ROOMS;
    const [panel] = room?.panels ?? [];
    if (room === undefined || panel === undefined) throw new Error('no room');
    const odd = { ...panel, queries: [{ expr: 'collimate_workers{state=~"$satte"}', legend: '' }] };
    expect(() => panelQueries({ ...room, panels: [odd] }, values)).toThrow(/expected one of .*got \$satte/);
  });
});

describe('alerts', () => {
  const { tests } = parse(read('deploy/prometheus/tests/alerts.test.yml')) as RuleTests;
  const runbook = read('docs/operations.md');

  it.each(alerts.map(({ alert = '', annotations }) => ({ alert, annotations })))(
    '$alert has a runbook entry, a test in which it fires and one in which it does not',
    ({ alert, annotations }) => {
      expect(annotations?.['runbook']).toBe(`docs/operations.md#${alert.toLowerCase()}`);
      expect(runbook).toContain(`### ${alert}\n`);
      const cases = tests.flatMap((test) => test.alert_rule_test).filter(({ alertname }) => alertname === alert);
      expect(cases.some(({ exp_alerts }) => exp_alerts.length > 0)).toBe(true);
      expect(cases.some(({ exp_alerts }) => exp_alerts.length === 0)).toBe(true);
    },
  );

  withPromtool('and rules are what promtool accepts', () => {
    promtool([
      'check',
      'rules',
      ...['rules', 'alerts'].map((name) => join(projectRoot(), `deploy/prometheus/${name}.yml`)),
    ]);
  });

  withPromtool('fire and stay quiet as they should', () => {
    promtool(['test', 'rules', join(projectRoot(), 'deploy/prometheus/tests/alerts.test.yml')]);
  });
});

describe('configurations', () => {
  withPromtool('of Prometheus are accepted: that of the compose file and that of a local installation', () => {
    promtool(['check', 'config', join(projectRoot(), 'deploy/prometheus/prometheus.yml')]);
    const local = prometheusConfig({
      controllerMetrics: '127.0.0.1:1',
      serveMetrics: '127.0.0.1:2',
      intervalSeconds: 1,
    });
    const folder = mkdtempSync(join(tmpdir(), 'collimate-prometheus-'));
    writeFileSync(join(folder, 'prometheus.yml'), local);
    promtool(['check', 'config', join(folder, 'prometheus.yml')]);
    rmSync(folder, { recursive: true });
  });
});
