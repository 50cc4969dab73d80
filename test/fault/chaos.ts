/**
 * `npm run chaos`: many runs, each under the faults that its seed draws, as a table.
 *
 * Flags: --runs n, --seed n (of the first run; the next ones count on), --only <kind or target>, --deadline seconds,
 * --evidence (status and logs of every run that was lost, hung or different), --json (the tally as the last line).
 * Exit code 0 only when every run ended with the digest of an undisturbed one and left everything whole.
 */
import { parseArgs } from 'node:util';

import { TrialFleet } from './fleet.js';
import { allWell, tableHead, tableRows, tallyOf } from './report.js';
import { drawSchedule, FAULT_KINDS, TARGETS } from './schedule.js';
import type { TrialRow } from './trial.js';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
    deadline: { type: 'string', default: '45' },
    evidence: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const runs = positive('runs', values.runs);
const firstSeed = positive('seed', values.seed);
const only = values.only ?? null;
if (only !== null && ![...FAULT_KINDS, ...TARGETS].some((name) => name === only)) {
  fail(`--only: expected one of ${[...FAULT_KINDS, ...TARGETS].join(', ')}, got "${only}"`);
}

const fleet = new TrialFleet(positive('deadline', values.deadline) * 1000);
let stopping = false;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    if (stopping) return;
    stopping = true;
    void fleet.close().finally(() => process.exit(130));
  });
}

// Whatever goes wrong here leaves no process and no mount.
process.on('uncaughtException', (error) => {
  console.error(error);
  void fleet.close().finally(() => process.exit(3));
});

const rows: TrialRow[] = [];
try {
  console.log(`undisturbed digest ${await fleet.expectedDigest()}`);
  console.log(tableHead());
  for (let seed = firstSeed; seed < firstSeed + runs && !stopping; seed += 1) {
    const row = await fleet.trial(drawSchedule(seed, only));
    rows.push(row);
    console.log(tableRows(row));
    if (values.evidence && row.evidence !== '') console.log(row.evidence);
  }
} finally {
  await fleet.close();
}
const tally = tallyOf(rows);
if (values.json) console.log(JSON.stringify(tally));
else {
  console.log(
    `${String(tally.runs)} runs: ${String(tally.identical)} identical, ${String(tally.different)} different, ` +
      `${String(tally.lost)} lost, ${String(tally.hangs)} hung, ${String(tally.skipped)} skipped, ${String(tally.broken)} broken; ` +
      `${String(tally.unclean)} left something behind`,
  );
}
process.exitCode = allWell(tally) ? 0 : 1;

function positive(flag: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    fail(`--${flag}: expected a whole number of at least 1, got "${text}"`);
  return value;
}

function fail(message: string): never {
  console.error(message);
  process.exit(2);
}
