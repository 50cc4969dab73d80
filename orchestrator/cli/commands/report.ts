/** `report`: the page of a run, made again from the artifact store. */
import { resolve } from 'node:path';

import { type Command } from 'commander';

import { type JobResult, type RunPlan } from '../../../workflows/contract.js';
import { replaceFile } from '../../artifacts/durable-file.js';
import { type ArtifactStore } from '../../artifacts/store.js';
import { JOBS_FILE, makeRunReport, REPORT_FILE } from '../../report/run-report.js';
import { CliError } from '../cli-error.js';
import { contextOf, withStore } from '../command-context.js';
import { data, dataJson, progress } from '../output.js';
import { readRunJournal } from '../run-journal.js';

export function addReportCommand(program: Command): void {
  program
    .command('report')
    .description('make the report of a run, one HTML page; needs no server')
    .argument('<run>', 'run id')
    .option('--out <file>', `file to write (default: ${REPORT_FILE} among the run's files in the store)`)
    .action(async (runId: string, flags: { out?: string }, command: Command) => {
      const { home, output } = contextOf(command);
      const path = await withStore(home, async (store) => {
        const page = await reportOf(store, runId);
        if (flags.out === undefined) return store.writeRunFile(runId, REPORT_FILE, page);
        await replaceFile(resolve(flags.out), page);
        return resolve(flags.out);
      });
      if (output === 'json') dataJson({ runId, report: path });
      else {
        data(path);
        progress('open it in a browser; it needs no other file');
      }
    });
}

async function reportOf(store: ArtifactStore, runId: string): Promise<string> {
  const status = await readRunJournal(store, runId);
  const read = async <T>(name: string): Promise<T | null> => {
    const bytes = await store.readRunFile(runId, name);
    return bytes === null ? null : (JSON.parse(bytes.toString('utf8')) as T);
  };
  const plan = await read<RunPlan>('plan.json');
  if (plan === null) {
    throw new CliError('notFound', `expected plan.json among the files of run ${runId}, got none; its store lost it`);
  }
  const jobs = status.result?.jobs ?? (await read<Record<string, JobResult>>(JOBS_FILE)) ?? {};
  return makeRunReport(store, { plan, status, jobs });
}
