/**
 * Cells of delimited lines; with quotes as RFC 4180 has them.
 *
 * 1. A quoted cell may hold separators, line ends and doubled quotes. A quote inside an unquoted cell, or anything but a separator
 *    behind a closing one, is malformed.
 * 2. A record that is still open after 100 lines is not one: its first line is malformed, and the others are read again.
 */
const RECORD_LINES_MAX = 100;

export interface DelimitedRecord {
  /** Of its first line. */
  line: number;
  text: string;
  /** Null: the quoting is malformed. */
  cells: string[] | null;
}

/** Cells of one whole record, or null where its quotes are malformed. */
export function quotedCells(text: string, separator: string): string[] | null {
  if (!text.includes('"')) return text.split(separator);
  const cells: string[] = [];
  for (let at = 0; ;) {
    let end: number;
    if (text[at] === '"') {
      const closing = closingQuote(text, at + 1);
      if (closing === null) return null;
      cells.push(text.slice(at + 1, closing).replaceAll('""', '"'));
      end = closing + 1;
      if (end < text.length && !text.startsWith(separator, end)) return null;
    } else {
      const next = text.indexOf(separator, at);
      end = next === -1 ? text.length : next;
      const cell = text.slice(at, end);
      if (cell.includes('"')) return null;
      cells.push(cell);
    }
    if (end >= text.length) return cells;
    at = end + separator.length;
  }
}

/** Joins lines to records: a record goes on while its quotes are odd in number. */
export class RecordJoiner {
  private pending: string[] = [];
  private firstLine = 0;
  private open = false;

  constructor(
    private readonly separator: string,
    private readonly visit: (record: DelimitedRecord) => void,
  ) {}

  add(text: string, number: number): void {
    if (!this.open && !text.includes('"')) {
      this.visit({ line: number, text, cells: text.split(this.separator) });
      return;
    }
    if (!this.open) this.firstLine = number;
    this.pending.push(text);
    if (hasOddQuotes(text)) this.open = !this.open;
    if (!this.open) {
      const record = this.pending.join('\n');
      this.pending = [];
      this.visit({ line: this.firstLine, text: record, cells: quotedCells(record, this.separator) });
    } else if (this.pending.length === RECORD_LINES_MAX) {
      this.giveUp();
    }
  }

  /** After the last line. */
  end(): void {
    while (this.open) this.giveUp();
  }

  private giveUp(): void {
    const [first = '', ...rest] = this.pending;
    const number = this.firstLine;
    this.pending = [];
    this.open = false;
    this.visit({ line: number, text: first, cells: null });
    rest.forEach((text, i) => this.add(text, number + 1 + i));
  }
}

function closingQuote(text: string, from: number): number | null {
  for (let at = text.indexOf('"', from); at !== -1; at = text.indexOf('"', at + 2)) {
    if (text[at + 1] !== '"') return at;
  }
  return null;
}

function hasOddQuotes(text: string): boolean {
  let odd = false;
  for (let at = text.indexOf('"'); at !== -1; at = text.indexOf('"', at + 1)) odd = !odd;
  return odd;
}
