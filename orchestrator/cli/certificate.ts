/** What a verification found: the certificate file, and the table for people. */
import { type Digest } from '../../workflows/contract.js';
import { type ArtifactStore } from '../artifacts/store.js';
import { table } from './output.js';
import { type DamagedCheckpoint } from './verify-plan.js';
import { type JudgedInterval } from './verify-judge.js';

export interface Certificate {
  runId: string;
  resultDigest: Digest;
  /** ISO 8601, UTC. */
  verifiedAt: string;
  /** Of the program that verified. */
  version: string;
  numericsClass: string;
  engineRevision: string;
  /** Every interval below is exact, and no checkpoint is damaged. */
  exact: boolean;
  intervals: JudgedInterval[];
  damagedCheckpoints: DamagedCheckpoint[];
  /** Jobs of which nothing was verified. */
  notVerified: { job: string; reason: string }[];
}

/** Written whole; answers its address. */
export function writeCertificate(store: ArtifactStore, certificate: Certificate): Promise<string> {
  const stamp = certificate.verifiedAt.replace(/[-:.Z]/g, '').replace('T', '-');
  return store.writeRunFile(
    certificate.runId,
    `verification-${stamp}.json`,
    `${JSON.stringify(certificate, null, 2)}\n`,
  );
}

export function intervalName({ from, to }: Pick<JudgedInterval, 'from' | 'to'>): string {
  return `${from?.step ?? 'start'} → ${to?.step ?? 'end'}`;
}

export function describeCertificate(certificate: Certificate): string {
  const columns = [
    { title: 'JOB' },
    { title: 'INTERVAL' },
    { title: 'STEPS', align: 'right' as const },
    { title: 'WORKERS', align: 'right' as const },
    { title: 'SECONDS', align: 'right' as const },
    { title: 'VERDICT' },
  ];
  const rows = certificate.intervals.map((interval) => [
    interval.job,
    intervalName(interval),
    interval.to === null ? '' : String(interval.to.step - (interval.from?.step ?? 0)),
    String(interval.workers.length),
    interval.seconds.toFixed(1),
    interval.verdict,
  ]);
  for (const { job, step } of certificate.damagedCheckpoints) rows.push([job, `at ${step}`, '', '', '', 'damaged']);
  const words = [
    ...certificate.intervals.flatMap((interval) =>
      interval.difference === null ? [] : [`${interval.job} ${intervalName(interval)}: ${interval.difference}`],
    ),
    ...certificate.damagedCheckpoints.map(({ job, step, damage }) => `${job} checkpoint at ${step}: ${damage}`),
    ...certificate.notVerified.map(({ job, reason }) => `${job}: not verified: ${reason}`),
  ];
  return [table(columns, rows), ...(words.length === 0 ? [] : ['', ...words])].join('\n');
}
