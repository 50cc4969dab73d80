/** The page docs/run-file.md, made from the schema of run files and the defaults. */
import { defaultRecipes } from '../recommender/default-recipes.js';
import { resolveRecipes } from '../recommender/resolve-recipes.js';
import { PLAN_DEFAULTS } from './run-plan.js';
import { runFileJsonSchema } from './run-file-schema.js';

interface Node {
  type?: string;
  description?: string;
  properties?: Record<string, Node>;
  required?: string[];
  anyOf?: Node[];
  items?: Node;
  enum?: unknown[];
  const?: unknown;
  minimum?: number;
  exclusiveMinimum?: number;
  maximum?: number;
}

const INTRODUCTION = `# The run file

Made by \`npm run generate\` from \`orchestrator/cli/run-file-schema.ts\`. \`name\` and \`data\` are required, all else has a default. \`collimate run FILE --set key.path=value\` sets any of it;
an unknown key is an error that names the nearest known one. \`collimate run --print-schema\` prints the same as JSON Schema, for editors. Examples are in \`deploy/examples\`.

Defaults are those of a model trained from scratch; a base from a Hugging Face directory is tuned by low-rank adapters with gentler steps. Sections \`fleet\`, \`limits\` and \`checkpoints\` never
change a result. Default "–": off, or nothing.
`;

const LARGEST_SHOWN = 1_000_000_000;

export function runFilePage(): string {
  const schema = runFileJsonSchema() as Node;
  const defaults = defaultsByPath();
  const simple: string[] = [];
  const sections: string[] = [];
  for (const [name, node] of Object.entries(schema.properties ?? {})) {
    const rows = rowsOf(node, name, defaults);
    if (rows.length === 0) simple.push(row(name, node, defaults));
    else sections.push(`## \`${name}\`\n\n${node.description ?? ''}\n\n${TABLE_HEAD}\n${rows.join('\n')}\n`);
  }
  return `${INTRODUCTION}\n## At the top\n\n${TABLE_HEAD}\n${simple.join('\n')}\n\n${sections.join('\n')}`;
}

const TABLE_HEAD = '| key | value | default | what it is |\n| --- | --- | --- | --- |';

/** One row for each key below, in the order of the schema. Keys of alternatives follow each other. */
function rowsOf(node: Node, path: string, defaults: ReadonlyMap<string, unknown>): string[] {
  const properties = (node.anyOf ?? [node]).flatMap((form) => Object.entries(form.properties ?? {}));
  return properties.flatMap(([name, child]) => {
    const at = `${path}.${name}`;
    const below = rowsOf(child, at, defaults);
    return [row(at, child, defaults), ...below];
  });
}

function row(path: string, node: Node, defaults: ReadonlyMap<string, unknown>): string {
  const value = defaults.get(path);
  const shown = value === undefined ? '' : value === null ? '–' : `\`${JSON.stringify(value)}\``;
  return `| \`${path}\` | ${cell(valuesOf(node))} | ${cell(shortened(shown))} | ${cell(node.description ?? '')} |`;
}

/** What may stand there: a type with its limits, or the choices. */
function valuesOf(node: Node): string {
  if (node.anyOf !== undefined) return [...new Set(node.anyOf.map(valuesOf))].join(' or ');
  if (node.const !== undefined) return `\`${JSON.stringify(node.const)}\``;
  if (node.enum !== undefined) return node.enum.map((choice) => `\`${String(choice)}\``).join(', ');
  if (node.type === 'array') return `list of ${valuesOf(node.items ?? {})}`;
  if (node.type === 'object') return 'keys';
  const type = node.type === 'integer' ? 'whole number' : (node.type ?? 'anything');
  const { minimum, exclusiveMinimum, maximum } = node;
  const limits = [
    ...(exclusiveMinimum === undefined ? [] : [`above ${exclusiveMinimum}`]),
    ...(minimum === undefined ? [] : [`from ${minimum}`]),
    ...(maximum === undefined || maximum >= LARGEST_SHOWN ? [] : [`to ${maximum}`]),
  ];
  return limits.length === 0 ? type : `${type} ${limits.join(' ')}`;
}

function defaultsByPath(): Map<string, unknown> {
  const {
    simulate,
    ingest,
    dccf,
    textVectors,
    codebooks,
    rqvae,
    alignment,
    render,
    tune,
    rank,
    dense,
    evaluate,
    fusion,
  } = {
    ...defaultRecipes(),
    // Their own defaults once they are on.
    rqvae: resolveRecipes({ rqvae: {} }).rqvae,
    alignment: { ...resolveRecipes({ alignment: { weight: 1 } }).alignment, weight: 0 },
  };
  const { base, trainable, ...tuning } = tune;
  const { fleet, limits, checkpoints, checkpointsKept, shardPrompts } = PLAN_DEFAULTS;
  const { waitSeconds, ...workers } = fleet;
  const sections = {
    data: { simulate, minEventsPerUser: ingest.minEventsPerUser, minEventsPerItem: ingest.minEventsPerItem },
    seed: codebooks.seed,
    embed: { ...dccf, text: { from: 'tfidf', ...textVectors } },
    codebooks: { ...codebooks, published: null, rqvae, alignment },
    render,
    model: { ...base, base: 'scratch', adapter: null, train: trainable.kind },
    tune: tuning,
    rank: { ...rank, shardPrompts },
    dense,
    evaluate,
    fusion,
    publish: true,
    fleet: { workers, waitSeconds },
    limits,
    checkpoints: { ...checkpoints, keep: checkpointsKept },
    numericsClass: null,
    historyEventsMax: PLAN_DEFAULTS.historyEventsMax,
  };
  const found = new Map<string, unknown>();
  const walk = (value: unknown, path: string): void => {
    const isSection = typeof value === 'object' && value !== null && !Array.isArray(value);
    if (!isSection) found.set(path, value);
    else for (const [name, child] of Object.entries(value)) walk(child, path === '' ? name : `${path}.${name}`);
  };
  walk(sections, '');
  return found;
}

/** Lists of wordings would make the table unreadable. */
function shortened(text: string): string {
  return text.length > 60 ? 'several; `collimate run` writes them to the plan of the run' : text;
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ');
}
