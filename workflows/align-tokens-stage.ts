/** Stage 1 of the paper, Alignment Tokenization: cascaded codebooks give every item its semantic id. */
import type { StageInput, StageResult } from './contract.js';
import { Stage } from './stage.js';

export async function alignTokensStage(input: StageInput): Promise<StageResult> {
  const stage = new Stage('align_tokens', input);
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
  return stage.result();
}
