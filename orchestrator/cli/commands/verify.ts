/** `verify`: parts of a run are computed again by other workers and held against what is recorded. */
import { type Command, Option } from 'commander';

import { type ArtifactStore } from '../../artifacts/store.js';
import { type Certificate, describeCertificate, intervalName, writeCertificate } from '../certificate.js';
import { CliError } from '../cli-error.js';
import { contextOf, untilInterrupted, wholeNumber, withSession, withStore } from '../command-context.js';
import { followVerification } from '../follow-verification.js';
import { requireUp } from '../installation.js';
import { data, dataJson, progress } from '../output.js';
import { projectVersion } from '../project-paths.js';
import { type TemporalSession } from '../temporal-connection.js';
import { judgeInterval, type JudgedInterval } from '../verify-judge.js';
import { planVerification, type VerificationChoice, type VerificationPlan } from '../verify-plan.js';

interface VerifyFlags {
  job: string[];
  intervals: 'last' | 'all';
  fromStart?: boolean;
  wait: number;
}

export function addVerifyCommand(program: Command): void {
  program
    .command('verify')
    .description('compute checkpoint intervals of a finished run again, compare bytes, and certify what came out')
    .argument('<run>', 'run id')
    .option('--job <name>', 'only this job (may be repeated)', (value: string, all: string[]) => [...all, value], [])
    .addOption(
      new Option('--intervals <which>', 'the last between two checkpoints and the end, or all that the store has')
        .choices(['last', 'all'])
        .default('last'),
    )
    .option('--from-start', 'also from the beginning of each job to its first checkpoint')
    .option('--wait <seconds>', "how long to wait for workers of the run's class", wholeNumber('--wait', 1, 86_400), 30)
    .action(async (runId: string, flags: VerifyFlags, command: Command) => {
      const { home, output } = contextOf(command);
      requireUp(home);
      const choice: VerificationChoice = {
        runId,
        jobs: flags.job,
        all: flags.intervals === 'all',
        fromStart: flags.fromStart === true,
        waitSeconds: flags.wait,
      };
      const certificate = await withStore(home, async (store) => {
        const plan = await planVerification(store, choice);
        refuseNothing(plan, choice);
        const intervals = await withSession(home, (session) => verified(store, session, plan));
        const certificate = certify(plan, intervals);
        progress(`certificate: ${await writeCertificate(store, certificate)}`);
        return certificate;
      });
      if (output === 'json') dataJson(certificate);
      else data(describeCertificate(certificate));
      if (!certificate.exact) throw new CliError('runFailed', `not everything of run ${runId} is verified as exact`);
      progress(`${certificate.intervals.length} intervals of ${runId} are exact`);
    });
}

/** A job that was asked for by name, or a whole run, with nothing to verify; damage is a finding and goes on. */
function refuseNothing({ request, damaged, left }: VerificationPlan, { runId, jobs }: VerificationChoice): void {
  const wanted = left.filter(({ job }) => jobs.includes(job) || request.intervals.length === 0);
  if (wanted.length === 0 || damaged.length > 0) return;
  throw new CliError(
    'notFound',
    `expected checkpoints of ${runId}, but ${wanted.map(({ job, reason }) => `${job}: ${reason}`).join('; ')}; ` +
      'verify --from-start computes jobs from their beginning, checkpoints.keep in the run file keeps more of the next run',
  );
}

async function verified(
  store: ArtifactStore,
  session: TemporalSession,
  { request, run }: VerificationPlan,
): Promise<JudgedInterval[]> {
  if (request.intervals.length === 0) return [];
  const { signal, release } = untilInterrupted();
  const name = (index: number): string => {
    const interval = request.intervals[index];
    return interval === undefined ? '' : `${interval.job} ${intervalName(interval)}`;
  };
  try {
    progress(`computing ${request.intervals.length} intervals again …`);
    const outcomes = await followVerification({
      session,
      request,
      signal,
      onOutcome: (index, { workers, seconds, end }) => {
        const how = end.type === 'failed' ? `failed: ${end.message}` : `computed by ${workers.join(', ')}`;
        progress(`${name(index)} ${how} in ${seconds.toFixed(1)} s`);
      },
    });
    const judged: JudgedInterval[] = [];
    for (const [index, interval] of request.intervals.entries()) {
      const outcome = outcomes[index];
      const recorded = run.result.jobs[interval.job];
      if (outcome === undefined || recorded === undefined) {
        throw new Error(`the verification answered ${outcomes.length} of ${request.intervals.length} intervals`);
      }
      judged.push(await judgeInterval(store, interval, { outcome, recorded }));
    }
    return judged;
  } finally {
    release();
  }
}

function certify(plan: VerificationPlan, intervals: JudgedInterval[]): Certificate {
  const { run, engineRevision, damaged, left } = plan;
  const { runId, resultDigest, numericsClass } = run.result;
  return {
    runId,
    resultDigest,
    verifiedAt: new Date().toISOString(),
    version: projectVersion(),
    numericsClass,
    engineRevision,
    exact: damaged.length === 0 && intervals.every(({ verdict }) => verdict === 'exact'),
    intervals,
    damagedCheckpoints: damaged,
    notVerified: left,
  };
}
