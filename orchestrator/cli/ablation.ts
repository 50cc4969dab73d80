/**
 * What `collimate ablate` switches off, one part at a time: a list of named overrides over the run file.
 *
 * 1. A part that a run does not have is left out with the reason, never run as if it had been switched off.
 * 2. A part is added by adding to `ABLATIONS`: it sees the resolved recipes and answers settings of the run file.
 */
import { type RunPlan } from '../../workflows/contract.js';
import { type Recipes } from '../recommender/recipes.js';
import { CliError } from './cli-error.js';
import { nearest } from './nearest.js';
import { type Settings, type Sweep } from './sweep-file.js';

/** Settings that switch the part off, or why it cannot be. */
type Switched = Settings | { reason: string };

export interface Ablation {
  /** For `--part`, and in tables. */
  name: string;
  /** What is left out. */
  meaning: string;
  off: (recipes: Recipes) => Switched;
}

const ALIGNMENT_OFF: Settings = { 'codebooks.alignment.weight': 0, 'codebooks.alignment.prefixWeight': 0 };

export const ABLATIONS: readonly Ablation[] = [
  {
    name: 'text-vectors',
    meaning: 'codes from behaviour alone',
    off: ({ textVectors, codebooks, alignment }) => {
      if (textVectors === null) return { reason: 'the run has no text vectors (embed.text is false)' };
      if (codebooks.collaborativeWeight === 0) return { reason: 'nothing would be left to make codes from' };
      // Without texts there is nothing to align with.
      return { 'embed.text': false, ...(alignment === null ? {} : ALIGNMENT_OFF) };
    },
  },
  {
    name: 'collaborative-vectors',
    meaning: 'codes from text alone',
    off: ({ textVectors, codebooks }) => {
      if (codebooks.collaborativeWeight === 0) return { reason: 'codebooks.collaborativeWeight is 0' };
      if (textVectors === null || codebooks.textWeight === 0) {
        return { reason: 'nothing would be left to make codes from' };
      }
      return { 'codebooks.collaborativeWeight': 0 };
    },
  },
  {
    name: 'graph',
    meaning: 'one layer of the graph instead of several',
    off: ({ dccf }) => (dccf.layers === 1 ? { reason: 'embed.layers is 1' } : { 'embed.layers': 1 }),
  },
  {
    name: 'intents',
    meaning: 'collaborative vectors of the graph alone (LightGCN), without intents and their contrast',
    off: ({ dccf }) =>
      dccf.intents === 0
        ? { reason: 'embed.intents is 0' }
        : { 'embed.intents': 0, 'embed.intentWeight': 0, 'embed.contrastWeight': 0 },
  },
  {
    name: 'encoder',
    meaning: 'codes of the item vectors themselves instead of the latents of RQ-VAE',
    off: ({ rqvae }) => (rqvae === null ? { reason: 'codebooks.rqvae is false' } : { 'codebooks.rqvae': false }),
  },
  {
    name: 'clustering',
    meaning: 'codebooks after one iteration instead of trained ones',
    off: ({ codebooks }) =>
      codebooks.iterations === 1 ? { reason: 'codebooks.iterations is 1' } : { 'codebooks.iterations': 1 },
  },
  {
    name: 'alignment',
    meaning: 'codebooks as the clustering left them, and drawn token rows',
    off: ({ alignment }) => (alignment === null ? { reason: 'codebooks.alignment has no weight' } : ALIGNMENT_OFF),
  },
  {
    name: 'token-rows',
    meaning: "drawn rows of the item tokens instead of their codes' places among the texts",
    off: ({ alignment }) => {
      if (alignment === null) return { reason: 'codebooks.alignment has no weight' };
      if (!alignment.initialiseTokens) return { reason: 'codebooks.alignment.initialiseTokens is false' };
      return { 'codebooks.alignment.initialiseTokens': false };
    },
  },
  {
    name: 'levels',
    meaning: 'ids of one token fewer',
    off: ({ codebooks: { levels }, rank: { beams } }) => {
      if (levels === 1) return { reason: 'codebooks.levels is 1' };
      const widths = typeof beams === 'number' ? {} : { 'rank.beams': beams.slice(1) };
      return { 'codebooks.levels': levels - 1, ...widths };
    },
  },
  {
    name: 'templates',
    meaning: 'one wording of the sequential task instead of several',
    off: ({ render: { tasks } }) =>
      tasks.sequential.templates.length === 1
        ? { reason: 'render.tasks.sequential.templates has one entry' }
        : { 'render.tasks.sequential.templates': tasks.sequential.templates.slice(0, 1) },
  },
  ...(['text', 'query', 'negative', 'ranking'] as const).map((task) => ({
    name: `task-${task}`,
    meaning: `tuning without the examples of the ${task} task`,
    off: ({ render: { tasks } }: Recipes): Switched =>
      tasks[task].weight === 0
        ? { reason: `render.tasks.${task}.weight is 0` }
        : { [`render.tasks.${task}.weight`]: 0 },
  })),
  {
    name: 'history',
    meaning: 'prompts with the newest item only',
    off: ({ render }) =>
      render.historyItemsMax === 1 ? { reason: 'render.historyItemsMax is 1' } : { 'render.historyItemsMax': 1 },
  },
];

export const WHOLE = 'whole';

export interface AblationPlan {
  sweep: Sweep;
  skipped: { name: string; reason: string }[];
}

/** A sweep of one axis: the run as it is, then without each part. `parts` empty: all of them. */
export function ablationSweep(
  recipes: RunPlan['recipes'],
  options: { file: string; name: string; parts: string[]; parallel: number; common: Settings },
): AblationPlan {
  const chosen = options.parts.length === 0 ? ABLATIONS : options.parts.map(ablationOf);
  const values = [{ label: WHOLE, settings: {} as Settings }];
  const skipped: AblationPlan['skipped'] = [];
  for (const { name, off } of chosen) {
    // A plan's recipes are the resolved ones as JSON.
    const switched = off(recipes as unknown as Recipes);
    if (isReason(switched)) skipped.push({ name, reason: switched.reason });
    else values.push({ label: `without ${name}`, settings: switched });
  }
  if (values.length === 1) {
    const reasons = skipped.map(({ name, reason }) => `${name}: ${reason}`).join('; ');
    throw new CliError('badInput', `${options.file}: expected a part that can be switched off, got none (${reasons})`);
  }
  const sweep: Sweep = {
    file: options.file,
    name: `${options.name.slice(0, 40)}-ablate`,
    base: options.file,
    axes: [{ name: 'part', values }],
    combine: 'grid',
    common: options.common,
    parallel: options.parallel,
    workersMax: null,
    metric: null,
  };
  return { sweep, skipped };
}

function ablationOf(name: string): Ablation {
  const found = ABLATIONS.find((ablation) => ablation.name === name);
  if (found !== undefined) return found;
  const names = ABLATIONS.map((ablation) => ablation.name);
  const hint = nearest(name, names);
  throw new CliError(
    'badInput',
    `--part: expected one of ${names.join(', ')}, got "${name}"${hint === null ? '' : `; did you mean "${hint}"?`}`,
  );
}

function isReason(switched: Switched): switched is { reason: string } {
  return typeof switched['reason'] === 'string';
}
