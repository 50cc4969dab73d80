/**
 * Stage `evaluate`: every source ranks for the test events, the fused list is made by weights from validation events, and all are
 * compared beside popularity and co-occurrence.
 */
import type { StageInput, StageResult } from './contract.js';
import { fitFusion, fusedLists } from './fusion-jobs.js';
import { rankSources } from './rank-shards.js';
import { runStage } from './stage.js';

export function evaluateStage(input: StageInput): Promise<StageResult> {
  return runStage('evaluate', input, async (stage) => {
    const fusion = await fitFusion(stage);
    const lists = await rankSources(stage, 'test');
    const published = await fusedLists(stage, 'test', lists);
    await stage.run({
      name: 'evaluate',
      kind: 'evaluate',
      recipe: stage.plan.recipes.evaluate,
      inputs: {
        dataset: stage.output('ingest', 'dataset'),
        ...fusion,
        ...lists,
        ...(published === null ? {} : { published_lists_0: published }),
      },
      workersMax: 1,
      checkpointIntervalSteps: 0,
    });
  });
}
