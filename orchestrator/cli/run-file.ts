/**
 * Reads a run file: YAML to a validated value, errors with line and column.
 *
 * 1. Every error is `file:line:col: key: expected …, got …`, all of them at once, in file order.
 * 2. A value set on the command line is checked like one in the file; its errors name the option.
 */
import { readFileSync } from 'node:fs';
import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument, parse as parseYaml } from 'yaml';
import { z } from 'zod';

import { CliError, hasCode, messageOf } from './cli-error.js';
import { nearest } from './nearest.js';
import { runFileJsonSchema, runFileSchema, type RunFile } from './run-file-schema.js';

export type Path = (string | number)[];

/** A finding about one value, before it is given a place in the file. */
export interface Finding {
  path: Path;
  message: string;
  /** The key itself is at fault, not its value. */
  atKey?: boolean;
}

export interface LoadedRunFile {
  value: RunFile;
  /** `file:line:col` messages for findings about resolved values. */
  locate(findings: Finding[]): string[];
}

/** `settings` are `key.path=value` texts, applied over the file in order. */
export function loadRunFile(file: string, settings: string[] = []): LoadedRunFile {
  return parseRunFile({ file, text: readText(file), settings });
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    const reason = hasCode(error, 'ENOENT')
      ? 'there is no such file'
      : hasCode(error, 'EISDIR')
        ? 'it is a folder'
        : messageOf(error);
    throw new CliError('badInput', `${file}: expected a run file (YAML), but ${reason}; see deploy/examples`);
  }
}

export function parseRunFile(source: { file: string; text: string; settings?: string[] }): LoadedRunFile {
  const { file, text } = source;
  if (text.trim() === '') {
    throw new CliError('badInput', `${file}:1:1: expected a run file (YAML), but the file is empty; see deploy/examples`);
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  if (document.errors.length > 0) {
    const messages = document.errors.map((error) => {
      const { line, col } = lines.linePos(error.pos[0]);
      return `${file}:${line}:${col}: ${error.message}`;
    });
    throw new CliError('badInput', messages.join('\n'));
  }
  if (!isMap(document.contents)) {
    throw new CliError('badInput', `${file}:1:1: expected keys such as "name:" and "data:", got ${describe(document.toJS())}`);
  }
  const options = new Map<string, string>();
  for (const setting of source.settings ?? []) applySetting(document, setting, options);

  const locate = (findings: Finding[]): string[] =>
    findings
      .map((finding) => place({ file, document, lines, options, finding }))
      .sort((a, b) => a.offset - b.offset)
      .map((placed) => placed.text);
  const parsed = runFileSchema.safeParse(document.toJS());
  if (!parsed.success) {
    const findings = parsed.error.issues.flatMap((issue) => findingsOf(issue, [], document.toJS()));
    throw new CliError('badInput', locate(findings).join('\n'));
  }
  return { value: parsed.data, locate };
}

function applySetting(document: Document, setting: string, options: Map<string, string>): void {
  const equals = setting.indexOf('=');
  if (equals <= 0) throw new CliError('badInput', `--set: expected key=value such as tune.steps=100, got "${setting}"`);
  const key = setting.slice(0, equals);
  let value: unknown;
  try {
    value = parseYaml(setting.slice(equals + 1));
  } catch (error) {
    throw new CliError('badInput', `--set ${setting}: the value is not YAML: ${messageOf(error)}`);
  }
  const path = key.split('.');
  // A scalar in the way ("data: folder" and then data.simulate.seed) gives way to the mapping that the option asks for.
  for (let depth = 1; depth < path.length; depth += 1) {
    if (!isMap(document.getIn(path.slice(0, depth), true))) {
      document.setIn(path.slice(0, depth), document.createNode({}));
    }
  }
  document.setIn(path, document.createNode(value));
  options.set(key, setting);
}

/** One zod issue as findings; of a union, those of the branch that the value comes closest to. */
function findingsOf(issue: z.core.$ZodIssue, prefix: Path, root: unknown): Finding[] {
  const path = [...prefix, ...issue.path.map((part) => (typeof part === 'number' ? part : String(part)))];
  const got = describe(valueAt(root, path));
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => {
        const known = keysAt(path);
        const hint = nearest(key, known);
        const advice = hint === null ? `expected one of: ${known.join(', ')}` : `did you mean "${hint}"?`;
        return { path: [...path, key], message: `unknown key "${key}"; ${advice}`, atKey: true };
      });
    case 'invalid_union': {
      const branches = issue.errors.map((errors) => errors.flatMap((inner) => findingsOf(inner, path, root)));
      const best = branches.find((findings) => findings.every((finding) => finding.path.length > path.length));
      if (best !== undefined && best.length > 0) return best;
      return [{ path, message: `expected ${expectedAt(path)}, got ${got}` }];
    }
    case 'invalid_type': {
      const missing = valueAt(root, path) === undefined;
      const name = String(path.at(-1) ?? 'run file');
      if (missing) return [{ path, message: `missing key "${name}": expected ${expectedAt(path)}` }];
      return [{ path, message: `expected ${typeName(issue.expected)}, got ${got}` }];
    }
    case 'invalid_value':
      return [{ path, message: `expected one of ${issue.values.map((value) => JSON.stringify(value)).join(', ')}, got ${got}` }];
    case 'too_small':
      return [{ path, message: `expected ${bound(issue.origin, issue.inclusive ? 'at least' : 'more than', issue.minimum)}, got ${got}` }];
    case 'too_big':
      return [{ path, message: `expected ${bound(issue.origin, issue.inclusive === false ? 'less than' : 'at most', issue.maximum)}, got ${got}` }];
    case 'invalid_format':
      return [{ path, message: `expected ${issue.message}, got ${got}` }];
    default:
      return [{ path, message: `${issue.message}, got ${got}` }];
  }
}

function bound(origin: string, relation: string, limit: number | bigint): string {
  if (origin === 'array') return `${relation} ${limit} entries`;
  if (origin === 'string') return `text of ${relation} ${limit} characters`;
  return `a number ${relation} ${limit}`;
}

function typeName(expected: string): string {
  const names: Record<string, string> = {
    int: 'a whole number',
    number: 'a number',
    string: 'text',
    boolean: 'true or false',
    object: 'keys and values',
    array: 'a list',
  };
  return names[expected] ?? expected;
}

function describe(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (value !== null && typeof value === 'object') return 'keys and values';
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

function valueAt(root: unknown, path: Path): unknown {
  let value = root;
  for (const part of path) {
    if (value === null || typeof value !== 'object') return undefined;
    value = (value as Record<string | number, unknown>)[part];
  }
  return value;
}

interface SchemaNode {
  properties?: Record<string, SchemaNode>;
  anyOf?: SchemaNode[];
  items?: SchemaNode;
  type?: string;
  description?: string;
}

function schemasAt(path: Path): SchemaNode[] {
  let nodes: SchemaNode[] = [runFileJsonSchema() as SchemaNode];
  const flatten = (node: SchemaNode): SchemaNode[] => (node.anyOf ? node.anyOf.flatMap(flatten) : [node]);
  for (const part of path) {
    nodes = nodes
      .flatMap(flatten)
      .flatMap((node) => (typeof part === 'number' ? node.items : node.properties?.[part]) ?? []);
  }
  return nodes;
}

function keysAt(path: Path): string[] {
  const flatten = (node: SchemaNode): string[] =>
    node.anyOf ? node.anyOf.flatMap(flatten) : Object.keys(node.properties ?? {});
  return [...new Set(schemasAt(path).flatMap(flatten))];
}

function expectedAt(path: Path): string {
  const [node] = schemasAt(path);
  const description = node?.description;
  if (description !== undefined) return description.replace(/\.$/, '').replace(/^[A-Z](?![A-Z])/, (first) => first.toLowerCase());
  return typeName(node?.type ?? 'a value');
}

interface PlaceOptions {
  file: string;
  document: Document;
  lines: LineCounter;
  options: Map<string, string>;
  finding: Finding;
}

/** Where a finding stands: its own node, or the nearest one around it. */
function place({ file, document, lines, options, finding }: PlaceOptions): { text: string; offset: number } {
  const dotted = finding.path.join('.');
  const label = finding.atKey || dotted === '' ? '' : `${dotted}: `;
  for (const [key, setting] of options) {
    if (dotted === key || dotted.startsWith(`${key}.`)) {
      return { text: `--set ${setting}: ${label}${finding.message}`, offset: -1 };
    }
  }
  let offset = 0;
  for (let depth = finding.path.length; depth >= 0; depth -= 1) {
    const found = offsetOf(document, finding.path.slice(0, depth), finding.atKey === true);
    if (found === null) continue;
    offset = found;
    break;
  }
  const { line, col } = lines.linePos(offset);
  return { text: `${file}:${line}:${col}: ${label}${finding.message}`, offset };
}

function offsetOf(document: Document, path: Path, atKey: boolean): number | null {
  if (path.length > 0) {
    const parent = path.length === 1 ? document.contents : document.getIn(path.slice(0, -1), true);
    if (isMap(parent)) {
      const pair = parent.items.find((item) => isScalar(item.key) && item.key.value === path.at(-1));
      if (pair === undefined) return null;
      if (atKey || !isNode(pair.value)) return isNode(pair.key) ? (pair.key.range?.[0] ?? null) : null;
    }
  }
  const node = path.length === 0 ? document.contents : document.getIn(path, true);
  return isNode(node) ? (node.range?.[0] ?? null) : null;
}
