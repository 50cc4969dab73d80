/**
 * Reads a run file: YAML to a validated value, errors with line and column.
 *
 * 1. Every error is `file:line:col: key: expected …, got …`, all of them at once, in file order.
 * 2. A value set on the command line is checked like one in the file; its errors name the option.
 */
import { readFileSync } from 'node:fs';
import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument, parse as parseYaml } from 'yaml';

import { CliError, hasCode, messageOf } from './cli-error.js';
import { describe, type Finding, findingsOf, type Path } from './run-file-findings.js';
import { runFileSchema, type RunFile } from './run-file-schema.js';

export interface LoadedRunFile {
  value: RunFile;
  /** `file:line:col` messages for findings about resolved values. */
  locate(findings: Finding[]): string[];
}

/** `settings` are `key.path=value` texts, applied over the file in order; `origin` is what errors call them. */
export function loadRunFile(file: string, settings: string[] = [], origin = '--set '): LoadedRunFile {
  return parseRunFile({ file, text: readText(file), settings, origin });
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

export function parseRunFile(source: {
  file: string;
  text: string;
  settings?: string[];
  origin?: string;
}): LoadedRunFile {
  const { file, text, origin = '--set ' } = source;
  if (text.trim() === '') {
    throw new CliError(
      'badInput',
      `${file}:1:1: expected a run file (YAML), but the file is empty; see deploy/examples`,
    );
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
    throw new CliError(
      'badInput',
      `${file}:1:1: expected keys such as "name:" and "data:", got ${describe(document.toJS())}`,
    );
  }
  const options = new Map<string, string>();
  for (const setting of source.settings ?? []) applySetting(document, setting, { options, origin });

  const locate = (findings: Finding[]): string[] =>
    findings
      .map((finding) => place({ file, document, lines, options, origin, finding }))
      .sort((a, b) => a.offset - b.offset)
      .map((placed) => placed.text);
  const parsed = runFileSchema.safeParse(document.toJS());
  if (!parsed.success) {
    const findings = parsed.error.issues.flatMap((issue) => findingsOf(issue, [], document.toJS()));
    throw new CliError('badInput', locate(findings).join('\n'));
  }
  return { value: parsed.data, locate };
}

function applySetting(
  document: Document,
  setting: string,
  { options, origin }: { options: Map<string, string>; origin: string },
): void {
  const equals = setting.indexOf('=');
  if (equals <= 0)
    throw new CliError('badInput', `${origin.trimEnd()}: expected key=value such as tune.steps=100, got "${setting}"`);
  const key = setting.slice(0, equals);
  let value: unknown;
  try {
    value = parseYaml(setting.slice(equals + 1));
  } catch (error) {
    throw new CliError('badInput', `${origin}${setting}: the value is not YAML: ${messageOf(error)}`);
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

interface PlaceOptions {
  file: string;
  document: Document;
  lines: LineCounter;
  options: Map<string, string>;
  origin: string;
  finding: Finding;
}

/** Where a finding stands: its own node, or the nearest one around it. */
function place({ file, document, lines, options, origin, finding }: PlaceOptions): { text: string; offset: number } {
  const dotted = finding.path.join('.');
  const label = finding.atKey || finding.missing || dotted === '' ? '' : `${dotted}: `;
  for (const [key, setting] of options) {
    if (dotted === key || dotted.startsWith(`${key}.`)) {
      return { text: `${origin}${setting}: ${label}${finding.message}`, offset: -1 };
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
