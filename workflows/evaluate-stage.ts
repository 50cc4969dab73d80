/** Stage `evaluate`: beam search for every test prompt, then HR and NDCG beside the baselines. */
import type { StageInput, StageResult } from './contract.js';
import { rankDenseJob } from './native-jobs.js';
import { rankShards } from './rank-shards.js';
import { runStage } from './stage.js';

export function evaluateStage(input: StageInput): Promise<StageResult> {
  return runStage('evaluate', input, async (stage) => {
    const ranking = rankDenseJob(stage.plan, stage.outputOf, 'test');
    const [lists] = await Promise.all([rankShards(stage, 'test_prompts'), ranking && stage.run(ranking)]);
    const dense = ranking === null ? {} : { dense_lists_0: stage.output(ranking.name, 'lists') };
    await stage.run({
      name: 'evaluate',
      kind: 'evaluate',
      recipe: stage.plan.recipes.evaluate,
      inputs: { dataset: stage.output('ingest', 'dataset'), ...lists, ...dense },
      workersMax: 1,
      checkpointIntervalSteps: 0,
    });
  });
}
