/**
 * A run file resolved to a `RunPlan`: defaults filled in, fields checked against each other, files put into the store.
 *
 * 1. Nothing is stored before every check has passed.
 * 2. Fleet, checkpoints and names never enter a recipe, so that they cannot change a result.
 */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';

import { type Digest, type RunPlan } from '../../workflows/contract.js';
import { BadInputError } from '../recommender/domain-job.js';
import { ingestColumns, MAPPED_FORMATS, type Recipes } from '../recommender/recipes.js';
import { type RecipeOverrides, resolveRecipes, type TuneOverrides } from '../recommender/resolve-recipes.js';
import { parseTasks } from '../recommender/tasks/registry.js';
import { WordingError } from '../recommender/tasks/template.js';
import { type AdapterSource, conflictsWith, requireAdapterFolder } from './adapter-source.js';
import { CliError } from './cli-error.js';
import { type ArtifactStore } from '../artifacts/store.js';
import { earlierIdsOf } from './earlier-ids.js';
import { recogniseDataFolder, requireDataFile, requireModelFolder } from './data-source.js';
import { type LoadedRunFile } from './run-file.js';
import { type Finding, type Path } from './run-file-findings.js';
import { type RunFile } from './run-file-schema.js';

/** A plan whose files are still paths. */
export interface ResolvedRun {
  plan: Omit<RunPlan, 'inputs' | 'baseFiles' | 'earlierIds'>;
  /** The run whose items keep their ids; null: none. */
  publishedRun: string | null;
  inputPaths: Record<string, string>;
  basePaths: Record<string, string>;
}

export const PLAN_DEFAULTS = {
  fleet: { min: 1, max: 8, spares: 0, waitSeconds: 120 },
  limits: { runSeconds: null, stallSeconds: 600 },
  checkpoints: { dccf: 500, codebooks: 25, tune: 50, dense: 100 },
  checkpointsKept: 2,
  historyEventsMax: 4_000,
  shardPrompts: 512,
};

/** `baseFolder` is what relative paths in the file are relative to. `dataFolder` replaces the file's `data`. */
export function resolveRun(
  loaded: LoadedRunFile,
  options: { baseFolder: string; dataFolder?: string | undefined; now?: Date },
): ResolvedRun {
  const { value } = loaded;
  const near = (path: string): string => resolve(options.baseFolder, path);
  const dataFolder = options.dataFolder;
  const data =
    dataFolder === undefined
      ? located(loaded, ['data'], () => resolveData(value.data, near))
      : resolveData(movedTo(resolve(dataFolder), value.data), resolve);
  const basePaths = isScratch(value)
    ? {}
    : located(loaded, ['model', 'base'], () => requireModelFolder(near(value.model?.base ?? '')));
  const adapter = located(loaded, ['model', 'adapter'], () => adapterOf(value, near));
  const recipes = resolveOverrides({ ...overridesOf(value, adapter), ...data.overrides });
  const fleet = {
    min: value.fleet?.workers?.min ?? PLAN_DEFAULTS.fleet.min,
    max: value.fleet?.workers?.max ?? Math.max(PLAN_DEFAULTS.fleet.max, value.fleet?.workers?.min ?? 0),
    spares: value.fleet?.workers?.spares ?? PLAN_DEFAULTS.fleet.spares,
    waitSeconds: value.fleet?.waitSeconds ?? PLAN_DEFAULTS.fleet.waitSeconds,
  };
  const conflicts = adapter === null ? [] : conflictsWith(adapter.trainable, value.model?.train);
  const findings = [
    ...checkRecipes(recipes),
    ...checkText(value),
    ...checkFleet(fleet),
    ...checkModel(value),
    ...conflicts,
  ];
  if (findings.length > 0) throw new CliError('badInput', loaded.locate(findings).join('\n'));
  return {
    plan: {
      runId: makeRunId(value.name, options.now ?? new Date()),
      name: value.name,
      numericsClass: value.numericsClass ?? null,
      recipes,
      fleet,
      limits: { ...PLAN_DEFAULTS.limits, ...value.limits },
      checkpointIntervalSteps: { ...PLAN_DEFAULTS.checkpoints, ...without(value.checkpoints ?? {}, 'keep') },
      checkpointsKept: value.checkpoints?.keep ?? PLAN_DEFAULTS.checkpointsKept,
      historyEventsMax: value.historyEventsMax ?? PLAN_DEFAULTS.historyEventsMax,
      rankShardPrompts: value.rank?.shardPrompts ?? PLAN_DEFAULTS.shardPrompts,
      publish: value.publish !== false,
      approval: typeof value.publish === 'object' && value.publish.approval === true,
    },
    publishedRun: value.codebooks?.published ?? null,
    inputPaths: data.inputPaths,
    basePaths: { ...basePaths, ...adapter?.files },
  };
}

/** What a plan is completed from: usually the artifact store. */
export interface PlanStore {
  putFile: (path: string) => Promise<Digest>;
  readRunFile: ArtifactStore['readRunFile'];
}

/** Stores the files and completes the plan. */
export async function storeInputs(run: ResolvedRun, store: PlanStore): Promise<RunPlan> {
  // Before anything is stored: it may be refused.
  const earlierIds = run.publishedRun === null ? null : await earlierIdsOf(store, run.publishedRun, run.plan.recipes);
  const stored = async (paths: Record<string, string>): Promise<Record<string, Digest>> => {
    const digests: Record<string, Digest> = {};
    for (const [name, path] of Object.entries(paths)) digests[name] = await store.putFile(path);
    return digests;
  };
  return { ...run.plan, inputs: await stored(run.inputPaths), baseFiles: await stored(run.basePaths), earlierIds };
}

/** Name, UTC time and a random part: unique, and in the order of time for people. */
export function makeRunId(name: string, now: Date): string {
  const stamp = now.toISOString().replace(/[-:]/g, '').replace('T', '-').slice(0, 15);
  return `${name}-${stamp}-${randomBytes(2).toString('hex')}`;
}

/** Gives the errors of `action` the place in the run file of the value that they are about. */
function located<T>(loaded: LoadedRunFile, path: Path, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
    throw new CliError(error.exit, loaded.locate([{ path, message: error.message }]).join('\n'), { cause: error });
  }
}

function isScratch(value: RunFile): boolean {
  return (value.model?.base ?? 'scratch') === 'scratch';
}

function adapterOf(value: RunFile, near: (path: string) => string): AdapterSource | null {
  if (value.model?.adapter === undefined) return null;
  if (isScratch(value)) {
    throw new CliError(
      'badInput',
      'expected only with a Hugging Face model as "base", got "scratch"; name the model that the adapter was made for',
    );
  }
  return requireAdapterFolder(near(value.model.adapter));
}

/** A folder's files in place of the run file's: by the names that they have in the run file, where it has these. */
function movedTo(folder: string, data: RunFile['data']): RunFile['data'] {
  if (typeof data === 'string' || 'simulate' in data) return folder;
  const moved = (path: string): string => join(folder, basename(path));
  const vectors = data.textVectors === undefined ? {} : { textVectors: moved(data.textVectors) };
  if (!existsSync(moved(data.interactions))) {
    return data.textVectors === undefined ? folder : { ...recogniseDataFolder(folder), ...vectors };
  }
  const items = data.items === undefined ? {} : { items: moved(data.items) };
  return { ...data, interactions: moved(data.interactions), ...items, ...vectors };
}

function resolveData(
  data: RunFile['data'],
  near: (path: string) => string,
): { overrides: Pick<RecipeOverrides, 'simulate' | 'ingest'>; inputPaths: Record<string, string> } {
  if (typeof data === 'object' && 'simulate' in data) {
    return { overrides: { simulate: data.simulate, ingest: { format: 'collimate' } }, inputPaths: {} };
  }
  const found = typeof data === 'string' ? recogniseDataFolder(near(data)) : data;
  const interactions = requireDataFile(near(found.interactions), 'a behaviour log');
  const items = found.items === undefined ? {} : { items: requireDataFile(near(found.items), 'item texts') };
  const filters = typeof data === 'string' ? {} : definedOf(data, 'minEventsPerUser', 'minEventsPerItem');
  const vectors =
    typeof data === 'string' || data.textVectors === undefined
      ? {}
      : { text_vectors: requireDataFile(near(data.textVectors), 'item text vectors') };
  return {
    overrides: { simulate: null, ingest: { format: found.format, ...filters, columns: columnsOf(data) } },
    inputPaths: { interactions, ...items, ...vectors },
  };
}

function columnsOf(data: Exclude<RunFile['data'], { simulate: unknown }>): Recipes['ingest']['columns'] {
  if (typeof data === 'string') return null;
  const mapped = MAPPED_FORMATS.includes(data.format);
  if (mapped !== (data.columns !== undefined)) {
    const got = `format ${data.format} ${data.columns === undefined ? 'without' : 'with'} "columns"`;
    throw new CliError(
      'badInput',
      `expected "columns" with format ${MAPPED_FORMATS.join(' or ')} and no other, got ${got}`,
    );
  }
  return data.columns === undefined ? null : ingestColumns(data.columns);
}

function without<T extends object, K extends keyof T>(value: T, key: K): Omit<T, K> {
  const copy = { ...value };
  delete copy[key];
  return copy;
}

function definedOf<T extends object, K extends keyof T>(value: T, ...keys: K[]): Partial<Pick<T, K>> {
  return Object.fromEntries(keys.filter((key) => value[key] !== undefined).map((key) => [key, value[key]])) as Partial<
    Pick<T, K>
  >;
}

/** The run file's sections as overrides of the recipes. */
function overridesOf(value: RunFile, adapter: AdapterSource | null): RecipeOverrides {
  const { text, ...dccf } = value.embed ?? {};
  const rank = without(value.rank ?? {}, 'shardPrompts');
  const { train, ...scratch } = without(without(value.model ?? {}, 'base'), 'adapter');
  const tune: TuneOverrides = { ...value.tune };
  tune.base = isScratch(value) ? { kind: 'scratch', ...scratch } : { kind: 'huggingface' };
  if (adapter !== null) tune.trainable = adapter.trainable;
  else if (train === 'full') tune.trainable = { kind: 'full' };
  else if (train !== undefined) tune.trainable = { kind: 'lora', ...train.lora };
  const { alignment = {}, rqvae = false, ...codebooks } = without(value.codebooks ?? {}, 'published');
  const { cooccurrence, ...evaluate } = value.evaluate ?? {};
  const overrides: RecipeOverrides = {
    dccf,
    codebooks,
    rqvae: rqvae === false ? null : rqvae,
    alignment,
    render: value.render ?? {},
    tune,
    rank,
    // A partial grid is completed by resolveRecipes.
    evaluate: {
      ...evaluate,
      ...(cooccurrence && { cooccurrence: cooccurrence as Recipes['evaluate']['cooccurrence'] }),
    },
    assemble: typeof value.publish === 'object' && value.publish.k !== undefined ? { k: value.publish.k } : {},
  };
  if (value.seed !== undefined) overrides.seed = value.seed;
  if (value.fusion !== undefined) overrides.fusion = value.fusion === false ? null : value.fusion;
  if (value.dense !== undefined) overrides.dense = value.dense === false ? null : value.dense;
  if (text === false) overrides.textVectors = null;
  else if (text?.from === 'model') {
    const { tokensMax, tokensPerBatch, centre } = text;
    overrides.textVectors = null;
    overrides.embedText = {
      ...(tokensMax !== undefined && { tokensMax }),
      ...(tokensPerBatch !== undefined && { tokensPerBatch }),
      ...(centre !== undefined && { centre: centre ? 1 : 0 }),
    };
  } else if (text !== undefined) overrides.textVectors = definedOf(text, 'dim', 'minDocuments', 'iterations', 'seed');
  return overrides;
}

function resolveOverrides(overrides: RecipeOverrides): Recipes {
  try {
    const recipes = resolveRecipes(overrides);
    // A published list can hold no more than the ranking gives, unless the file asks for it (an error then).
    if (overrides.assemble?.k === undefined) recipes.assemble.k = Math.min(recipes.assemble.k, recipes.rank.topK);
    return recipes;
  } catch (error) {
    if (error instanceof BadInputError) throw new CliError('badInput', error.message, { cause: error });
    throw error;
  }
}

function checkRecipes(recipes: Recipes): Finding[] {
  const findings: Finding[] = [];
  const expect = (holds: boolean, path: string[], message: string): void => {
    if (!holds) findings.push({ path, message });
  };
  const { tune, rank, dense, assemble, simulate, codebooks, evaluate } = recipes;
  const hasText = recipes.textVectors !== null || recipes.embedText !== null;
  expect(
    recipes.embedText === null || tune.base.kind === 'huggingface',
    ['embed', 'text', 'from'],
    'expected "tfidf" with a model that is trained from scratch, got "model"; a base that knows nothing yet has no text vectors',
  );
  if (simulate !== null) {
    expect(
      simulate.eventsPerUserMin <= simulate.eventsPerUserMax,
      ['data', 'simulate', 'eventsPerUserMax'],
      `expected at least eventsPerUserMin (${simulate.eventsPerUserMin}), got ${simulate.eventsPerUserMax}`,
    );
  }
  if (tune.base.kind === 'scratch') {
    const { dim, heads, kvHeads } = tune.base;
    expect(
      dim % heads === 0 && (dim / heads) % 2 === 0,
      ['model', 'dim'],
      `expected a multiple of twice the number of heads (${heads}), got ${dim}`,
    );
    expect(heads % kvHeads === 0, ['model', 'kvHeads'], `expected a divisor of heads (${heads}), got ${kvHeads}`);
  }
  expect((tune.lanes & (tune.lanes - 1)) === 0, ['tune', 'lanes'], `expected a power of two, got ${tune.lanes}`);
  expect(
    tune.batchSequences % tune.lanes === 0,
    ['tune', 'batchSequences'],
    `expected a multiple of lanes (${tune.lanes}), got ${tune.batchSequences}`,
  );
  expect(
    tune.minLearningRate <= tune.learningRate,
    ['tune', 'minLearningRate'],
    `expected at most learningRate (${tune.learningRate}), got ${tune.minLearningRate}`,
  );
  if (dense !== null) {
    const { dim, heads, lanes, learningRate, minLearningRate } = dense;
    expect(
      dim % heads === 0 && (dim / heads) % 2 === 0,
      ['dense', 'dim'],
      `expected a multiple of twice the number of heads (${heads}), got ${dim}`,
    );
    expect((lanes & (lanes - 1)) === 0, ['dense', 'lanes'], `expected a power of two, got ${lanes}`);
    expect(
      minLearningRate <= learningRate,
      ['dense', 'minLearningRate'],
      `expected at most learningRate (${learningRate}), got ${minLearningRate}`,
    );
  }
  const widths = typeof rank.beams === 'number' ? [rank.beams] : rank.beams;
  expect(
    typeof rank.beams === 'number' || widths.length === codebooks.levels,
    ['rank', 'beams'],
    `expected a number or one width for each of the ${codebooks.levels} levels, got ${widths.length} widths`,
  );
  const lastWidth = widths.at(-1) ?? 0;
  expect(
    rank.topK <= lastWidth,
    ['rank', 'topK'],
    `expected at most beams (${typeof rank.beams === 'number' ? '' : 'of the last level, '}${lastWidth}), got ${rank.topK}`,
  );
  expect(
    evaluate.k.every((k, index) => index === 0 || k > (evaluate.k[index - 1] ?? 0)),
    ['evaluate', 'k'],
    `expected ascending cut-offs, got ${evaluate.k.join(', ')}`,
  );
  expect(
    Math.max(...evaluate.k) <= rank.topK,
    ['evaluate', 'k'],
    `expected cut-offs of at most rank.topK (${rank.topK}), got ${Math.max(...evaluate.k)}`,
  );
  expect(assemble.k <= rank.topK, ['publish', 'k'], `expected at most rank.topK (${rank.topK}), got ${assemble.k}`);
  expect(
    codebooks.collaborativeWeight > 0 || (codebooks.textWeight > 0 && hasText),
    ['codebooks', 'collaborativeWeight'],
    'expected a weight above 0 for behaviour or for text, got none',
  );
  const { intents, intentWeight, contrastWeight } = recipes.dccf;
  expect(
    intents > 0 || (intentWeight === 0 && contrastWeight === 0),
    ['embed', 'intents'],
    `expected intentWeight and contrastWeight 0 beside intents 0, got ${intentWeight} and ${contrastWeight}; the graph alone has nothing that they could weigh`,
  );
  expect(
    recipes.rqvae === null || recipes.rqvae.warmupSteps <= recipes.rqvae.steps,
    ['codebooks', 'rqvae', 'warmupSteps'],
    `expected at most steps (${recipes.rqvae?.steps ?? 0}), got ${recipes.rqvae?.warmupSteps ?? 0}`,
  );
  expect(
    recipes.alignment === null || hasText,
    ['codebooks', 'alignment'],
    'expected item text vectors to align with, got "embed.text: false"; switch them on, or delete the alignment',
  );
  return [...findings, ...checkWordings(recipes)];
}

function checkWordings({ render }: Recipes): Finding[] {
  try {
    parseTasks(render.tasks);
    return [];
  } catch (error) {
    if (error instanceof WordingError) return [{ path: [...error.path], message: error.problem }];
    throw error;
  }
}

/** Settings of text vectors that belong to the other kind would be ignored. */
function checkText(value: RunFile): Finding[] {
  const text = value.embed?.text;
  if (text === undefined || text === false) return [];
  const ofModel = ['tokensMax', 'tokensPerBatch', 'centre'] as const;
  const ofWords = ['dim', 'minDocuments', 'iterations', 'seed'] as const;
  const [others, from] = text.from === 'model' ? [ofWords, 'tfidf'] : [ofModel, 'model'];
  return others
    .filter((key) => text[key] !== undefined)
    .map((key) => ({
      path: ['embed', 'text', key],
      message: `expected only with from "${from}", got from "${text.from ?? 'tfidf'}"; delete the line`,
      atKey: true,
    }));
}

function checkFleet(fleet: RunPlan['fleet']): Finding[] {
  if (fleet.min <= fleet.max) return [];
  return [{ path: ['fleet', 'workers', 'max'], message: `expected at least min (${fleet.min}), got ${fleet.max}` }];
}

function checkModel(value: RunFile): Finding[] {
  if (isScratch(value)) return [];
  const sized = ['layers', 'dim', 'heads', 'kvHeads', 'ffnDim', 'ropeTheta', 'normEps', 'tieEmbeddings'] as const;
  return sized
    .filter((key) => value.model?.[key] !== undefined)
    .map((key) => ({
      path: ['model', key],
      message: `expected only with base "scratch"; a Hugging Face model brings its own "${key}"; delete the line`,
      atKey: true,
    }));
}
