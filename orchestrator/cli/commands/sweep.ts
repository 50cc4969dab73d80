/** `sweep` and `ablate`: many runs that differ in named settings, and what each setting does to the result. */
import { type Command } from 'commander';
import { dirname, join, resolve } from 'node:path';
import { parse as parseYaml } from 'yaml';

import { ABLATIONS, ablationSweep } from '../ablation.js';
import { CliError } from '../cli-error.js';
import {
  type CommandContext,
  contextOf,
  untilInterrupted,
  wholeNumber,
  withSession,
  withStore,
} from '../command-context.js';
import { requireUp } from '../installation.js';
import { bold, data, dataJson, dim, progress } from '../output.js';
import { loadRunFile } from '../run-file.js';
import { resolveRun } from '../run-plan.js';
import { loadSweepFile, PARALLEL_MAX, type Settings } from '../sweep-file.js';
import { type ResolvedSweep, resolveSweep, storeSweep, type SweepRun } from '../sweep-plan.js';
import { writeSweepPages } from '../sweep-pages.js';
import { describeSweep, makeSweepReport, numericsClassesOf, type SweepReport } from '../sweep-report.js';
import { runSweep } from '../sweep-runner.js';

const RUNS_MAX = 32;
const RUNS_EVER_MAX = 10_000;

interface SweepFlags {
  maxRuns: number;
  out?: string;
}

interface AblateFlags {
  part: string[];
  set: string[];
  parallel: number;
  out?: string;
}

export function addSweepCommands(program: Command): void {
  program
    .command('sweep')
    .description('run every combination of the settings of a sweep file, and show what each does')
    .argument('<file>', 'sweep file (YAML)')
    .option('--max-runs <n>', 'refuse more runs', wholeNumber('--max-runs', 1, RUNS_EVER_MAX), RUNS_MAX)
    .option('--out <dir>', 'folder of the page and plots (default: sweeps/<name> in the home)')
    .action(async (file: string, flags: SweepFlags, command: Command) => {
      const context = contextOf(command);
      const resolved = resolveSweep(loadSweepFile(file), flags.maxRuns);
      await conduct(context, resolved, { out: flags.out, skipped: null });
    });

  program
    .command('ablate')
    .description('run a run file as it is and without each of its parts in turn, and show what each part is worth')
    .argument('<file>', 'run file (YAML)')
    .option(
      '--part <name>',
      `only this part (may be repeated): ${ABLATIONS.map(({ name }) => name).join(', ')}`,
      collect,
      [],
    )
    .option('--set <key=value>', 'set a value of the run file for all runs (may be repeated)', collect, [])
    .option('--parallel <n>', 'runs at once', wholeNumber('--parallel', 1, PARALLEL_MAX), 1)
    .option('--out <dir>', 'folder of the page and plots (default: sweeps/<name> in the home)')
    .action(async (file: string, flags: AblateFlags, command: Command) => {
      const context = contextOf(command);
      const loaded = loadRunFile(file, flags.set);
      const { plan } = resolveRun(loaded, { baseFolder: dirname(file) });
      const { sweep, skipped } = ablationSweep(plan.recipes, {
        file,
        name: plan.name,
        parts: flags.part,
        parallel: flags.parallel,
        common: settingsOf(flags.set),
      });
      await conduct(context, resolveSweep(sweep, RUNS_EVER_MAX), { out: flags.out, skipped });
    });
}

interface ConductOptions {
  out: string | undefined;
  /** Parts that an ablation left out; null: this is none. */
  skipped: { name: string; reason: string }[] | null;
}

async function conduct(
  { home, output }: CommandContext,
  resolved: ResolvedSweep,
  { out, skipped }: ConductOptions,
): Promise<void> {
  requireUp(home);
  for (const { name, reason } of skipped ?? []) progress(dim(`${name} left out: ${reason}`));
  const { sweep, metric, cells } = resolved;
  const report = await withStore(home, async (store) => {
    const runs = await storeSweep(resolved, store);
    progress(`${bold(sweep.name)}: ${cells.length} combinations, ${runs.length} runs, ${sweep.parallel} at once`);
    const { signal, release } = untilInterrupted();
    try {
      const outcomes = await withSession(home, (session) =>
        runSweep(runs, {
          ...{ session, store, signal, parallel: sweep.parallel },
          onChange: (run, what) => progress(`  ${labelOf(run)}: ${what}`),
        }),
      );
      if (outcomes === null) return null;
      const axes = sweep.axes.map(({ name }) => name);
      return await makeSweepReport(store, { name: sweep.name, metric, axes, outcomes, firstIsWhole: skipped !== null });
    } finally {
      release();
    }
  });
  if (report === null) {
    progress('left; what is under way goes on, the same command goes on from there');
    return;
  }
  const page = await writeSweepPages(resolve(out ?? join(home.root, 'sweeps', sweep.name)), report);
  if (output === 'json') dataJson({ ...report, ...(skipped !== null && { skipped }), page });
  else data(describeSweep(report));
  progress(`page and plots: ${page}`);
  const classes = numericsClassesOf(report);
  if (classes.length > 1) {
    progress(
      `runs differ in numerics (${classes.join(', ')}): set "numericsClass" in the run file to compare like with like`,
    );
  }
  refuseFailed(report);
}

function refuseFailed({ rows }: SweepReport): void {
  const failed = rows.filter(({ state }) => state !== 'done');
  if (failed.length === 0) return;
  const lines = failed.map(({ runId, state, failure }) => `${runId} ${state}: ${failure ?? 'no reason given'}`);
  throw new CliError('runFailed', `${failed.length} of ${rows.length} runs did not end well:\n${lines.join('\n')}`);
}

function labelOf({ cells }: SweepRun): string {
  return Object.entries(cells[0]?.values ?? {})
    .map(([axis, value]) => `${axis} ${value}`)
    .join(', ');
}

/** Checked already: `loadRunFile` has read the same texts. */
function settingsOf(texts: string[]): Settings {
  const pairs = texts.map((text) => {
    const equals = text.indexOf('=');
    return [text.slice(0, equals), parseYaml(text.slice(equals + 1)) as unknown];
  });
  return Object.fromEntries(pairs) as Settings;
}

function collect(value: string, previous: string[]): string[] {
  return [...previous, value];
}
