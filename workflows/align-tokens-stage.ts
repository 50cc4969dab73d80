/** Stage 1 of the paper, Alignment Tokenization: cascaded codebooks give every item its semantic id. */
import type { StageInput, StageResult } from './contract.js';
import { alignCodesJob, carryIdsJob, codebooksJob, rqvaeJob } from './native-jobs.js';
import { runStage } from './stage.js';

export function alignTokensStage(input: StageInput): Promise<StageResult> {
  return runStage('align_tokens', input, async (stage) => {
    for (const make of [carryIdsJob, rqvaeJob]) {
      const job = make(stage.plan, stage.outputOf);
      if (job !== null) await stage.run(job);
    }
    await stage.run(codebooksJob(stage.plan, stage.outputOf));
    const align = alignCodesJob(stage.plan, stage.outputOf);
    if (align !== null) await stage.run(align);
  });
}
