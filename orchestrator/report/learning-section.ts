/** How training went: one curve a job, and how the codebooks are used, level by level. */
import { type Json, type JsonObject } from '../../workflows/contract.js';
import { lineChart, shortNumber, usageGrid } from './charts.js';
import { html, type Html, tableOf } from './html.js';
import { type RunEvidence } from './run-evidence.js';

export function curvesSection({ curves }: RunEvidence): Html {
  if (curves.length === 0) return html`<p class="soft">No job of this run has told a loss.</p>`;
  const pictures = curves.map(({ job, metric, points }) => {
    const last = points.at(-1);
    const end = last === undefined ? '' : ` · ${shortNumber(last.y)} at step ${String(last.x)}`;
    const label = `${metric} of ${job}`;
    return html`<div>
      <h3>${label}</h3>
      ${lineChart(points, { label, xTitle: 'step' })}
      <p class="soft">${points.length} values${end}</p>
    </div>`;
  });
  return html`<div class="columns">${pictures}</div>`;
}

export function codebooksSection({ codes, jobs }: RunEvidence): Html {
  if (codes === null) return html`<p class="soft">This run has no codebooks.</p>`;
  const summary: JsonObject = jobs['codebooks']?.summary ?? {};
  const levels = Array.isArray(summary['levels']) ? summary['levels'] : [];
  const pictures = codes.counts.map((counts, level) => {
    const used = counts.filter((count) => count > 0).length;
    const label = `level ${level + 1}: ${used} of ${codes.codes} codes in use`;
    return html`<div>
      <h3>${label}</h3>
      ${usageGrid(counts, { label })}
    </div>`;
  });
  const rows = codes.counts.map((counts, level) => [
    level + 1,
    Math.max(...counts),
    numberIn(levels[level], 'usage'),
    numberIn(levels[level], 'perplexity'),
    numberIn(levels[level], 'deadCodes'),
  ]);
  const numbers = ['most items of one code', 'usage (nearest)', 'perplexity (nearest)', 'never used (nearest)'];
  return html`<p>
      ${codes.items} items, ${codes.counts.length} levels of ${codes.codes} codes; a cell is a code of the unique ids,
      darker with more items. Unique before the fit: ${numberIn(summary, 'uniqueRateBeforeFit')}; largest bucket
      ${numberIn(summary, 'largestBucket')}; relative error ${numberIn(summary, 'relativeError')}.
    </p>
    <div class="columns">${pictures}</div>
    ${tableOf([{ title: 'level', isNumber: true }, ...numbers.map((title) => ({ title, isNumber: true }))], rows)}`;
}

function numberIn(object: Json | undefined, field: string): string {
  const value = typeof object === 'object' && object !== null && !Array.isArray(object) ? object[field] : undefined;
  return typeof value === 'number' ? shortNumber(Number(value.toFixed(4))) : '–';
}
