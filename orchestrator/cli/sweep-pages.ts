/**
 * The files of a sweep, for people: `index.html` (self-contained: table and plots), the same plots as PNG, `report.json`.
 *
 * 1. Each file is replaced whole; a sweep that is run again writes the same folder.
 */
import { join } from 'node:path';

import { replaceFile } from '../artifacts/durable-file.js';
import { type BarChart, barPlot } from './plot.js';
import { pngOf } from './plot-png.js';
import { escapeMarkup, svgOf } from './plot-svg.js';
import { metricName } from './sweep-file.js';
import { changeOf, fixed, MODEL_ROW, type SweepReport, type SweepRow } from './sweep-report.js';

export interface NamedChart extends BarChart {
  /** File name without its ending. */
  name: string;
}

/** One chart of all runs, and one for each axis of several values: the mean over the runs that have the value. */
export function chartsOf(report: SweepReport): NamedChart[] {
  const { rows, metric, axes, best } = report;
  const title = `${report.name}: ${metricName(metric)} of the model on test events`;
  const reference = referenceOf(report);
  const bars = rows.map((row) => ({
    label: axes.map((axis) => row.values[axis] ?? '').join(' / '),
    value: valueOf(row, report),
    marked: row.runId === best,
  }));
  const charts: NamedChart[] = [{ name: 'runs', title, bars, reference }];
  if (axes.length < 2) return charts;
  axes.forEach((axis, i) => {
    const labels = [...new Set(rows.map(({ values }) => values[axis] ?? ''))];
    const means = labels.map((label) => {
      const values = rows.filter((row) => row.values[axis] === label).map((row) => valueOf(row, report));
      const known = values.filter((value) => value !== null);
      return { label, value: known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length };
    });
    charts.push({ name: `axis-${i + 1}`, title: `mean by ${axis}`, bars: means, reference });
  });
  return charts;
}

/** Answers the folder's page. */
export async function writeSweepPages(folder: string, report: SweepReport): Promise<string> {
  const plots = chartsOf(report).map((chart) => ({ name: chart.name, plot: barPlot(chart) }));
  for (const { name, plot } of plots) await replaceFile(join(folder, `${name}.png`), pngOf(plot));
  await replaceFile(join(folder, 'report.json'), `${JSON.stringify(report, null, 2)}\n`);
  const page = join(folder, 'index.html');
  await replaceFile(
    page,
    pageOf(
      report,
      plots.map(({ plot }) => svgOf(plot)),
    ),
  );
  return page;
}

function pageOf(report: SweepReport, plots: string[]): string {
  const { axes, rows, metric, name, choice, best } = report;
  const baselines = Object.keys(rows.find(({ state }) => state === 'done')?.test.ndcg ?? {});
  const cells = (tag: string, values: string[]): string =>
    `<tr>${values.map((value) => `<${tag}>${escapeMarkup(value)}</${tag}>`).join('')}</tr>`;
  const head = [
    ...axes,
    ...baselines.flatMap((row) => [`${row} HR@${metric.k}`, `NDCG@${metric.k}`]),
    ...(report.heldAgainst === null ? [] : [`change of ${metricName(metric)}`]),
    'validation',
    'run',
    'result digest',
  ];
  const body = rows.map((row) =>
    cells('td', [
      ...axes.map((axis) => row.values[axis] ?? ''),
      ...baselines.flatMap((base) => [fixed(row.test.hr[base]), fixed(row.test.ndcg[base])]),
      ...(report.heldAgainst === null ? [] : [changeOf(row, report)]),
      fixed(row.validation ?? undefined),
      `${row.runId}${row.runId === best ? ' (best)' : ''}${row.state === 'done' ? '' : ` (${row.state}: ${row.failure ?? ''})`}`,
      row.resultDigest?.slice(0, 16) ?? '-',
    ]),
  );
  return [
    '<!doctype html>',
    `<html lang="en"><head><meta charset="utf-8"><title>${escapeMarkup(name)}</title>`,
    '<style>body{font-family:sans-serif;margin:2em}table{border-collapse:collapse}',
    'td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left;font-variant-numeric:tabular-nums}</style></head><body>',
    `<h1>${escapeMarkup(name)}</h1>`,
    `<p>${escapeMarkup(choice)}. Metrics of the test events.</p>`,
    `<table>${cells('th', head)}${body.join('\n')}</table>`,
    ...plots.map((plot) => `<p>${plot}</p>`),
    '</body></html>',
    '',
  ].join('\n');
}

function valueOf(row: SweepRow, { metric }: SweepReport): number | null {
  return row.test[metric.kind][MODEL_ROW] ?? null;
}

/** The co-occurrence baseline, where it is the same for all runs. */
function referenceOf({ rows, metric }: SweepReport): BarChart['reference'] {
  const values = new Set(
    rows.map(({ test }) => test[metric.kind]['cooccurrence']).filter((value) => value !== undefined),
  );
  const [value] = values;
  return values.size === 1 && value !== undefined ? { label: 'co-occurrence', value } : null;
}
