/** Stage 1 of the paper, Alignment Tokenization: cascaded codebooks give every item its semantic id. */
import type { StageInput, StageResult } from './contract.js';
import { runStage } from './stage.js';

export function alignTokensStage(input: StageInput): Promise<StageResult> {
  return runStage('align_tokens', input, async (stage) => {
    const { recipes, checkpointIntervalSteps } = stage.plan;
    const inputs: Record<string, string> = { collaborative: stage.output('dccf', 'embeddings') };
    if (recipes.textVectors !== null) inputs['text'] = stage.output('text_vectors', 'text_vectors');
    await stage.run({
      name: 'codebooks',
      kind: 'codebooks',
      recipe: recipes.codebooks,
      inputs,
      workersMax: 1,
      checkpointIntervalSteps: checkpointIntervalSteps.codebooks,
    });
  });
}
