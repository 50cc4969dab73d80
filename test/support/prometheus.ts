/** A real Prometheus that scrapes a cluster every second, with the rules and alerts that are shipped. */
import { join } from 'node:path';

import { choosePort, HOST } from '../../orchestrator/cli/ports.js';
import { preparePrometheus, prometheusAnswers } from '../../orchestrator/cli/prometheus.js';
import { findProgram } from '../../orchestrator/cli/temporal-binary.js';
import { TestChild } from './child.js';

const READY_TIMEOUT_MS = 30_000;
const QUERY_TIMEOUT_MS = 10_000;

export interface Series {
  metric: Record<string, string>;
  /** Of an instant query. */
  value?: [time: number, value: string];
}

/** Why there is none here; null when there is one. */
export function noPrometheus(): string | null {
  const found = findProgram({ variable: 'COLLIMATE_PROMETHEUS', name: 'prometheus' });
  return found === null ? 'no Prometheus here: deploy/bootstrap --with-test-tools gets it' : null;
}

export class TestPrometheus {
  readonly startedSeconds = Date.now() / 1000;

  private constructor(
    readonly child: TestChild,
    readonly address: string,
  ) {}

  /** Keeps its data in `folder`, which must exist. */
  static async start(
    folder: string,
    { controllerMetrics, serveMetrics }: { controllerMetrics: string; serveMetrics: string },
  ): Promise<TestPrometheus> {
    const found = findProgram({ variable: 'COLLIMATE_PROMETHEUS', name: 'prometheus' });
    if (found === null) throw new Error(noPrometheus() ?? '');
    const address = `${HOST}:${String(await choosePort(0, 'prometheus'))}`;
    const config = { controllerMetrics, serveMetrics, intervalSeconds: 1 };
    const flags = preparePrometheus(join(folder, 'prometheus'), address, config);
    const prometheus = new TestPrometheus(
      new TestChild(found.path, flags, join(folder, 'logs', 'prometheus.log')),
      address,
    );
    await prometheusAnswers(address, AbortSignal.timeout(READY_TIMEOUT_MS));
    return prometheus;
  }

  async query(expr: string): Promise<Series[]> {
    const { result } = await this.#get<{ result: Series[] }>('query', { query: expr });
    return result;
  }

  /** Over all that was scraped so far, as a panel asks. */
  async queryRange(expr: string): Promise<Series[]> {
    const end = Date.now() / 1000;
    const asked = { query: expr, start: String(this.startedSeconds), end: String(end), step: '1' };
    const { result } = await this.#get<{ result: Series[] }>('query_range', asked);
    return result;
  }

  async number(expr: string): Promise<number> {
    return Number((await this.query(expr))[0]?.value?.[1] ?? NaN);
  }

  async metricNames(): Promise<string[]> {
    return await this.#get<string[]>('label/__name__/values', {});
  }

  /** Rules that could not be evaluated, with why. */
  async brokenRules(): Promise<string[]> {
    interface Rule {
      name: string;
      health: string;
      lastError?: string;
    }
    const { groups } = await this.#get<{ groups: { rules: Rule[] }[] }>('rules', {});
    const rules = groups.flatMap((group) => group.rules);
    if (rules.length === 0) return ['no rule is loaded'];
    return rules.flatMap(({ name, health, lastError }) => (health === 'ok' ? [] : [`${name}: ${lastError ?? health}`]));
  }

  async #get<T>(path: string, parameters: Record<string, string>): Promise<T> {
    const url = `http://${this.address}/api/v1/${path}?${new URLSearchParams(parameters).toString()}`;
    const response = await fetch(url, { signal: AbortSignal.timeout(QUERY_TIMEOUT_MS) });
    const body = (await response.json()) as { status: string; data: T; error?: string };
    if (body.status !== 'success') throw new Error(`Prometheus refused ${url}: ${body.error ?? body.status}`);
    return body.data;
  }
}
