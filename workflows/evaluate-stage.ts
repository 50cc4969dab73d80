/** Stage `evaluate`: beam search for every test prompt, then HR and NDCG beside popularity and co-occurrence. */
import type { StageInput, StageResult } from './contract.js';
import { rankShards } from './rank-shards.js';
import { runStage } from './stage.js';

export function evaluateStage(input: StageInput): Promise<StageResult> {
  return runStage('evaluate', input, async (stage) => {
    const lists = await rankShards(stage, 'test_prompts');
    await stage.run({
      name: 'evaluate',
      kind: 'evaluate',
      recipe: stage.plan.recipes.evaluate,
      inputs: { dataset: stage.output('ingest', 'dataset'), ...lists },
      workersMax: 1,
      checkpointIntervalSteps: 0,
    });
  });
}
