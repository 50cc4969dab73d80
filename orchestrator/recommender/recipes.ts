/**
 * Resolved recipes of every job kind, and the defaults that a run file overrides.
 *
 * 1. Field names are those of native/JOBS.md; a resolved recipe has every field, so that a job key never depends on defaults.
 * 2. An override of a field that a recipe does not have is bad input: a misspelt key must not be ignored.
 * 3. Recipes are plain JSON (type aliases, not interfaces, so that they are assignable to `JsonObject`).
 */
import { BadInputError } from './domain-job.js';
import {
  defaultTasks,
  TASK_NAMES,
  type TaskName,
  type TasksRecipe,
  TEXT_FIELDS,
  type TextField,
} from './tasks/task-recipes.js';

export type SimulateRecipe = {
  seed: number;
  items: number;
  users: number;
  eventsPerUserMin: number;
  eventsPerUserMax: number;
};

export const INGEST_FORMATS = ['collimate', 's3rec', 'recbole', 'amazon', 'movielens', 'csv', 'ndjson'] as const;
export type IngestFormat = (typeof INGEST_FORMATS)[number];
/** Formats whose columns have names of the user's own. */
export const MAPPED_FORMATS: readonly IngestFormat[] = ['csv', 'ndjson'];
/** Columns of a CSV, or fields of an NDJSON, by what they hold; null: the files have none. `item` is the same in both files. */
export type IngestColumns = {
  user: string;
  item: string;
  /** Null: the order in the file is the time. */
  time: string | null;
  title: string | null;
  brand: string | null;
  categories: string | null;
  keywords: string | null;
  description: string | null;
  /** Between the cells of a CSV. */
  separator: string;
};
export type IngestRecipe = {
  format: IngestFormat;
  minEventsPerUser: number;
  minEventsPerItem: number;
  /** Null unless the format is mapped. */
  columns: IngestColumns | null;
};

/** A mapping with what it leaves out filled in. */
export function ingestColumns(
  named: Pick<IngestColumns, 'user' | 'item'> & Partial<Omit<IngestColumns, 'user' | 'item'>>,
): IngestColumns {
  const texts = { title: null, brand: null, categories: null, keywords: null, description: null };
  return { time: null, ...texts, separator: ',', ...named };
}

export type TextVectorsRecipe = { dim: number; minDocuments: number; iterations: number; seed: number };

/** Text vectors from the base model's hidden states, in place of those of TF-IDF. */
export type EmbedTextRecipe = {
  /** Of a text; what is behind is cut off. */
  tokensMax: number;
  tokensPerBatch: number;
  /** 1: the mean of all texts is taken off. */
  centre: 0 | 1;
};

export type DccfRecipe = {
  dim: number;
  layers: number;
  intents: number;
  epochs: number;
  batchSize: number;
  learningRate: number;
  weightDecay: number;
  intentWeight: number;
  contrastWeight: number;
  temperature: number;
  contrastRowsMax: number;
  seed: number;
};

export type CodebooksRecipe = {
  levels: number;
  codes: number;
  iterations: number;
  beam: number;
  collaborativeWeight: number;
  textWeight: number;
  /** Share of the items that clustering does not see, so that the error on unknown items is measured. */
  holdoutShare: number;
  seed: number;
};

/** An autoencoder with residual codebooks between its halves, whose latents are clustered in place of the item vectors. */
export type RqvaeRecipe = {
  latentDim: number;
  hiddenDim: number;
  steps: number;
  /** Of these steps, those before the quantizer takes part. */
  warmupSteps: number;
  batchItems: number;
  learningRate: number;
  /** Of the latents' distance to their codes, beside that of the codes to the latents. */
  commitmentWeight: number;
};

/** Moves the codebooks towards the space of the item texts; a run without any weight leaves the job out. */
export type AlignmentRecipe = {
  /** Of the contrast between the whole sum of an item's codes and its text. */
  weight: number;
  /** Of the same on the prefix sums, their mean. */
  prefixWeight: number;
  temperature: number;
  steps: number;
  batchItems: number;
  learningRate: number;
  /** The language model's rows of the item tokens begin at the images of the codes in the text space. */
  initialiseTokens: boolean;
};

/** `vocabularySize` bounds the text part (special tokens, bytes, merges); item tokens come behind it. */
export type RenderRecipe = {
  vocabularySize: number;
  historyItemsMax: number;
  tasks: TasksRecipe;
  /** Fields that {text} is made of, in their order. */
  textOrder: TextField[];
  /** Tokens of one text in an example; what is longer is cut. */
  textTokensMax: number;
  /** Users with a prompt for their validation event: those of `fusion`, 0 without it. */
  validationPrompts: number;
  seed: number;
};

export type ScratchBase = {
  kind: 'scratch';
  layers: number;
  dim: number;
  heads: number;
  kvHeads: number;
  ffnDim: number;
  ropeTheta: number;
  normEps: number;
  tieEmbeddings: boolean;
};
export type HuggingFaceBase = { kind: 'huggingface' };
export type FullTraining = { kind: 'full' };
export type LoraTraining = { kind: 'lora'; rank: number; alpha: number; targets: string[] };

export type TuneRecipe = {
  base: ScratchBase | HuggingFaceBase;
  trainable: FullTraining | LoraTraining;
  steps: number;
  batchSequences: number;
  lanes: number;
  learningRate: number;
  minLearningRate: number;
  warmupSteps: number;
  weightDecay: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  clipNorm: number;
  dropout: number;
  /** How sharply the ranking task tells chosen from sampled items; S-DPO's β. */
  preferenceBeta: number;
  /** Of matrix products in training: `bf16` needs workers whose processors have it; sums and weights stay fp32. */
  precision: 'fp32' | 'bf16';
  seed: number;
};

/** The dense sequence model; `seeds` models are trained, with seeds that follow each other, and ranked together. */
export type DenseRecipe = {
  layers: number;
  dim: number;
  heads: number;
  ffnDim: number;
  /** Newest items of a history that the model sees. */
  itemsMax: number;
  /** Width of the network that makes item rows of text vectors. */
  textHidden: number;
  /** Logits are cosines over this. */
  temperature: number;
  dropout: number;
  /** How often the id row of an item with text is left out in training. */
  idDropout: number;
  epochs: number;
  batchSequences: number;
  lanes: number;
  learningRate: number;
  minLearningRate: number;
  warmupSteps: number;
  weightDecay: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  clipNorm: number;
  seed: number;
  seeds: number;
};

export type RankRecipe = {
  /** Hypotheses kept after each level of an id: one number for all, or a list with one for each level. */
  beams: number | number[];
  topK: number;
  scoreNormaliser: 'full' | 'valid';
  /** Prompts of a shard whose lists are held against an exact search, so that the cost of pruning is known; 0 for none. */
  searchLossPrompts: number;
};

/** Values tried on the validation events; every combination is scored. */
export type CooccurrenceGrid = { windows: number[]; backwardWeights: number[]; historyDecays: number[] };
/** `k`: the cut-offs of HR@k and NDCG@k, ascending. */
export type EvaluateRecipe = {
  cooccurrence: CooccurrenceGrid;
  k: number[];
  /** Of the bootstrap over users, for the 95 % intervals. */
  resamples: number;
  seed: number;
};

/** How the published list is made of several sources; see fusion.ts. */
export type FusionRecipe = {
  /** Users, drawn by the seed of `render`, on whose validation events the weights are fitted. */
  validationUsers: number;
  /** Best items by co-occurrence that become candidates beside those of the lists. */
  candidates: number;
  /** Added to a co-occurrence score before its logarithm. */
  cooccurrenceFloor: number;
  /** How far an item that a list lacks is below the list's last, in nats. */
  missingMargin: number;
  /** Values tried for each source's weight. */
  weights: number[];
};

export type AssembleRecipe = { k: number };

/** The shape of `RunPlan.recipes`. */
export type Recipes = {
  simulate: SimulateRecipe | null;
  ingest: IngestRecipe;
  dccf: DccfRecipe;
  textVectors: TextVectorsRecipe | null;
  /** Null: not from the model. */
  embedText: EmbedTextRecipe | null;
  codebooks: CodebooksRecipe;
  /** Null: the item vectors themselves are clustered. */
  rqvae: RqvaeRecipe | null;
  /** Null: off. */
  alignment: AlignmentRecipe | null;
  render: RenderRecipe;
  tune: TuneRecipe;
  rank: RankRecipe;
  dense: DenseRecipe | null;
  evaluate: EvaluateRecipe;
  /** Null: the model's own list is published, the paper's form. */
  fusion: FusionRecipe | null;
  assemble: AssembleRecipe;
};

export const LORA_TARGETS: readonly string[] = [
  'q_proj',
  'k_proj',
  'v_proj',
  'o_proj',
  'gate_proj',
  'up_proj',
  'down_proj',
];

const DEFAULT_SEED = 2024;
const DEFAULT_VALIDATION_USERS = 2000;

const SCRATCH_BASE: ScratchBase = {
  kind: 'scratch',
  layers: 3,
  dim: 128,
  heads: 4,
  kvHeads: 2,
  ffnDim: 352,
  ropeTheta: 10000,
  normEps: 1e-5,
  tieEmbeddings: true,
};

/** Sized for the simulated shop on two CPU cores; fresh copies on every call. */
export function defaultRecipes(
  seed: number = DEFAULT_SEED,
): Recipes & { simulate: SimulateRecipe; textVectors: TextVectorsRecipe; dense: DenseRecipe; fusion: FusionRecipe } {
  return {
    simulate: { seed, items: 1000, users: 3000, eventsPerUserMin: 5, eventsPerUserMax: 25 },
    ingest: { format: 'collimate', minEventsPerUser: 1, minEventsPerItem: 1, columns: null },
    dccf: {
      dim: 32,
      layers: 2,
      intents: 32,
      epochs: 20,
      batchSize: 2048,
      learningRate: 0.002,
      // The paper's 2.5e-5 overfits graphs of this size; a sweep of ten settings on one real log did best here.
      weightDecay: 3e-3,
      intentWeight: 5e-3,
      contrastWeight: 0.1,
      temperature: 1,
      contrastRowsMax: 256,
      seed,
    },
    textVectors: { dim: 64, minDocuments: 2, iterations: 4, seed },
    embedText: null,
    codebooks: {
      levels: 4,
      codes: 256,
      iterations: 25,
      beam: 1,
      collaborativeWeight: 1,
      textWeight: 1,
      holdoutShare: 0,
      seed,
    },
    rqvae: null,
    alignment: null,
    render: {
      vocabularySize: 512,
      historyItemsMax: 20,
      tasks: defaultTasks(),
      textOrder: [...TEXT_FIELDS],
      textTokensMax: 48,
      validationPrompts: DEFAULT_VALIDATION_USERS,
      seed,
    },
    tune: {
      base: { ...SCRATCH_BASE },
      trainable: { kind: 'full' },
      steps: 800,
      batchSequences: 64,
      lanes: 8,
      learningRate: 0.002,
      minLearningRate: 0.0002,
      warmupSteps: 50,
      weightDecay: 0.05,
      beta1: 0.9,
      beta2: 0.98,
      epsilon: 1e-8,
      clipNorm: 1,
      dropout: 0.1,
      preferenceBeta: 0.1,
      precision: 'fp32',
      seed,
    },
    rank: { beams: 50, topK: 50, scoreNormaliser: 'full', searchLossPrompts: 4 },
    dense: {
      layers: 2,
      dim: 64,
      heads: 2,
      ffnDim: 64,
      itemsMax: 50,
      textHidden: 64,
      temperature: 0.07,
      dropout: 0.3,
      idDropout: 0.3,
      epochs: 20,
      batchSequences: 128,
      lanes: 4,
      learningRate: 0.002,
      minLearningRate: 0.00002,
      warmupSteps: 50,
      weightDecay: 0,
      beta1: 0.9,
      beta2: 0.98,
      epsilon: 1e-8,
      clipNorm: 5,
      seed,
      seeds: 1,
    },
    evaluate: {
      cooccurrence: { windows: [5, 20], backwardWeights: [0.4, 0.8], historyDecays: [0.4, 0.6, 0.8] },
      k: [1, 5, 10, 20],
      resamples: 1000,
      seed,
    },
    fusion: {
      validationUsers: DEFAULT_VALIDATION_USERS,
      candidates: 100,
      cooccurrenceFloor: 1e-3,
      missingMargin: 1,
      weights: [0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.8, 1, 1.5, 2.5],
    },
    assemble: { k: 50 },
  };
}

/** Fine-tuning a pretrained base: low-rank adapters and gentler steps than training from scratch. */
const HUGGING_FACE_TUNE: Partial<TuneRecipe> = {
  base: { kind: 'huggingface' },
  trainable: { kind: 'lora', rank: 8, alpha: 16, targets: [...LORA_TARGETS] },
  learningRate: 5e-4,
  minLearningRate: 5e-5,
  weightDecay: 0.01,
  dropout: 0.05,
};

const EMBED_TEXT: EmbedTextRecipe = { tokensMax: 128, tokensPerBatch: 1024, centre: 1 };

const RQVAE: RqvaeRecipe = {
  latentDim: 32,
  hiddenDim: 256,
  steps: 1000,
  warmupSteps: 200,
  batchItems: 512,
  learningRate: 0.001,
  commitmentWeight: 0.25,
};

/** Off by default: `weight` or `prefixWeight` above 0 switches it on. */
const ALIGNMENT: AlignmentRecipe = {
  weight: 0,
  prefixWeight: 0,
  temperature: 0.07,
  steps: 400,
  batchItems: 256,
  learningRate: 0.001,
  initialiseTokens: true,
};

type Section = Exclude<keyof Recipes, 'tune' | 'render'>;
export type RenderOverrides = Partial<Omit<RenderRecipe, 'tasks'>> & {
  tasks?: { [T in TaskName]?: Partial<TasksRecipe[T]> };
};
export type TuneOverrides = Partial<Omit<TuneRecipe, 'base' | 'trainable'>> & {
  base?: Partial<ScratchBase> | HuggingFaceBase;
  trainable?: FullTraining | (Partial<LoraTraining> & { kind: 'lora' });
};
/** What a run file may say: any subset of fields; `null` switches the optional `simulate`, `textVectors`, `dense` or `fusion` off. */
export type RecipeOverrides = {
  /** Seed of every kind that does not name its own. */
  seed?: number;
  tune?: TuneOverrides;
  render?: RenderOverrides;
} & { [S in Section]?: Partial<NonNullable<Recipes[S]>> | Extract<Recipes[S], null> };

/** Defaults with the run file's values in their place. Types of single values are checked by the jobs that use them. */
export function resolveRecipes(overrides: RecipeOverrides = {}): Recipes {
  const defaults = defaultRecipes(overrides.seed);
  rejectUnknown('recipes', overrides, ['seed', ...Object.keys(defaults)]);
  const fusion = overrides.fusion === null ? null : merge('fusion', defaults.fusion, overrides.fusion);
  const validationPrompts = fusion?.validationUsers ?? 0;
  return {
    simulate: overrides.simulate === null ? null : merge('simulate', defaults.simulate, overrides.simulate),
    ingest: merge('ingest', defaults.ingest, overrides.ingest),
    dccf: merge('dccf', defaults.dccf, overrides.dccf),
    textVectors:
      overrides.textVectors === null ? null : merge('textVectors', defaults.textVectors, overrides.textVectors),
    embedText:
      overrides.embedText === undefined || overrides.embedText === null
        ? null
        : merge('embedText', EMBED_TEXT, overrides.embedText),
    codebooks: merge('codebooks', defaults.codebooks, overrides.codebooks),
    rqvae:
      overrides.rqvae === undefined || overrides.rqvae === null
        ? null
        : merge('codebooks.rqvae', RQVAE, overrides.rqvae),
    alignment: resolveAlignment(overrides.alignment),
    render: { ...resolveRender(defaults.render, overrides.render ?? {}), validationPrompts },
    tune: resolveTune(defaults.tune, overrides.tune ?? {}),
    rank: merge('rank', defaults.rank, overrides.rank),
    dense: overrides.dense === null ? null : merge('dense', defaults.dense, overrides.dense),
    evaluate: resolveEvaluate(defaults.evaluate, overrides.evaluate),
    fusion,
    assemble: merge('assemble', defaults.assemble, overrides.assemble),
  };
}

function resolveTune(defaults: TuneRecipe, overrides: TuneOverrides): TuneRecipe {
  const { base, trainable, ...rest } = overrides;
  const start = base?.kind === 'huggingface' ? { ...defaults, ...HUGGING_FACE_TUNE } : defaults;
  const resolved = merge('tune', start, rest);
  if (base !== undefined && base.kind !== 'huggingface') resolved.base = merge('tune.base', SCRATCH_BASE, base);
  if (trainable?.kind === 'full') resolved.trainable = merge('tune.trainable', trainable, undefined);
  if (trainable?.kind === 'lora') {
    const lora: LoraTraining = { kind: 'lora', rank: 8, alpha: 16, targets: [...LORA_TARGETS] };
    resolved.trainable = merge('tune.trainable', lora, trainable);
  }
  return resolved;
}

function resolveRender(defaults: RenderRecipe, { tasks = {}, ...rest }: RenderOverrides): RenderRecipe {
  const resolved = merge('render', defaults, rest);
  rejectUnknown('render.tasks', tasks, [...TASK_NAMES]);
  const given = TASK_NAMES.map((name) => [name, merge(`render.tasks.${name}`, defaults.tasks[name], tasks[name])]);
  resolved.tasks = Object.fromEntries(given) as TasksRecipe;
  return resolved;
}

function resolveAlignment(overrides: Partial<AlignmentRecipe> | null | undefined): AlignmentRecipe | null {
  if (overrides === null) return null;
  const resolved = merge('codebooks.alignment', ALIGNMENT, overrides);
  return resolved.weight > 0 || resolved.prefixWeight > 0 ? resolved : null;
}

function resolveEvaluate(defaults: EvaluateRecipe, overrides: Partial<EvaluateRecipe> | undefined): EvaluateRecipe {
  const resolved = merge('evaluate', defaults, overrides);
  resolved.cooccurrence = merge('evaluate.cooccurrence', defaults.cooccurrence, overrides?.cooccurrence);
  return resolved;
}

function merge<R extends object>(section: string, defaults: R, overrides: Partial<R> | undefined): R {
  if (overrides === undefined) return { ...defaults };
  rejectUnknown(section, overrides, Object.keys(defaults));
  const given = Object.entries(overrides).filter(([, value]) => value !== undefined);
  return { ...defaults, ...Object.fromEntries(given) };
}

function rejectUnknown(section: string, given: object, known: string[]): void {
  for (const key of Object.keys(given)) {
    if (!known.includes(key)) {
      throw new BadInputError(`${section}: unknown field '${key}'; expected one of ${known.join(', ')}`);
    }
  }
}
