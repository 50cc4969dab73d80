/**
 * The run file: one zod source for validation, types and the published JSON Schema.
 *
 * 1. Unknown keys are refused everywhere: a misspelt setting must not be ignored.
 * 2. Field names equal those of the recipes (native/JOBS.md); what is left out takes the default of `resolveRecipes`.
 * 3. Only checks of single values live here; checks across fields need the defaults and run on the resolved plan.
 */
import { z } from 'zod';

import { LORA_TARGETS } from '../recommender/default-recipes.js';
import { INGEST_FORMATS } from '../recommender/recipes.js';
import { TEXT_FIELDS } from '../recommender/tasks/task-recipes.js';

const count = (max = 1_000_000_000) => z.int().min(1).max(max);
const whole = (max = 1_000_000_000) => z.int().min(0).max(max);
const positive = () => z.number().positive();
const notNegative = () => z.number().nonnegative();
const fraction = () => z.number().min(0).lt(1);
const seed = () => z.int().min(0).describe('Seed of the counter-based generator.');

/** Every field may be left out: the default is filled in later, so an explicit `null` is an error. */
function fields<Shape extends Record<string, z.ZodType>>(shape: Shape) {
  const optional = Object.fromEntries(
    Object.entries(shape).map(([name, schema]) => [name, z.exactOptional(schema)]),
  ) as unknown as { [Name in keyof Shape]: z.ZodExactOptional<Shape[Name]> };
  return z.strictObject(optional);
}

const simulatedData = z.strictObject({
  simulate: fields({
    seed: seed(),
    items: count(1_000_000).describe('Items of the simulated shop.'),
    users: count(10_000_000).describe('Shoppers of the simulated shop.'),
    eventsPerUserMin: count(10_000),
    eventsPerUserMax: count(10_000),
  }).describe('The seeded simulated shop: no files needed.'),
});

const column = () => z.string().min(1);
const columns = z.strictObject({
  user: column(),
  item: column().describe('The same in both files.'),
  time: z.exactOptional(column().describe('Numbers or ISO 8601 dates; left out, the order in the file is the time.')),
  title: z.exactOptional(column()),
  brand: z.exactOptional(column()),
  categories: z.exactOptional(column()),
  keywords: z.exactOptional(column()),
  description: z.exactOptional(column()),
  separator: z.exactOptional(z.string().length(1).describe('Between the cells of a CSV; a comma when left out.')),
});

const fileData = z.strictObject({
  format: z.enum(INGEST_FORMATS).describe('Form of the files.'),
  interactions: z.string().min(1).describe('Behaviour log, relative to the run file; .gz is read as it is.'),
  items: z.exactOptional(
    z
      .string()
      .min(1)
      .describe('Item texts, relative to the run file; .gz is read as it is. Left out: items are ids without text.'),
  ),
  columns: z.exactOptional(columns.describe('With format csv or ndjson: names of the columns (fields) of both files.')),
  minEventsPerUser: z.exactOptional(count(1_000)),
  minEventsPerItem: z.exactOptional(count(1_000)),
  textVectors: z.exactOptional(
    z
      .string()
      .min(1)
      .describe(
        "Vectors of the items' texts in place of those that embed.text makes, relative to the run file: safetensors with `vectors` [n, width] and `item_id` [n], or the ids as a JSON list in the metadata field `items`.",
      ),
  ),
});

const textVectors = fields({
  from: z.enum(['tfidf', 'model']).describe("TF-IDF and truncated SVD, or the base model's hidden states."),
  tokensMax: count(65_536).describe('Of "model": tokens of a text; what is behind is cut off.'),
  tokensPerBatch: count(1_048_576).describe('Of "model": tokens of one pass.'),
  centre: z.boolean().describe('Of "model": the mean over all texts is taken off; true if left out.'),
  dim: count(4_096),
  minDocuments: count(),
  iterations: count(1_000),
  seed: seed(),
});

const embed = fields({
  dim: count(4_096),
  layers: count(16),
  intents: z
    .int()
    .min(0)
    .max(4_096)
    .describe('0: the graph alone (LightGCN); intentWeight and contrastWeight are then 0.'),
  epochs: count(100_000),
  batchSize: count(10_000_000),
  learningRate: positive(),
  weightDecay: notNegative(),
  intentWeight: notNegative(),
  contrastWeight: notNegative(),
  temperature: positive(),
  contrastRowsMax: count(),
  seed: seed(),
  text: z
    .union([textVectors, z.literal(false)])
    .describe(
      'Settings of the item text vectors (by default TF-IDF, truncated SVD), or false: codes from behaviour alone.',
    ),
});

const codebooks = fields({
  levels: count(8),
  codes: count(65_536).describe('Codes per level.'),
  iterations: count(10_000).describe('Lloyd iterations per level.'),
  beam: count(256).describe('Partial sums that the encoding keeps per item; 1: the nearest code of each level.'),
  collaborativeWeight: notNegative(),
  textWeight: notNegative(),
  holdoutShare: z
    .number()
    .min(0)
    .max(0.5)
    .describe('Share of the items that clustering does not see, so that the error on unknown items is measured.'),
  seed: seed(),
  published: z
    .string()
    .min(1)
    .describe(
      'An earlier run whose items keep their ids: codebooks are not trained, items that came later get free ids.',
    ),
  rqvae: z
    .union([
      fields({
        latentDim: count(65_536),
        hiddenDim: count(65_536),
        steps: count(),
        warmupSteps: z.int().min(0).describe('Of these steps, those before the quantizer takes part.'),
        batchItems: count(1_048_576),
        learningRate: positive(),
        commitmentWeight: notNegative().describe("Of the latents' distance to their codes."),
      }),
      z.literal(false),
    ])
    .describe(
      'RQ-VAE: an autoencoder with residual codebooks between its halves; its latents are clustered. False, the default: the vectors themselves.',
    ),
  alignment: fields({
    weight: notNegative().describe("Of the contrast between an item's codes and its text; 0 with prefixWeight 0: off."),
    prefixWeight: notNegative().describe('Of the same contrast on the sums of the first 1, 2, … codes.'),
    temperature: z.number().min(0.001).max(1_000),
    steps: count(),
    batchItems: z.int().min(2).max(1_048_576).describe('Items of a step; each is contrasted with the others.'),
    learningRate: positive(),
    initialiseTokens: z
      .boolean()
      .describe("The model's rows of the item tokens begin at their codes' places in the text space, not at random."),
  }).describe('Moves the codebooks towards the space of the item texts after clustering. Off by default.'),
});

const weight = () => z.number().min(0).max(1_000).describe('Examples per training sequence; 0: none.');
const wordings = () => z.array(z.string().min(1)).min(1);

const render = fields({
  vocabularySize: z.int().min(260).max(1_000_000).describe('Text tokens of the learned tokenizer.'),
  historyItemsMax: count(10_000).describe('Newest items of a history that a prompt holds.'),
  tasks: fields({
    sequential: fields({ weight: weight(), templates: wordings() }),
    text: fields({ weight: weight(), templates: wordings() }),
    query: fields({
      weight: weight(),
      templates: wordings(),
      intentions: wordings().describe('Wordings with {words}, {brand}, {category}, {keywords} of an item.'),
    }),
    negative: fields({ weight: weight(), templates: wordings() }),
    ranking: fields({
      weight: weight(),
      templates: wordings(),
      negatives: count(64).describe('Sampled items beside each chosen one.'),
    }),
  }).describe(
    'Alignment tasks: examples for every training sequence, and wordings ("prompt {placeholder} => {answer}").',
  ),
  textOrder: z.array(z.enum(TEXT_FIELDS)).min(1).describe('Fields that {text} is made of, in their order.'),
  textTokensMax: count(10_000).describe('Tokens of one text in an example.'),
  seed: seed(),
});

const lora = z.strictObject({
  lora: fields({
    rank: count(1_024),
    alpha: positive(),
    targets: z.array(z.enum(LORA_TARGETS as [string, ...string[]])).min(1),
  }),
});

const model = fields({
  base: z
    .string()
    .min(1)
    .describe('"scratch", or a Hugging Face model directory (Llama, Mistral, Qwen), relative to the run file.'),
  adapter: z
    .string()
    .min(1)
    .describe(
      'A PEFT adapter folder to start from, relative to the run file: LoRA made for the Hugging Face base; brings its rank, alpha and targets.',
    ),
  train: z
    .union([z.literal('full'), lora])
    .describe('"full", or { lora: { rank, alpha, targets } }: all parameters or low-rank adapters.'),
  layers: count(1_000),
  dim: count(65_536),
  heads: count(1_024),
  kvHeads: count(1_024),
  ffnDim: count(1_000_000),
  ropeTheta: positive(),
  normEps: positive(),
  tieEmbeddings: z.boolean(),
});

const tune = fields({
  steps: count(),
  batchSequences: count(1_000_000),
  lanes: count(4_096).describe('Parts of a batch whose gradients are summed by a fixed tree: a power of two.'),
  learningRate: positive(),
  minLearningRate: notNegative(),
  warmupSteps: whole(),
  weightDecay: notNegative(),
  beta1: fraction(),
  beta2: fraction(),
  epsilon: positive(),
  clipNorm: positive(),
  dropout: fraction(),
  preferenceBeta: positive().describe(
    'Of the ranking task (S-DPO): how sharply chosen items are told from sampled ones.',
  ),
  precision: z
    .enum(['fp32', 'bf16', 'fp8'])
    .describe(
      'Of matrix products: bf16 is faster, and needs workers with AMX, AVX512-BF16 or a GPU; fp8 is bf16 but for the frozen matrices under adapters, and needs GPUs. Sums and weights stay fp32.',
    ),
  seed: seed(),
});

const rank = fields({
  beams: z
    .union([count(10_000), z.array(count(10_000)).min(1)])
    .describe('Hypotheses kept after each level of an id: a number, or a list with one for each of codebooks.levels.'),
  topK: count(10_000),
  scoreNormaliser: z.enum(['full', 'valid']),
  searchLossPrompts: whole().describe(
    'Prompts of a shard whose lists are held against an exact search, to report what pruning costs; 0 for none.',
  ),
  precision: z.enum(['fp32', 'bf16']).describe('Of matrix products, as in tune.'),
  shardPrompts: count().describe('Prompts per independent shard; part of the result, so it never follows the fleet.'),
});

const dense = fields({
  layers: count(128),
  dim: count(65_536),
  heads: count(1_024),
  ffnDim: count(65_536),
  itemsMax: count(65_536).describe('Newest items of a history that the model sees.'),
  textHidden: count(65_536).describe('Width of the network that makes item rows of text vectors.'),
  temperature: positive().describe('Logits are cosines over this.'),
  dropout: fraction(),
  idDropout: z.number().min(0).max(1).describe('How often the id row of an item with text is left out in training.'),
  epochs: count(1_000_000),
  batchSequences: count(1_000_000),
  lanes: count(4_096).describe('Parts of a batch whose gradients are summed by a fixed tree: a power of two.'),
  learningRate: positive(),
  minLearningRate: notNegative(),
  warmupSteps: whole(),
  weightDecay: notNegative(),
  beta1: fraction(),
  beta2: fraction(),
  epsilon: positive(),
  clipNorm: notNegative(),
  seed: seed(),
  seeds: count(100).describe('Models, of seeds that follow each other, whose log-probabilities are averaged.'),
});

const evaluate = fields({
  k: z.array(count(10_000)).min(1).describe('Cut-offs of HR@k and NDCG@k, ascending.'),
  cooccurrence: fields({
    windows: z.array(count(10_000)).min(1),
    backwardWeights: z.array(notNegative()).min(1),
    historyDecays: z.array(positive()).min(1),
  }).describe('Grid in which the co-occurrence baseline is tuned on the validation events.'),
  resamples: count(1_000_000).describe('Of the bootstrap over users that gives the 95 % intervals.'),
  seed: seed(),
});

const fusion = fields({
  validationUsers: count().describe('Users, drawn by the seed, on whose validation events the weights are fitted.'),
  candidates: count(10_000).describe("Best items by co-occurrence that are scored beside those of the model's list."),
  cooccurrenceFloor: positive().describe('Added to a co-occurrence score before its logarithm.'),
  missingMargin: notNegative().describe("How far below a list's last item one that it lacks is scored, in nats."),
  weights: z.array(notNegative()).min(1).describe("Values tried for each source's weight."),
});

const fleet = fields({
  workers: fields({
    min: count(10_000),
    max: count(10_000),
    spares: whole(10_000).describe('Free workers that a gang leaves alone, so that a lost member is replaced at once.'),
  }).describe('Fewest and most workers of one gang. It goes on with fewer after a loss, and grows again.'),
  waitSeconds: positive().describe('How long a job waits for enough free workers before the run fails.'),
});

const limits = fields({
  runSeconds: positive().describe('The run ends as failed after this time; pauses count. Left out: no limit.'),
  stallSeconds: positive().describe('A gang that answers but takes no step for so long is taken for stuck.'),
});

const checkpoints = fields({
  dccf: whole(),
  codebooks: whole(),
  tune: whole(),
  dense: whole(),
  keep: count(1_000_000).describe('Newest checkpoints that stay of each job, for "collimate verify" to start from.'),
}).describe('Steps between two checkpoints; 0 for none. Never alters the result.');

export const runFileSchema = z
  .strictObject({
    name: z
      .string()
      .regex(/^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$/, 'lower-case letters, digits and "-", at most 48 characters')
      .describe('Name of the run; its id is the name, the date and a random part.'),
    data: z
      .union([z.string().min(1), simulatedData, fileData])
      .describe('A folder whose files tell the format, the files and their format, or the simulated shop.'),
    seed: z.exactOptional(seed().describe('Seed of every part that does not name its own.')),
    embed: z.exactOptional(embed.describe('Collaborative embeddings (DCCF) and item text vectors.')),
    codebooks: z.exactOptional(codebooks.describe('Stage 1, alignment of tokens: residual codebooks, semantic ids.')),
    render: z.exactOptional(render.describe('Rendering of histories to prompts and training examples.')),
    model: z.exactOptional(model.describe('The language model.')),
    tune: z.exactOptional(tune.describe('Stage 2, alignment of tasks: fine-tuning.')),
    rank: z.exactOptional(rank.describe('Trie-constrained beam search.')),
    dense: z.exactOptional(
      z
        .union([dense, z.literal(false)])
        .describe('The dense sequence model, trained beside the language model as its baseline; false: none.'),
    ),
    evaluate: z.exactOptional(evaluate),
    fusion: z.exactOptional(
      z
        .union([fusion, z.literal(false)])
        .describe(
          "The published list is scored by the model and by co-occurrence, with weights from validation events; false: the model's own list, the paper's form.",
        ),
    ),
    publish: z.exactOptional(
      z
        .union([
          z.boolean(),
          fields({
            k: count(1_000).describe('Length of a published list.'),
            approval: z.boolean().describe('Publishing waits for "collimate approve".'),
          }),
        ])
        .describe('True, false, or { k: N, approval: true }: whether lists are published for look-up, and how.'),
    ),
    fleet: z.exactOptional(fleet),
    limits: z.exactOptional(limits.describe('Time limits. Never alter the result.')),
    checkpoints: z.exactOptional(checkpoints),
    numericsClass: z.exactOptional(
      z.string().min(1).describe('Pins the numerics class; left out, that of the first free worker.'),
    ),
    historyEventsMax: z.exactOptional(
      z.int().min(50).max(20_000).describe('Temporal history events after which a stage continues as new.'),
    ),
  })
  .describe('Run file of Collimate.');

export type RunFile = z.output<typeof runFileSchema>;

/** The JSON Schema of the run file, from the same source; checked in as run-file.schema.json. */
export function runFileJsonSchema(): Record<string, unknown> {
  return {
    ...z.toJSONSchema(runFileSchema, { target: 'draft-2020-12', io: 'input' }),
    title: 'Collimate run file',
  };
}
