/**
 * Plots of bars as a list of shapes, which `plot-svg.ts` and `plot-png.ts` draw alike: what a page shows is what the picture file shows.
 *
 * 1. Bars begin at zero: a difference looks as large as it is.
 * 2. Positions are whole pixels; text is monospaced, `TEXT_WIDTH` pixels a character.
 */
export const TEXT_WIDTH = 6;
export const TEXT_HEIGHT = 7;
const ROW_HEIGHT = 18;
const BAR_HEIGHT = 11;
const BARS_WIDTH = 420;
const MARGIN = 12;
const VALUE_CHARACTERS = 8;
const LABEL_CHARACTERS_MAX = 60;

export type Colour = 'ink' | 'faint' | 'bar' | 'marked' | 'reference';
export const COLOURS: Record<Colour, [number, number, number]> = {
  ink: [32, 32, 32],
  faint: [208, 208, 208],
  bar: [58, 110, 165],
  marked: [201, 104, 31],
  reference: [150, 30, 60],
};

export type Shape =
  | { type: 'rect'; x: number; y: number; width: number; height: number; colour: Colour }
  /** `y` is the top of the letters. */
  | { type: 'text'; x: number; y: number; text: string; colour: Colour };

export interface Plot {
  width: number;
  height: number;
  shapes: Shape[];
}

export interface Bar {
  label: string;
  /** Null: there is none; the row says so. */
  value: number | null;
  marked?: boolean;
}

export interface BarChart {
  title: string;
  bars: Bar[];
  /** A line across the bars, such as a baseline's value. */
  reference: { label: string; value: number } | null;
}

export function barPlot({ title, bars, reference }: BarChart): Plot {
  const labels = bars.map(({ label }) => shortened(label));
  const labelWidth = Math.max(...labels.map((label) => label.length), 1) * TEXT_WIDTH;
  const left = MARGIN + labelWidth + MARGIN;
  const most = Math.max(...bars.map(({ value }) => value ?? 0), reference?.value ?? 0);
  const lengthOf = (value: number): number => (most === 0 ? 0 : Math.round((Math.max(value, 0) / most) * BARS_WIDTH));
  const top = MARGIN + ROW_HEIGHT;
  const bottom = top + bars.length * ROW_HEIGHT;
  const shapes: Shape[] = [{ type: 'text', x: MARGIN, y: MARGIN, text: title, colour: 'ink' }];
  bars.forEach(({ value, marked }, i) => {
    const y = top + i * ROW_HEIGHT;
    const textY = y + Math.floor((BAR_HEIGHT - TEXT_HEIGHT) / 2);
    const length = value === null ? 0 : lengthOf(value);
    shapes.push(
      { type: 'text', x: MARGIN, y: textY, text: labels[i] ?? '', colour: 'ink' },
      { type: 'rect', x: left, y, width: length, height: BAR_HEIGHT, colour: marked === true ? 'marked' : 'bar' },
      { type: 'text', x: left + length + 6, y: textY, text: value?.toFixed(4) ?? 'none', colour: 'ink' },
    );
  });
  shapes.push({ type: 'rect', x: left - 1, y: top - 3, width: 1, height: bottom - top, colour: 'faint' });
  if (reference !== null) {
    const x = left + lengthOf(reference.value);
    const text = `${reference.label} ${reference.value.toFixed(4)}`;
    const textX = Math.max(MARGIN, x - text.length * TEXT_WIDTH);
    shapes.push(
      { type: 'rect', x, y: top - 3, width: 1, height: bottom - top, colour: 'reference' },
      { type: 'text', x: textX, y: bottom, text, colour: 'reference' },
    );
  }
  const titleWidth = MARGIN * 2 + title.length * TEXT_WIDTH;
  return {
    width: Math.max(left + BARS_WIDTH + VALUE_CHARACTERS * TEXT_WIDTH + MARGIN, titleWidth),
    height: bottom + ROW_HEIGHT + MARGIN,
    shapes,
  };
}

function shortened(label: string): string {
  return label.length <= LABEL_CHARACTERS_MAX ? label : `${label.slice(0, LABEL_CHARACTERS_MAX - 2)}..`;
}
