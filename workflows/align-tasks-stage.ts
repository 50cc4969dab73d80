/** Stage 2 of the paper, Alignment Task: tasks are rendered to token shards and the language model is tuned on them. */
import { tokenizerFiles } from './base-files.js';
import type { StageInput, StageResult } from './contract.js';
import { codesJobName, tuneJob } from './native-jobs.js';
import { runStage } from './stage.js';

export function alignTasksStage(input: StageInput): Promise<StageResult> {
  return runStage('align_tasks', input, async (stage) => {
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
  });
}
