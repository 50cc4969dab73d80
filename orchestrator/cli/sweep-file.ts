/**
 * The sweep file: a base run file, axes over any of its settings, and how to run what comes out.
 *
 * 1. An axis is a path of the run file with a list of values, or a name of its own with named groups of settings.
 * 2. `grid` is every combination, the last axis changing fastest; `zip` pairs the axes value by value.
 * 3. Settings of axes are checked as `--set` is: an unknown path or a bad value is an error that names the axis.
 */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parse as parseYaml, YAMLParseError } from 'yaml';
import { z } from 'zod';

import { CliError, messageOf } from './cli-error.js';

/** `codebooks.levels` to 3, …; in the order in which they are applied. */
export type Settings = Record<string, unknown>;

export interface AxisValue {
  label: string;
  settings: Settings;
}

export interface Axis {
  name: string;
  values: AxisValue[];
}

export interface Sweep {
  /** For messages: the file as it was given. */
  file: string;
  name: string;
  /** Path of the base run file. */
  base: string;
  axes: Axis[];
  combine: 'grid' | 'zip';
  /** Applied before those of the axes. */
  common: Settings;
  /** Runs at once. */
  parallel: number;
  /** Workers of a run's gang at most; null: with one run at a time what the base says, else its least. */
  workersMax: number | null;
  metric: SweepMetric | null;
}

export interface SweepMetric {
  kind: 'hr' | 'ndcg';
  k: number;
}

/** One combination of axis values. */
export interface SweepCell {
  /** Label of the value of each axis, by the axis's name. */
  values: Record<string, string>;
  settings: Settings;
}

export const PARALLEL_MAX = 64;
const settings = z.record(z.string().min(1), z.unknown());
const sweepSchema = z.strictObject({
  name: z
    .string()
    .regex(
      /^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$/,
      'expected lower-case letters, digits and "-", at most 48 characters',
    ),
  base: z.string().min(1),
  axes: z.record(z.string().min(1), z.union([z.array(z.unknown()), z.record(z.string().min(1), settings)])),
  combine: z.enum(['grid', 'zip']).default('grid'),
  set: settings.default({}),
  parallel: z.int().min(1).max(PARALLEL_MAX).default(1),
  workers: z.int().min(1).max(10_000).optional(),
  metric: z
    .string()
    .regex(/^(hr|ndcg)@[1-9][0-9]{0,4}$/, 'expected hr@K or ndcg@K')
    .optional(),
});

export function loadSweepFile(file: string): Sweep {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new CliError(
      'badInput',
      `${file}: expected a sweep file (YAML), but ${messageOf(error)}; see deploy/examples`,
    );
  }
  return parseSweepFile(file, text);
}

export function parseSweepFile(file: string, text: string): Sweep {
  const parsed = sweepSchema.safeParse(yamlOf(file, text));
  if (!parsed.success) {
    const lines = parsed.error.issues.map(
      ({ path, message }) => `${file}: ${path.join('.') || 'the file'}: ${message}`,
    );
    throw new CliError('badInput', lines.join('\n'));
  }
  const value = parsed.data;
  const axes = Object.entries(value.axes).map(([name, values]) => axisOf(file, name, values));
  if (axes.length === 0) throw new CliError('badInput', `${file}: axes: expected at least one axis, got none`);
  return {
    file,
    name: value.name,
    base: resolve(dirname(file), value.base),
    axes,
    combine: value.combine,
    common: value.set,
    parallel: value.parallel,
    workersMax: value.workers ?? null,
    metric: value.metric === undefined ? null : metricOf(value.metric),
  };
}

export function metricOf(text: string): SweepMetric {
  const [kind = '', k = ''] = text.split('@');
  return { kind: kind === 'hr' ? 'hr' : 'ndcg', k: Number(k) };
}

export function metricName({ kind, k }: SweepMetric): string {
  return `${kind === 'hr' ? 'HR' : 'NDCG'}@${k}`;
}

/** Every combination; refused before they are made when they are too many. */
export function cellsOf(sweep: Sweep, runsMax: number): SweepCell[] {
  const { axes, combine, file } = sweep;
  const lengths = axes.map(({ values }) => values.length);
  if (combine === 'zip' && new Set(lengths).size > 1) {
    const got = axes.map(({ name, values }) => `${name}: ${values.length}`).join(', ');
    throw new CliError(
      'badInput',
      `${file}: axes: expected as many values of each axis with "combine: zip", got ${got}`,
    );
  }
  const count = combine === 'zip' ? (lengths[0] ?? 0) : lengths.reduce((product, length) => product * length, 1);
  if (count > runsMax) {
    throw new CliError(
      'badInput',
      `${file}: expected at most ${runsMax} runs, got ${count} (${lengths.join(combine === 'zip' ? ' with ' : ' x ')}); ` +
        `leave values out, or allow them with --max-runs ${count}`,
    );
  }
  return Array.from({ length: count }, (_, index) => {
    let rest = index;
    const chosen = axes.map((axis) => axis.values[index]);
    if (combine === 'grid') {
      for (let axis = axes.length - 1; axis >= 0; axis -= 1) {
        const length = lengths[axis] ?? 1;
        chosen[axis] = axes[axis]?.values[rest % length];
        rest = Math.floor(rest / length);
      }
    }
    return {
      values: Object.fromEntries(axes.map(({ name }, axis) => [name, chosen[axis]?.label ?? ''])),
      settings: Object.assign({}, sweep.common, ...chosen.map((value) => value?.settings)) as Settings,
    };
  });
}

function yamlOf(file: string, text: string): unknown {
  try {
    return parseYaml(text);
  } catch (error) {
    if (!(error instanceof YAMLParseError)) throw error;
    const place = error.linePos?.[0];
    throw new CliError(
      'badInput',
      `${file}:${place?.line ?? 1}:${place?.col ?? 1}: ${error.message.split('\n')[0] ?? ''}`,
    );
  }
}

function axisOf(file: string, name: string, values: unknown[] | Record<string, Settings>): Axis {
  const made = Array.isArray(values)
    ? values.map((value) => ({ label: labelOf(value), settings: { [name]: value } }))
    : Object.entries(values).map(([label, group]) => ({ label, settings: group }));
  if (made.length === 0) {
    throw new CliError('badInput', `${file}: axes.${name}: expected at least one value, got none`);
  }
  const labels = made.map(({ label }) => label);
  const repeated = labels.find((label, i) => labels.indexOf(label) !== i);
  if (repeated !== undefined) {
    throw new CliError('badInput', `${file}: axes.${name}: expected different values, got ${repeated} twice`);
  }
  return { name, values: made };
}

function labelOf(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}
