/** Stage `embed`: collaborative embeddings (DCCF) of users and items, and text vectors of items where asked for. */
import { tokenizerFiles, weightFiles } from './base-files.js';
import type { StageInput, StageResult } from './contract.js';
import { dccfJob, hasTextVectors } from './native-jobs.js';
import { runStage, type Stage } from './stage.js';

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
    await Promise.all([dccf, text, embedText(stage)]);
  });
}

/** Item texts as tokens of the base model, and its hidden states over them. */
async function embedText(stage: Stage): Promise<void> {
  const { recipes, baseFiles } = stage.plan;
  if (recipes.embedText == null || hasTextVectors(stage.plan)) return;
  const { tokensMax = 0, tokensPerBatch = 0, centre = 0 } = recipes.embedText;
  await stage.run({
    name: 'text_tokens',
    kind: 'text_tokens',
    recipe: { tokensMax },
    inputs: { catalogue: stage.output('ingest', 'catalogue'), ...tokenizerFiles(baseFiles) },
    workersMax: 1,
    checkpointIntervalSteps: 0,
  });
  await stage.run({
    name: 'embed_text',
    kind: 'embed_text',
    recipe: { tokensPerBatch, centre },
    inputs: { text_tokens: stage.output('text_tokens', 'text_tokens'), ...weightFiles(baseFiles) },
    workersMax: 1,
    checkpointIntervalSteps: 0,
  });
}
