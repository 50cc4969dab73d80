/**
 * Python literals (`{'asin': '0001', 'categories': [['Books']], 'price': 1.5}`), as the metadata of 2014 has them: dictionaries, lists,
 * tuples, strings, numbers, True, False and None.
 *
 * 1. Nothing is evaluated: what is not a literal is undefined, as from `parseJson`.
 */
const DEPTH_MAX = 64;
const SIMPLE_ESCAPES: Record<string, string> = {
  ...{ "'": "'", '"': '"', '\\': '\\', '\n': '' },
  ...{ n: '\n', t: '\t', r: '\r', b: '\b', f: '\f', v: '\v', a: '\x07' },
};
const HEX_ESCAPES: Record<string, number> = { x: 2, u: 4, U: 8 };
const WORDS: Record<string, boolean | null> = { True: true, False: false, None: null };

class NotALiteral extends Error {}

export function parsePythonLiteral(text: string): unknown {
  const reader = new Reader(text);
  try {
    const value = reader.value(0);
    return reader.isAtEnd() ? value : undefined;
  } catch (error) {
    if (error instanceof NotALiteral) return undefined;
    throw error;
  }
}

class Reader {
  private at = 0;

  constructor(private readonly text: string) {}

  isAtEnd(): boolean {
    this.skipSpace();
    return this.at === this.text.length;
  }

  value(depth: number): unknown {
    if (depth > DEPTH_MAX) throw new NotALiteral();
    this.skipSpace();
    const next = this.text[this.at];
    if (next === '{') return this.dictionary(depth + 1);
    if (next === '[') return this.sequence(']', depth + 1);
    if (next === '(') return this.sequence(')', depth + 1);
    if (next === "'" || next === '"') return this.string(next);
    if (next === 'u' && /^u['"]/.test(this.text.slice(this.at, this.at + 2))) {
      this.at += 1;
      return this.string(this.text[this.at] ?? '');
    }
    return this.wordOrNumber();
  }

  private dictionary(depth: number): Record<string, unknown> {
    const entries: [string, unknown][] = [];
    this.at += 1;
    while (!this.takes('}')) {
      const key = this.value(depth);
      if (!this.takes(':')) throw new NotALiteral();
      entries.push([String(key), this.value(depth)]);
      if (!this.takes(',') && !this.sees('}')) throw new NotALiteral();
    }
    return Object.fromEntries(entries);
  }

  private sequence(end: string, depth: number): unknown[] {
    const values: unknown[] = [];
    this.at += 1;
    while (!this.takes(end)) {
      values.push(this.value(depth));
      if (!this.takes(',') && !this.sees(end)) throw new NotALiteral();
    }
    return values;
  }

  private string(quote: string): string {
    let value = '';
    let start = (this.at += 1);
    for (;;) {
      const next = this.text[this.at];
      if (next === undefined) throw new NotALiteral();
      if (next === quote) {
        value += this.text.slice(start, this.at);
        this.at += 1;
        return value;
      }
      if (next !== '\\') {
        this.at += 1;
        continue;
      }
      value += this.text.slice(start, this.at) + this.escape();
      start = this.at;
    }
  }

  private escape(): string {
    const kind = this.text[this.at + 1] ?? '';
    const digits = HEX_ESCAPES[kind];
    if (digits !== undefined) {
      const hex = this.text.slice(this.at + 2, this.at + 2 + digits);
      const code = /^[0-9a-fA-F]+$/.test(hex) && hex.length === digits ? parseInt(hex, 16) : Number.POSITIVE_INFINITY;
      if (code > 0x10ffff) throw new NotALiteral();
      this.at += 2 + digits;
      return String.fromCodePoint(code);
    }
    const octal = /^[0-7]{1,3}/.exec(this.text.slice(this.at + 1, this.at + 4))?.[0];
    if (octal !== undefined) {
      this.at += 1 + octal.length;
      return String.fromCodePoint(parseInt(octal, 8));
    }
    this.at += 2;
    // Python keeps an escape that it does not know as it stands.
    return SIMPLE_ESCAPES[kind] ?? `\\${kind}`;
  }

  private wordOrNumber(): unknown {
    const word = /^[A-Za-z0-9_.+-]+/.exec(this.text.slice(this.at, this.at + 64))?.[0] ?? '';
    this.at += word.length;
    if (Object.hasOwn(WORDS, word)) return WORDS[word];
    if (/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?L?$/.test(word)) return Number(word.replace(/L$/, ''));
    throw new NotALiteral();
  }

  private sees(character: string): boolean {
    this.skipSpace();
    return this.text[this.at] === character;
  }

  private takes(character: string): boolean {
    const taken = this.sees(character);
    if (taken) this.at += 1;
    return taken;
  }

  private skipSpace(): void {
    while (this.text[this.at] === ' ' || this.text[this.at] === '\t') this.at += 1;
  }
}
