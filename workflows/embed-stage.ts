/** Stage `embed`: collaborative embeddings (DCCF) of users and items, and text vectors of items where asked for. */
import type { StageInput, StageResult } from './contract.js';
import { dccfJob } from './native-jobs.js';
import { runStage } from './stage.js';

export function embedStage(input: StageInput): Promise<StageResult> {
  return runStage('embed', input, async (stage) => {
    const { recipes } = stage.plan;
    const dccf = stage.run(dccfJob(stage.plan, stage.outputOf));
    const text =
      recipes.textVectors === null
        ? null
        : stage.run({
            name: 'text_vectors',
            kind: 'text_vectors',
            recipe: recipes.textVectors,
            inputs: { catalogue: stage.output('ingest', 'catalogue') },
            workersMax: 1,
            checkpointIntervalSteps: 0,
          });
    await Promise.all([dccf, text]);
  });
}
