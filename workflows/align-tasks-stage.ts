/** Stage 2 of the paper, Alignment Task: tasks are rendered to token shards and the language model is tuned on them. */
import { adapterFiles, tokenizerFiles, weightFiles } from './base-files.js';
import type { StageInput, StageResult } from './contract.js';
import { runStage } from './stage.js';

export function alignTasksStage(input: StageInput): Promise<StageResult> {
  return runStage('align_tasks', input, async (stage) => {
    const { recipes, checkpointIntervalSteps, baseFiles } = stage.plan;
    await stage.run({
      name: 'render',
      kind: 'render',
      recipe: recipes.render,
      inputs: {
        dataset: stage.output('ingest', 'dataset'),
        catalogue: stage.output('ingest', 'catalogue'),
        codes: stage.output('codebooks', 'codes'),
        ...tokenizerFiles(baseFiles),
      },
      workersMax: 1,
      checkpointIntervalSteps: 0,
    });
    await stage.run({
      name: 'tune',
      kind: 'tune',
      recipe: recipes.tune,
      inputs: {
        train_examples: stage.output('render', 'train_examples'),
        vocabulary: stage.output('render', 'vocabulary'),
        ...weightFiles(baseFiles),
        ...adapterFiles(baseFiles),
      },
      // A rank needs a lane of its own.
      workersMax: Number(recipes.tune['lanes']),
      checkpointIntervalSteps: checkpointIntervalSteps.tune,
    });
  });
}
