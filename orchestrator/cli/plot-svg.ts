/** A plot as an SVG element for a page: no script, no outside file. */
import { COLOURS, type Colour, type Plot, TEXT_HEIGHT, TEXT_WIDTH } from './plot.js';

export function svgOf({ width, height, shapes }: Plot): string {
  const drawn = shapes.map((shape) => {
    const fill = `fill="${hex(shape.colour)}"`;
    if (shape.type === 'rect') {
      return `<rect x="${shape.x}" y="${shape.y}" width="${shape.width}" height="${shape.height}" ${fill}/>`;
    }
    // The length is given, so that any monospaced font takes the place that the layout has for it.
    const length = shape.text.length * TEXT_WIDTH;
    return `<text x="${shape.x}" y="${shape.y + TEXT_HEIGHT}" textLength="${length}" ${fill}>${escapeMarkup(shape.text)}</text>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="monospace" font-size="10">`,
    ...drawn,
    '</svg>',
  ].join('\n');
}

export function escapeMarkup(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}

function hex(colour: Colour): string {
  return `#${COLOURS[colour].map((part) => part.toString(16).padStart(2, '0')).join('')}`;
}
