import { expect, it } from 'vitest';

import { pictureOf } from './picture.js';
import type { PanelSpec, Room } from './room.js';

const panel = (title: string, kind: PanelSpec['kind'], unit: PanelSpec['unit'] = 's'): PanelSpec => ({
  ...{ title, kind, unit },
  ...{ description: '', queries: [], next: '' },
});
const room: Room = { uid: 'r', title: 'A <room>', description: '', variables: [], panels: [] };
const range = { startSeconds: 100, endSeconds: 110 };
const line = (legend: string, ...values: number[]) => ({
  legend,
  points: values.map((value, index) => [100 + index * 5, value] as const),
});

it('draws curves from the bottom left to the top right, and says what has no data', () => {
  const svg = pictureOf(
    room,
    [
      { panel: panel('Rising', 'timeseries'), lines: [line('a', 0, NaN, 20)] },
      { panel: panel('Nothing', 'timeseries'), lines: [] },
    ],
    range,
  );
  expect(svg).toContain('A &lt;room>');
  // NaN is left out; 34 is the top and 154 the bottom of a plot.
  expect(svg).toContain('<polyline points="112,154 456,34"');
  expect(svg).toContain('>20.0 s</text>');
  expect(svg.match(/no data/g)).toHaveLength(1);
});

it('draws a histogram as what lies between its bounds', () => {
  const lines = [line('+Inf', 4, 4), line('0.1', 4, 4), line('0.01', 0, 0)];
  const svg = pictureOf(room, [{ panel: panel('Steps', 'heatmap'), lines }], range);
  expect(svg).toContain('>0.1</text>');
  expect(svg).not.toContain('>+Inf</text>');
  expect(svg).not.toContain('>0.01</text>');
});

it('draws last values as bars and rows as cells, darker where larger', () => {
  const svg = pictureOf(
    room,
    [
      { panel: panel('Shares', 'bars', 'percentunit'), lines: [line('half', 1, 0.5), line('quarter', 0, 0.25)] },
      { panel: panel('Rows', 'grid'), lines: [line('rank 0', 2, 4), line('never', 0, 0)] },
    ],
    range,
  );
  expect(svg).toMatch(/width="200" height="13".*>50 %<.*width="100" height="13".*>25 %</);
  expect(svg).toMatch(/fill-opacity="0.5".*fill-opacity="1".*>rank 0</);
  expect(svg).not.toContain('never');
});
