/**
 * Stage 2 of the paper, Alignment Task: tasks are rendered to token shards and the language model is tuned on them. Beside it
 * the dense sequence models are trained, which need neither.
 */
import { tokenizerFiles } from './base-files.js';
import type { StageInput, StageResult } from './contract.js';
import { codesJobName, denseJobs, tuneJob } from './native-jobs.js';
import { runStage, type Stage } from './stage.js';

export function alignTasksStage(input: StageInput): Promise<StageResult> {
  return runStage('align_tasks', input, async (stage) => {
    const dense = denseJobs(stage.plan, stage.outputOf).map((job) => stage.run(job));
    await Promise.all([tune(stage), ...dense]);
  });
}

async function tune(stage: Stage): Promise<void> {
  const { recipes, baseFiles } = stage.plan;
  await stage.run({
    name: 'render',
    kind: 'render',
    recipe: recipes.render,
    inputs: {
      dataset: stage.output('ingest', 'dataset'),
      catalogue: stage.output('ingest', 'catalogue'),
      codes: stage.output(codesJobName(stage.plan), 'codes'),
      ...tokenizerFiles(baseFiles),
    },
    workersMax: 1,
    checkpointIntervalSteps: 0,
  });
  await stage.run(tuneJob(stage.plan, stage.outputOf));
}
