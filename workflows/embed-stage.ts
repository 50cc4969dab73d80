/** Stage `embed`: collaborative embeddings (DCCF) of users and items, and text vectors of items where asked for. */
import type { StageInput, StageResult } from './contract.js';
import { dccfJob, hasTextVectors } from './native-jobs.js';
import { runStage } from './stage.js';

export function embedStage(input: StageInput): Promise<StageResult> {
  return runStage('embed', input, async (stage) => {
    const { recipes, inputs } = stage.plan;
    // What the user brings takes the place of what would be made of the texts.
    const vectors = inputs['text_vectors'] === undefined ? {} : { vectors: inputs['text_vectors'] };
    const dccf = stage.run(dccfJob(stage.plan, stage.outputOf));
    const text = !hasTextVectors(stage.plan)
      ? null
      : stage.run({
          name: 'text_vectors',
          kind: 'text_vectors',
          recipe: recipes.textVectors ?? {},
          inputs: { catalogue: stage.output('ingest', 'catalogue'), ...vectors },
          workersMax: 1,
          checkpointIntervalSteps: 0,
        });
    await Promise.all([dccf, text]);
  });
}
