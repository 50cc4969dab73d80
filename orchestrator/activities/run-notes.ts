/** What stands before the reason in the events of a run that failed; read back by `orchestrator/cli/run-journal.ts`. */
export const FAILURE_NOTE = 'the run fails: ';
