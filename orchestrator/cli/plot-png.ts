/** A plot as a PNG, drawn here: pictures of bars and labels need no font file and no drawing library. */
import { glyphOf, GLYPH_WIDTH } from './bitmap-font.js';
import { COLOURS, type Colour, type Plot, TEXT_WIDTH } from './plot.js';
import { encodePng } from './png.js';

/** Pixels of the picture for one of the plot: letters of seven rows are small on today's screens. */
const SCALE = 2;
const WHITE = 255;

export function pngOf({ width, height, shapes }: Plot): Buffer {
  const canvas = new Canvas(width * SCALE, height * SCALE);
  for (const shape of shapes) {
    if (shape.type === 'rect') canvas.fill(shape, shape.colour);
    else canvas.write(shape, shape.text, shape.colour);
  }
  return encodePng(canvas);
}

class Canvas {
  readonly pixels: Uint8Array;

  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    this.pixels = new Uint8Array(width * height * 3).fill(WHITE);
  }

  /** In the plot's pixels; what lies outside is left out. */
  fill(rect: { x: number; y: number; width: number; height: number }, colour: Colour): void {
    const right = Math.min(this.width, (rect.x + rect.width) * SCALE);
    const bottom = Math.min(this.height, (rect.y + rect.height) * SCALE);
    for (let y = Math.max(0, rect.y * SCALE); y < bottom; y += 1) {
      for (let x = Math.max(0, rect.x * SCALE); x < right; x += 1) {
        this.pixels.set(COLOURS[colour], (y * this.width + x) * 3);
      }
    }
  }

  write({ x, y }: { x: number; y: number }, text: string, colour: Colour): void {
    [...text].forEach((character, i) => {
      glyphOf(character).forEach((bits, row) => {
        for (let column = 0; column < GLYPH_WIDTH; column += 1) {
          if (((bits >> (GLYPH_WIDTH - 1 - column)) & 1) === 0) continue;
          this.fill({ x: x + i * TEXT_WIDTH + column, y: y + row, width: 1, height: 1 }, colour);
        }
      });
    });
  }
}
