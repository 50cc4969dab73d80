/** Stage `ingest`: behaviour logs and item text (or the simulated shop) become one dataset. */
import type { StageInput, StageResult } from './contract.js';
import { runStage } from './stage.js';

export function ingestStage(input: StageInput): Promise<StageResult> {
  return runStage('ingest', input, async (stage) => {
    const { recipes, inputs } = stage.plan;
    // Text vectors are an input of their own, for stage embed.
    let logs = Object.fromEntries(Object.entries(inputs).filter(([name]) => name !== 'text_vectors'));
    if (recipes.simulate !== null) {
      await stage.run({
        name: 'simulate',
        kind: 'simulate',
        recipe: recipes.simulate,
        inputs: {},
        workersMax: 1,
        checkpointIntervalSteps: 0,
      });
      logs = { interactions: stage.output('simulate', 'interactions'), items: stage.output('simulate', 'items') };
    }
    await stage.run({
      name: 'ingest',
      kind: 'ingest',
      recipe: recipes.ingest,
      inputs: logs,
      workersMax: 1,
      checkpointIntervalSteps: 0,
    });
  });
}
