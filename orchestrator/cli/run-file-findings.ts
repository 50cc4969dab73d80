/**
 * What is wrong with a run file's values: zod's issues in the words of the run file.
 *
 * 1. Every finding says what was expected and what came; a misspelt key comes with the nearest known one.
 */
import type { z } from 'zod';

import { nearest } from './nearest.js';
import { runFileJsonSchema } from './run-file-schema.js';

export type Path = (string | number)[];

/** A finding about one value, before it is given a place in the file. */
export interface Finding {
  path: Path;
  message: string;
  /** The key itself is at fault, not its value. */
  atKey?: boolean;
  /** The key is not there; the message names it. */
  missing?: boolean;
}

/** One zod issue as findings; of a union, those of the branch that the value comes closest to. */
export function findingsOf(issue: z.core.$ZodIssue, prefix: Path, root: unknown): Finding[] {
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
      if (valueAt(root, path) === undefined) return [missingKey(path)];
      const [best] = issue.errors
        .map((errors) => errors.flatMap((inner) => findingsOf(inner, path, root)))
        // A finding at the value itself says that the branch is of another shape altogether.
        .filter((findings) => findings.every((finding) => finding.path.length > path.length))
        .sort((a, b) => count(a, 'atKey') - count(b, 'atKey') || a.length - b.length);
      return best ?? [{ path, message: `expected ${expectedAt(path)}, got ${got}` }];
    }
    case 'invalid_type': {
      if (valueAt(root, path) === undefined) return [missingKey(path)];
      return [{ path, message: `expected ${typeName(issue.expected)}, got ${got}` }];
    }
    case 'invalid_value':
      return [
        {
          path,
          message: `expected one of ${issue.values.map((value) => JSON.stringify(value)).join(', ')}, got ${got}`,
        },
      ];
    case 'too_small':
      return [
        {
          path,
          message: `expected ${bound(issue.origin, issue.inclusive ? 'at least' : 'more than', issue.minimum)}, got ${got}`,
        },
      ];
    case 'too_big':
      return [
        {
          path,
          message: `expected ${bound(issue.origin, issue.inclusive === false ? 'less than' : 'at most', issue.maximum)}, got ${got}`,
        },
      ];
    case 'invalid_format':
      return [{ path, message: `expected ${issue.message}, got ${got}` }];
    case 'not_multiple_of':
    case 'invalid_key':
    case 'invalid_element':
    case 'custom':
      return [{ path, message: `${issue.message}, got ${got}` }];
  }
}

function missingKey(path: Path): Finding {
  return { path, message: `missing key "${String(path.at(-1) ?? '')}": expected ${expectedAt(path)}`, missing: true };
}

function count(findings: Finding[], mark: 'atKey'): number {
  return findings.filter((finding) => finding[mark] === true).length;
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

export function describe(value: unknown): string {
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
  let nodes: SchemaNode[] = [runFileJsonSchema()];
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
  const node = schemasAt(path)[0];
  const description = node?.description;
  if (description !== undefined)
    return description.replace(/\.$/, '').replace(/^[A-Z](?![A-Z])/, (first) => first.toLowerCase());
  return typeName(node?.type ?? 'a value');
}
