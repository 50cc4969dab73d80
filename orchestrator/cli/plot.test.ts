import { inflateSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';

import { glyphOf, GLYPH_WIDTH } from './bitmap-font.js';
import { barPlot, COLOURS } from './plot.js';
import { pngOf } from './plot-png.js';
import { svgOf } from './plot-svg.js';
import { crc32, encodePng } from './png.js';

/** Reads back what `encodePng` wrote: every chunk's length and checksum, then the pixels. */
function decoded(png: Buffer): { width: number; height: number; pixels: Buffer } {
  expect(png.subarray(0, 8).toString('latin1')).toBe('\x89PNG\r\n\x1a\n');
  const chunks = new Map<string, Buffer>();
  for (let at = 8; at < png.length;) {
    const length = png.readUInt32BE(at);
    const named = png.subarray(at + 4, at + 8 + length);
    expect(png.readUInt32BE(at + 8 + length)).toBe(crc32(named));
    chunks.set(named.toString('latin1', 0, 4), named.subarray(4));
    at += length + 12;
  }
  expect([...chunks.keys()]).toEqual(['IHDR', 'IDAT', 'IEND']);
  const header = chunks.get('IHDR') ?? Buffer.alloc(13);
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)];
  const rows = inflateSync(chunks.get('IDAT') ?? Buffer.alloc(0));
  const pixels = Buffer.alloc(width * height * 3);
  for (let row = 0; row < height; row += 1) {
    expect(rows[row * (width * 3 + 1)]).toBe(0);
    rows.copy(pixels, row * width * 3, row * (width * 3 + 1) + 1, (row + 1) * (width * 3 + 1));
  }
  return { width, height, pixels };
}

describe('png', () => {
  test('checksums are those of the standard', () => {
    expect(crc32(Buffer.from('IEND'))).toBe(0xae426082);
    expect(crc32(Buffer.from('123456789'))).toBe(0xcbf43926);
  });

  test('pixels come back', () => {
    const pixels = Uint8Array.from({ length: 5 * 3 * 3 }, (_, i) => (i * 37) % 256);
    expect(decoded(encodePng({ width: 5, height: 3, pixels }))).toEqual({
      ...{ width: 5, height: 3 },
      pixels: Buffer.from(pixels),
    });
    expect(() => encodePng({ width: 5, height: 4, pixels })).toThrow(/expected 5 x 4 x 3 bytes of pixels, got 45/);
  });
});

describe('bars', () => {
  const plot = barPlot({
    title: 'a <title>',
    bars: [
      { label: 'one', value: 0.5, marked: true },
      { label: 'two', value: 0.25 },
      { label: 'three', value: null },
    ],
    reference: { label: 'baseline', value: 1 },
  });

  test('are as long as their values, from zero on', () => {
    const lengths = plot.shapes.flatMap((shape) =>
      shape.type === 'rect' && ['bar', 'marked'].includes(shape.colour) ? [shape.width] : [],
    );
    expect(lengths).toEqual([210, 105, 0]);
    for (const shape of plot.shapes) {
      const width = shape.type === 'rect' ? shape.width : shape.text.length * 6;
      expect(shape.x + width).toBeLessThanOrEqual(plot.width);
    }
  });

  test('are the same in the page and in the picture', () => {
    const svg = svgOf(plot);
    expect(svg).toContain('a &lt;title&gt;');
    expect(svg).toContain('width="210"');
    const { width, height, pixels } = decoded(pngOf(plot));
    expect([width, height]).toEqual([plot.width * 2, plot.height * 2]);
    const marked = Buffer.from(COLOURS.marked).toString('hex');
    let found = 0;
    for (let at = 0; at < pixels.length; at += 3) if (pixels.toString('hex', at, at + 3) === marked) found += 1;
    expect(found).toBe(210 * 11 * 4);
  });

  test('letters fit their five by seven pixels, and are different', () => {
    const characters = [...'0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ.,:;-_=+*/%()[]{}<>@#"\'!?'];
    const glyphs = characters.map(glyphOf);
    for (const rows of glyphs) {
      expect(rows).toHaveLength(7);
      expect(rows.every((bits) => bits < 1 << GLYPH_WIDTH)).toBe(true);
    }
    expect(new Set(glyphs.map((rows) => rows.join())).size).toBe(characters.length);
    expect(glyphOf('a')).toEqual(glyphOf('A'));
    expect(glyphOf('é')).toEqual(glyphOf('☃'));
  });
});
