/** Every domain job by its kind. */
import { type DomainJobKind } from '../../workflows/contract.js';
import { assembleJob } from './assemble-job.js';
import { carryIdsJob } from './carry-ids-job.js';
import { type DomainJob } from './domain-job.js';
import { evaluateJob } from './evaluate-job.js';
import { fitFusionJob } from './fit-fusion-job.js';
import { fuseJob } from './fuse-job.js';
import { ingestJob } from './ingest-job.js';
import { renderJob } from './render-job.js';
import { simulateJob } from './simulate-job.js';
import { textTokensJob } from './text-tokens-job.js';
import { textVectorsJob } from './text-vectors-job.js';

export const domainJobs: Record<DomainJobKind, DomainJob> = {
  simulate: simulateJob,
  ingest: ingestJob,
  carry_ids: carryIdsJob,
  text_vectors: textVectorsJob,
  text_tokens: textTokensJob,
  render: renderJob,
  fit_fusion: fitFusionJob,
  fuse: fuseJob,
  evaluate: evaluateJob,
  assemble: assembleJob,
};
