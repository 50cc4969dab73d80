/** Pictures as inline SVG: lines, dots with intervals, one stacked bar, and a grid of cells. Colours come from the style sheet. */
import { html, type Html } from './html.js';

export interface Point {
  x: number;
  y: number;
}

const WIDTH = 640;
const HEIGHT = 220;
const MARGIN = { left: 56, right: 12, top: 12, bottom: 28 };
const POINTS_MAX = 320;

/** One line over x; more points than pixels are averaged. */
export function lineChart(points: readonly Point[], { label, xTitle }: { label: string; xTitle: string }): Html {
  const shown = thinned(points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y)));
  if (shown.length === 0) return html`<p class="soft">No values of ${label}.</p>`;
  const [xs, ys] = [rangeOf(shown.map(({ x }) => x)), rangeOf(shown.map(({ y }) => y))];
  const left = (x: number): number => MARGIN.left + placeIn(x, xs) * (WIDTH - MARGIN.left - MARGIN.right);
  const top = (y: number): number => MARGIN.top + (1 - placeIn(y, ys)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const path = shown.map(({ x, y }) => `${left(x).toFixed(1)},${top(y).toFixed(1)}`).join(' ');
  const levels = [0, 0.5, 1].map((share) => ys.low + share * (ys.high - ys.low));
  const grid = levels.map(
    (y) =>
      html`<line
          x1="${MARGIN.left}"
          x2="${WIDTH - MARGIN.right}"
          y1="${top(y)}"
          y2="${top(y)}"
          stroke="var(--line)"
        /><text x="${MARGIN.left - 6}" y="${top(y) + 4}" text-anchor="end">${shortNumber(y)}</text>`,
  );
  return html`<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${label}">
    ${grid}
    <polyline points="${path}" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linejoin="round" />
    <text x="${MARGIN.left}" y="${HEIGHT - 8}">${shortNumber(xs.low)}</text>
    <text x="${WIDTH - MARGIN.right}" y="${HEIGHT - 8}" text-anchor="end">${xTitle} ${shortNumber(xs.high)}</text>
  </svg>`;
}

export interface IntervalRow {
  name: string;
  value: number;
  low: number;
  high: number;
}

const ROW_HEIGHT = 26;

/** A dot for each row, its interval as a line, from 0 on. */
export function intervalChart(rows: readonly IntervalRow[], { label }: { label: string }): Html {
  const highest = Math.max(1e-9, ...rows.map(({ value, high }) => Math.max(value, high)));
  const left = (value: number): number => 110 + (value / highest) * (WIDTH - 180);
  const height = rows.length * ROW_HEIGHT + 8;
  const marks = rows.map(({ name, value, low, high }, row) => {
    const y = row * ROW_HEIGHT + ROW_HEIGHT / 2 + 4;
    return html`<text x="102" y="${y + 4}" text-anchor="end">${name}</text>
      <line x1="${left(low)}" x2="${left(high)}" y1="${y}" y2="${y}" stroke="currentColor" stroke-width="2" />
      <circle cx="${left(value)}" cy="${y}" r="4.5" fill="currentColor" /><text x="${left(high) + 8}" y="${y + 4}"
        >${value.toFixed(4)}</text
      >`;
  });
  return html`<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${label}">${marks}</svg>`;
}

/** How often each code is used, as cells of a grid in the order of the codes; none at all is left empty and bordered. */
export function usageGrid(counts: ArrayLike<number>, { label }: { label: string }): Html {
  const columns = Math.max(1, Math.ceil(Math.sqrt(counts.length)));
  const rows = Math.ceil(counts.length / columns);
  const most = Math.max(1, ...Array.from(counts));
  const drawn = Array.from(counts, (count, code) => {
    const [x, y] = [code % columns, Math.floor(code / columns)];
    const shade = count === 0 ? 0 : 0.15 + 0.85 * Math.sqrt(count / most);
    const edge = count === 0 ? 'var(--bad)' : 'none';
    return html`<rect
      x="${x + 0.05}"
      y="${y + 0.05}"
      width=".9"
      height=".9"
      fill="currentColor"
      fill-opacity="${shade.toFixed(2)}"
      stroke="${edge}"
      stroke-width=".08"
      ><title>code ${code}: ${count} items</title></rect
    >`;
  });
  return html`<svg viewBox="0 0 ${columns} ${rows}" role="img" aria-label="${label}">${drawn}</svg>`;
}

export interface BarPart {
  name: string;
  value: number;
  colour: string;
}

export function stackedBar(parts: readonly BarPart[], { label }: { label: string }): Html {
  const total = Math.max(
    1e-9,
    parts.reduce((sum, { value }) => sum + value, 0),
  );
  let left = 0;
  const drawn = parts.map(({ name, value, colour }) => {
    const width = (value / total) * WIDTH;
    const part = html`<rect x="${left.toFixed(2)}" y="0" width="${width.toFixed(2)}" height="22" fill="${colour}"
      ><title>${name}: ${value.toFixed(1)} s</title></rect
    >`;
    left += width;
    return part;
  });
  return html`<svg viewBox="0 0 ${WIDTH} 22" role="img" aria-label="${label}">${drawn}</svg>`;
}

/** Means of neighbouring points. */
function thinned(points: readonly Point[]): Point[] {
  const size = Math.ceil(points.length / POINTS_MAX);
  if (size <= 1) return [...points];
  return Array.from({ length: Math.ceil(points.length / size) }, (_, i) => {
    const part = points.slice(i * size, (i + 1) * size);
    const mean = (of: (point: Point) => number): number =>
      part.reduce((sum, point) => sum + of(point), 0) / part.length;
    return { x: mean(({ x }) => x), y: mean(({ y }) => y) };
  });
}

interface Range {
  low: number;
  high: number;
}

function rangeOf(values: readonly number[]): Range {
  return values.reduce(({ low, high }, value) => ({ low: Math.min(low, value), high: Math.max(high, value) }), {
    low: Infinity,
    high: -Infinity,
  });
}

function placeIn(value: number, { low, high }: Range): number {
  return high === low ? 0.5 : (value - low) / (high - low);
}

export function shortNumber(value: number): string {
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
}
