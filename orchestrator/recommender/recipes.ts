/**
 * Recipes of every job kind as types: what `default-recipes.ts` fills in and `resolve-recipes.ts` makes of a run file.
 *
 * 1. Field names are those of native/JOBS.md.
 * 2. Recipes are plain JSON (type aliases, not interfaces, so that they are assignable to `JsonObject`).
 */
import { type TasksRecipe, type TextField } from './tasks/task-recipes.js';

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
  /**
   * Of matrix products in training: `bf16` needs workers whose processors have it, or GPUs; `fp8` (for the frozen matrices
   * under adapters, else as bf16) needs GPUs. Sums and weights stay fp32.
   */
  precision: 'fp32' | 'bf16' | 'fp8';
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
  /** Of matrix products in ranking; as in `TuneRecipe`, but another choice than there is fine. */
  precision: 'fp32' | 'bf16';
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
