/** What every recipe is where a run file says nothing. */
import {
  type AlignmentRecipe,
  type DenseRecipe,
  type EmbedTextRecipe,
  type FusionRecipe,
  type Recipes,
  type RqvaeRecipe,
  type ScratchBase,
  type SimulateRecipe,
  type TextVectorsRecipe,
  type TuneRecipe,
} from './recipes.js';
import { defaultTasks, TEXT_FIELDS } from './tasks/task-recipes.js';

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

export const SCRATCH_BASE: ScratchBase = {
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
    rank: { beams: 50, topK: 50, scoreNormaliser: 'full', searchLossPrompts: 4, precision: 'fp32' },
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
export const HUGGING_FACE_TUNE: Partial<TuneRecipe> = {
  base: { kind: 'huggingface' },
  trainable: { kind: 'lora', rank: 8, alpha: 16, targets: [...LORA_TARGETS] },
  learningRate: 5e-4,
  minLearningRate: 5e-5,
  weightDecay: 0.01,
  dropout: 0.05,
};

export const EMBED_TEXT: EmbedTextRecipe = { tokensMax: 128, tokensPerBatch: 1024, centre: 1 };

export const RQVAE: RqvaeRecipe = {
  latentDim: 32,
  hiddenDim: 256,
  steps: 1000,
  warmupSteps: 200,
  batchItems: 512,
  learningRate: 0.001,
  commitmentWeight: 0.25,
};

/** Off by default: `weight` or `prefixWeight` above 0 switches it on. */
export const ALIGNMENT: AlignmentRecipe = {
  weight: 0,
  prefixWeight: 0,
  temperature: 0.07,
  steps: 400,
  batchItems: 256,
  learningRate: 0.001,
  initialiseTokens: true,
};
