/** Job keys and the memo: has this content been computed before? */
import type { Activities } from '../../workflows/activity-contract.js';
import { jobKeyOf } from '../artifacts/job-key.js';
import type { ActivityDependencies } from './dependencies.js';
import { classified, classifyingStoreErrors } from './failures.js';
import { cancellationSignal } from './heartbeat.js';

const PIN_WAIT_MS = 250;

export function jobActivities({
  store,
  fleet,
  metrics,
}: ActivityDependencies): Pick<Activities, 'lookUpJob' | 'pinRun'> {
  return {
    async lookUpJob(spec) {
      const key = jobKeyOf(spec);
      return { key, result: await classifyingStoreErrors(() => store.getJobResult(key)) };
    },

    async pinRun(plan) {
      const signal = cancellationSignal();
      const deadline = Date.now() + plan.fleet.waitSeconds * 1000;
      for (;;) {
        signal.throwIfAborted();
        const members = fleet.list();
        const wanted = plan.numericsClass;
        const member = wanted === null ? members[0] : members.find((candidate) => candidate.numericsClass === wanted);
        if (member !== undefined) {
          metrics.set(
            'collimate_run_info',
            { run: plan.runId, name: plan.name, numerics_class: member.numericsClass },
            1,
          );
          return { numericsClass: member.numericsClass, engineRevision: member.engineRevision };
        }
        if (Date.now() > deadline) {
          const expected = wanted === null ? 'a worker' : `a worker of numerics class ${wanted}`;
          const seen = members.map((candidate) => candidate.numericsClass).join(', ');
          throw classified(
            'no_workers',
            `expected ${expected} to join within ${String(plan.fleet.waitSeconds)} s, ` +
              `but the fleet has ${seen === '' ? 'no workers' : seen}; start workers with "collimate worker" or "collimate up"`,
          );
        }
        await fleet.changed(PIN_WAIT_MS);
      }
    },
  };
}
