import { describe, expect, it } from 'vitest';

import type { JobResult, JobSpec } from '../../workflows/contract.js';
import { canonicalJson, isDigest, jobKeyOf, resultDigestOf, sha256Hex } from './job-key.js';

const A = sha256Hex('a');
const B = sha256Hex('b');

describe('canonicalJson', () => {
  it('prints numbers as ECMAScript does', () => {
    // Bit patterns from the number samples of RFC 8785, appendix B.
    const samples: [string, string][] = [
      ['0000000000000000', '0'],
      ['8000000000000000', '0'],
      ['0000000000000001', '5e-324'],
      ['7fefffffffffffff', '1.7976931348623157e+308'],
      ['4340000000000000', '9007199254740992'],
      ['4430000000000000', '295147905179352830000'],
      ['44b52d02c7e14af5', '9.999999999999997e+22'],
      ['44b52d02c7e14af6', '1e+23'],
      ['444b1ae4d6e2ef4e', '999999999999999700000'],
      ['3eb0c6f7a0b5ed8d', '0.000001'],
      ['41b3de4355555553', '333333333.3333332'],
      ['becbf647612f3696', '-0.0000033333333333333333'],
    ];
    for (const [bits, text] of samples) {
      expect(canonicalJson(Buffer.from(bits, 'hex').readDoubleBE())).toBe(text);
    }
  });

  it('sorts keys by UTF-16 code units, at every depth', () => {
    // By code points the emoji would come after U+FB33; by code units its surrogates come first.
    const value = { '\u20ac': 1, '\r': 2, '\ufb33': 3, '1': 4, '\u{1f600}': 5, '\u0080': 6, '\u00f6': { b: 1, a: 2 } };
    expect(Object.keys(JSON.parse(canonicalJson(value)) as object)).toHaveLength(7);
    expect(canonicalJson(value)).toBe(
      '{"\\r":2,"1":4,"\u0080":6,"\u00f6":{"a":2,"b":1},"\u20ac":1,"\u{1f600}":5,"\ufb33":3}',
    );
  });

  it('escapes strings in the shortest form', () => {
    expect(canonicalJson('\u20ac$\u000f\nA\'B"\\\\"/')).toBe('"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"');
  });

  it('does not depend on insertion order', () => {
    expect(canonicalJson({ a: 1, b: [true, null] })).toBe(canonicalJson({ b: [true, null], a: 1 }));
  });

  it.each([
    ['undefined', undefined],
    ['NaN', { a: NaN }],
    ['Infinity', [1, Infinity]],
    ['an undefined field', { a: undefined }],
    ['a hole', [1, , 2]], // eslint-disable-line no-sparse-arrays -- the case under test
    ['a bigint', 1n],
    ['a Map', new Map()],
    ['a Date', new Date(0)],
    ['a function', () => 1],
    ['a lone high surrogate', '\ud800x'],
    ['a lone low surrogate', { '\udc00': 1 }],
  ])('refuses %s', (_what, value) => {
    expect(() => canonicalJson(value)).toThrow(TypeError);
  });

  it('refuses a cycle but not a value that occurs twice', () => {
    const cycle: Record<string, unknown> = {};
    cycle['self'] = cycle;
    expect(() => canonicalJson(cycle)).toThrow(/\$\.self: .*a cycle/);
    const twice = { x: 1 };
    expect(canonicalJson([twice, twice])).toBe('[{"x":1},{"x":1}]');
  });

  it('names the place of what it refuses', () => {
    expect(() => canonicalJson({ a: [{ b: NaN }] })).toThrow(/at \$\.a\[0\]\.b: expected .* got NaN/);
  });
});

describe('jobKeyOf', () => {
  const spec: JobSpec = {
    kind: 'tune',
    recipe: { steps: 10, lanes: 8 },
    inputs: { train_examples: A, vocabulary: B },
    numericsClass: 'cpu-avx2-1',
    engineRevision: 'r1',
  };

  it('is the SHA-256 of the canonical JSON', () => {
    const text = `{"engineRevision":"r1","inputs":{"train_examples":"${A}","vocabulary":"${B}"},"kind":"tune","numericsClass":"cpu-avx2-1","recipe":{"lanes":8,"steps":10}}`;
    expect(jobKeyOf(spec)).toBe(sha256Hex(text));
  });

  it('changes with each of the five fields and with nothing else', () => {
    const changed: JobSpec[] = [
      { ...spec, kind: 'dccf' },
      { ...spec, recipe: { steps: 11, lanes: 8 } },
      { ...spec, inputs: { ...spec.inputs, vocabulary: A } },
      { ...spec, numericsClass: 'js' },
      { ...spec, engineRevision: 'r2' },
    ];
    expect(new Set([spec, ...changed].map(jobKeyOf)).size).toBe(6);
    const withMore = { ...spec, workers: 3, port: 7070 };
    expect(jobKeyOf(withMore)).toBe(jobKeyOf(spec));
  });

  it('refuses an input that is not a digest', () => {
    expect(() => jobKeyOf({ ...spec, inputs: { vocabulary: '/some/path' } })).toThrow(
      /input vocabulary: expected a SHA-256/,
    );
  });
});

describe('resultDigestOf', () => {
  const job = (outputs: Record<string, string>, summary = {}): JobResult => ({ key: A, outputs, summary });

  it('covers outputs by name and the published list, not keys or summaries', () => {
    const digest = resultDigestOf({ jobs: { ingest: job({ dataset: A }) }, published: B });
    expect(digest).toBe(sha256Hex(`{"jobs":{"ingest":{"dataset":"${A}"}},"published":"${B}"}`));
    const other = { ingest: { ...job({ dataset: A }, { users: 3 }), key: B } };
    expect(resultDigestOf({ jobs: other, published: B })).toBe(digest);
    expect(resultDigestOf({ jobs: { ingest: job({ dataset: B }) }, published: B })).not.toBe(digest);
    expect(resultDigestOf({ jobs: { ingest: job({ dataset: A }) }, published: null })).not.toBe(digest);
  });
});

describe('isDigest', () => {
  it('takes 64 lower-case hex digits only', () => {
    expect(isDigest(A)).toBe(true);
    for (const wrong of [A.toUpperCase(), A.slice(1), `${A}0`, '../etc', 7, null]) expect(isDigest(wrong)).toBe(false);
  });
});
