/**
 * A room as a picture (SVG), drawn from what a Prometheus answers to its panels: a look at a run where there is no Grafana.
 *
 * Every panel is drawn, also one without data: it then says so. Colours tell series apart within a panel only.
 */
import type { PanelSpec, Room, Unit } from './room.js';

/** One series of a panel: its legend, and values by time in seconds. */
export interface Line {
  legend: string;
  points: readonly (readonly [seconds: number, value: number])[];
}

export interface PanelData {
  panel: PanelSpec;
  lines: readonly Line[];
}

export interface PictureRange {
  startSeconds: number;
  endSeconds: number;
}

const PANEL = { width: 470, height: 210, gap: 14 };
const PLOT = { left: 112, top: 34, width: 344, height: 120 };
const COLOURS = ['#3b6fb6', '#d98032', '#4f9a5b', '#b8474b', '#7d62a8', '#8a6d5a', '#c77bb0', '#7c7c7c'];
const LEGEND_ENTRIES_MAX = 6;
const BARS_MAX = 8;
const NAME_LENGTH_MAX = 30;
const ROWS_MAX = 16;

export function pictureOf(room: Room, panels: readonly PanelData[], range: PictureRange): string {
  const rows = Math.ceil(panels.length / 2);
  const width = 2 * PANEL.width + 3 * PANEL.gap;
  const height = 48 + rows * (PANEL.height + PANEL.gap);
  const drawn = panels.map((data, index) => {
    const x = PANEL.gap + (index % 2) * (PANEL.width + PANEL.gap);
    const y = 48 + Math.floor(index / 2) * (PANEL.height + PANEL.gap);
    return `<g transform="translate(${String(x)} ${String(y)})">${panelDrawn(data, range)}</g>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${String(width)} ${String(height)}" font-family="sans-serif" font-size="11">`,
    `<rect width="100%" height="100%" fill="#f4f5f7"/>`,
    text({ x: PANEL.gap, y: 30, size: 17 }, room.title),
    ...drawn,
    '</svg>',
    '',
  ].join('\n');
}

function panelDrawn(data: PanelData, range: PictureRange): string {
  const { panel, lines } = data;
  const frame = `<rect width="${String(PANEL.width)}" height="${String(PANEL.height)}" rx="4" fill="#fff" stroke="#d8dade"/>`;
  const title = text({ x: 12, y: 20, size: 13 }, panel.title);
  if (lines.length === 0) return `${frame}${title}${text({ x: 12, y: 60 }, 'no data')}`;
  const isOfNow = panel.kind === 'stat' || panel.kind === 'bars';
  const isOfRows = panel.kind === 'states' || panel.kind === 'grid' || panel.kind === 'heatmap';
  const body = isOfNow ? bars(data) : isOfRows ? cells(data, range) : curves(data, range);
  return `${frame}${title}${body}`;
}

function curves({ panel, lines }: PanelData, range: PictureRange): string {
  const values = lines.flatMap(({ points }) => points.map(([, value]) => value)).filter(Number.isFinite);
  const top = Math.max(...values, 0);
  const bottom = Math.min(...values, 0);
  const y = (value: number): number =>
    PLOT.top + PLOT.height * (top === bottom ? 1 : 1 - (value - bottom) / (top - bottom));
  const paths = lines.map(({ points }, index) => {
    const finite = points.filter(([, value]) => Number.isFinite(value));
    const corners = finite.map(([seconds, value]) => `${fixed(xAt(seconds, range))},${fixed(y(value))}`);
    return `<polyline points="${corners.join(' ')}" fill="none" stroke="${colour(index)}" stroke-width="1.5"/>`;
  });
  const axis = [top, bottom].map((value) =>
    text({ x: PLOT.left - 6, y: y(value) + 4, anchor: 'end' }, shown(value, panel.unit)),
  );
  const ground = `<path d="M${String(PLOT.left)} ${fixed(y(0))}h${String(PLOT.width)}" stroke="#d8dade"/>`;
  return [ground, ...paths, ...axis, timeAxis(range), legend(lines)].join('');
}

/** The last value of each series. */
function bars({ panel, lines }: PanelData): string {
  const last = lines.slice(0, BARS_MAX).map(({ legend: name, points }) => ({ name, value: points.at(-1)?.[1] ?? NaN }));
  const top = Math.max(...last.map(({ value }) => value).filter(Number.isFinite), Number.MIN_VALUE);
  return last
    .map(({ name, value }, index) => {
      const y = 42 + index * 20;
      const width = Number.isFinite(value) ? Math.max(1, (200 * value) / top) : 0;
      const bar = `<rect x="190" y="${String(y - 10)}" width="${fixed(width)}" height="13" fill="${colour(index)}"/>`;
      return text({ x: 184, y, anchor: 'end' }, name) + bar + text({ x: 194 + width, y }, shown(value, panel.unit));
    })
    .join('');
}

/** A row for each series, darker where the value is larger. */
function cells({ panel, lines }: PanelData, range: PictureRange): string {
  const all = panel.kind === 'heatmap' ? byBucket(lines) : lines;
  const values = all.flatMap(({ points }) => points.map(([, value]) => value)).filter(Number.isFinite);
  const top = Math.max(...values, Number.MIN_VALUE);
  const shownLines = all.filter(({ points }) => points.some(([, value]) => value > 0)).slice(0, ROWS_MAX);
  const height = Math.min(18, PLOT.height / Math.max(shownLines.length, 1));
  const rows = shownLines.map(({ legend: name, points }, index) => {
    const y = PLOT.top + index * height;
    const drawn = stretches(points, top).map(({ from, to, opacity }) => {
      const [x, width] = [xAt(from, range), xAt(Math.min(to, range.endSeconds), range) - xAt(from, range)];
      return `<rect x="${fixed(x)}" y="${fixed(y)}" width="${fixed(width)}" height="${fixed(height - 1)}" fill="#3b6fb6" fill-opacity="${fixed(opacity)}"/>`;
    });
    return (
      drawn.join('') + text({ x: PLOT.left - 4, y: y + height - 2, anchor: 'end', size: Math.min(9, height) }, name)
    );
  });
  return rows.join('') + timeAxis(range);
}

/** What lies between two bounds of a histogram, from the sums up to each bound; the slowest on top. */
function byBucket(lines: readonly Line[]): Line[] {
  const bound = ({ legend: le }: Line): number => (le === '+Inf' ? Infinity : Number(le));
  const rising = [...lines].sort((a, b) => (bound(a) < bound(b) ? -1 : 1));
  const between = rising.map(({ legend: le, points }, index) => {
    const below = new Map(rising[index - 1]?.points);
    return {
      legend: le,
      points: points.map(([seconds, value]) => [seconds, value - (below.get(seconds) ?? 0)] as const),
    };
  });
  return between.reverse();
}

/** Neighbours of about the same value as one. */
function stretches(points: Line['points'], top: number): { from: number; to: number; opacity: number }[] {
  const merged: { from: number; to: number; opacity: number }[] = [];
  for (const [index, [from, value]] of points.entries()) {
    const to = points[index + 1]?.[0] ?? from + 1;
    const opacity = Number.isFinite(value) ? Math.round((20 * Math.max(0, value)) / top) / 20 : 0;
    const last = merged.at(-1);
    if (last !== undefined && last.opacity === opacity) last.to = to;
    else merged.push({ from, to, opacity });
  }
  return merged.filter(({ opacity }) => opacity > 0);
}

function timeAxis({ startSeconds, endSeconds }: PictureRange): string {
  const y = PLOT.top + PLOT.height + 15;
  const last = text({ x: PLOT.left + PLOT.width, y, anchor: 'end' }, shown(endSeconds - startSeconds, 's'));
  return text({ x: PLOT.left, y }, '0 s') + last;
}

function legend(lines: readonly Line[]): string {
  const entries = lines.slice(0, LEGEND_ENTRIES_MAX).map(({ legend: name }, index) => {
    const x = 12 + (index % 3) * 152;
    const y = PLOT.top + PLOT.height + 32 + Math.floor(index / 3) * 15;
    const mark = `<rect x="${String(x)}" y="${String(y - 8)}" width="8" height="8" fill="${colour(index)}"/>`;
    return mark + text({ x: x + 12, y, size: 10 }, name);
  });
  return entries.join('');
}

function xAt(seconds: number, { startSeconds, endSeconds }: PictureRange): number {
  return PLOT.left + (PLOT.width * (seconds - startSeconds)) / Math.max(endSeconds - startSeconds, 1e-9);
}

interface TextPlace {
  x: number;
  y: number;
  size?: number;
  anchor?: 'start' | 'end';
}

function text({ x, y, size = 11, anchor = 'start' }: TextPlace, content: string): string {
  const short =
    content.length > NAME_LENGTH_MAX && anchor === 'end' ? `${content.slice(0, NAME_LENGTH_MAX - 1)}…` : content;
  const safe = short.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  return `<text x="${fixed(x)}" y="${fixed(y)}" font-size="${fixed(size)}" text-anchor="${anchor}" fill="#2b2f36">${safe}</text>`;
}

function shown(value: number, unit: Unit): string {
  if (!Number.isFinite(value)) return '–';
  if (unit === 'percentunit') return `${(100 * value).toFixed(0)} %`;
  if (unit === 'bytes') return `${(value / 2 ** 20).toFixed(0)} MiB`;
  const digits = Math.abs(value) >= 100 || value === 0 ? 0 : Math.abs(value) >= 1 ? 1 : 3;
  const suffix = unit === 's' ? ' s' : unit === 'ops' || unit === 'reqps' ? ' /s' : '';
  return `${value.toFixed(digits)}${suffix}`;
}

const fixed = (value: number): string => String(Math.round(value * 100) / 100);
const colour = (index: number): string => COLOURS[index % COLOURS.length] ?? '#000';
