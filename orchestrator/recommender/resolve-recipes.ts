/**
 * From what a run file says to whole recipes.
 *
 * 1. A resolved recipe has every field, so that a job key never depends on defaults.
 * 2. An override of a field that a recipe does not have is bad input: a misspelt key must not be ignored.
 */
import {
  ALIGNMENT,
  defaultRecipes,
  EMBED_TEXT,
  HUGGING_FACE_TUNE,
  LORA_TARGETS,
  RQVAE,
  SCRATCH_BASE,
} from './default-recipes.js';
import { BadInputError } from './domain-job.js';
import {
  type AlignmentRecipe,
  type EvaluateRecipe,
  type FullTraining,
  type HuggingFaceBase,
  type LoraTraining,
  type Recipes,
  type RenderRecipe,
  type ScratchBase,
  type TuneRecipe,
} from './recipes.js';
import { TASK_NAMES, type TaskName, type TasksRecipe } from './tasks/task-recipes.js';

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
