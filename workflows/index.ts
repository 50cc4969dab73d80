/** Everything that the controller's Temporal worker registers. */
export { alignTasksStage } from './align-tasks-stage.js';
export { alignTokensStage } from './align-tokens-stage.js';
export { embedStage } from './embed-stage.js';
export { evaluateStage } from './evaluate-stage.js';
export { ingestStage } from './ingest-stage.js';
export { publishStage } from './publish-stage.js';
export { runWorkflow } from './run.js';
export { verifyWorkflow } from './verify.js';
