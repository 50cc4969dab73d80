/**
 * What the commands print: data on stdout, progress on stderr.
 *
 * 1. With `-o json` stdout carries JSON only: one document, or one line per record when following.
 * 2. Colour and in-place lines appear only on a terminal, and never with NO_COLOR (https://no-color.org).
 */
import { writeSync } from 'node:fs';

import { type Json } from '../../workflows/contract.js';

export type OutputFormat = 'text' | 'json';

const colourful = (process.stderr.isTTY ?? false) && !process.env['NO_COLOR'] && process.env['TERM'] !== 'dumb';
const terminal = (process.stderr.isTTY ?? false) && process.env['TERM'] !== 'dumb';

function paint(code: string, text: string): string {
  return colourful ? `\u001b[${code}m${text}\u001b[0m` : text;
}
export const bold = (text: string): string => paint('1', text);
export const dim = (text: string): string => paint('2', text);
export const red = (text: string): string => paint('31', text);
export const green = (text: string): string => paint('32', text);
export const yellow = (text: string): string => paint('33', text);

/** Synchronous, so that a pipe holds everything when the process exits right after. */
function writeAll(fd: number, text: string): void {
  let rest = Buffer.from(text, 'utf8');
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === 'EAGAIN') continue;
      // The reader went away (`| head`): there is nobody left to tell.
      if (code === 'EPIPE') return;
      throw error;
    }
  }
}

export function data(text: string): void {
  writeAll(1, `${text}\n`);
}

export function dataJson(value: unknown): void {
  writeAll(1, `${JSON.stringify(value, null, 2)}\n`);
}

export function dataJsonLine(value: unknown): void {
  writeAll(1, `${JSON.stringify(value)}\n`);
}

let liveLine = '';

/** One finished line of progress. */
export function progress(text: string): void {
  clearLive();
  writeAll(2, `${text}\n`);
}

/** A line that the next one replaces; on a pipe it is dropped, since lines that only tick belong on a screen. */
export function liveProgress(text: string): void {
  if (!terminal) return;
  const columns = process.stderr.columns ?? 80;
  const line = text.length >= columns ? `${text.slice(0, columns - 2)}…` : text;
  writeAll(2, `\r\u001b[K${line}`);
  liveLine = line;
}

export function clearLive(): void {
  if (liveLine !== '') writeAll(2, '\r\u001b[K');
  liveLine = '';
}

export interface Column {
  title: string;
  align?: 'left' | 'right';
}

/** A plain-text table; widths follow the content. */
export function table(columns: Column[], rows: string[][]): string {
  const widths = columns.map((column, index) =>
    Math.max(column.title.length, ...rows.map((row) => (row[index] ?? '').length)),
  );
  const line = (cells: string[]): string =>
    columns
      .map((column, index) => {
        const cell = cells[index] ?? '';
        const width = widths[index] ?? 0;
        return column.align === 'right' ? cell.padStart(width) : cell.padEnd(width);
      })
      .join('  ')
      .trimEnd();
  return [line(columns.map((column) => column.title)), ...rows.map(line)].join('\n');
}

export function formatSeconds(seconds: number): string {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** Narrow helper for printing JSON values in tables. */
export function show(value: Json | undefined): string {
  if (value === undefined || value === null) return '-';
  if (typeof value === 'number') return Number.isInteger(value) ? String(value) : value.toPrecision(5);
  return typeof value === 'string' ? value : JSON.stringify(value);
}
