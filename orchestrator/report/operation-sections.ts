/** How the run went as a run: where its time went, what failed and how it was recovered from. */
import { type Incident } from '../../workflows/contract.js';
import { recoveryPhases, totalSeconds } from '../../workflows/timeline.js';
import { stackedBar } from './charts.js';
import { html, type Html, tableOf } from './html.js';
import { type RunEvidence } from './run-evidence.js';

const COLOURS = ['var(--other)', 'var(--soft)', 'var(--accent)', 'var(--bad)'];

export function secondsSection({ status: { seconds } }: RunEvidence): Html {
  const total = totalSeconds(seconds);
  if (total === 0) return html`<p class="soft">No time has been accounted for.</p>`;
  const { work = 0, ...rest } = seconds;
  const others = Object.entries(rest).sort(([, a], [, b]) => b - a);
  const parts = [
    { name: 'work', value: work, colour: 'var(--good)' },
    ...others.map(([name, value], i) => ({ name, value, colour: COLOURS[i % COLOURS.length] ?? 'var(--soft)' })),
  ];
  const rows = parts.map(({ name, value }) => [name, value.toFixed(1), `${((100 * value) / total).toFixed(1)} %`]);
  return html`<p>Goodput ${((100 * work) / total).toFixed(1)} % of ${total.toFixed(1)} s.</p>
    ${stackedBar(parts, { label: 'seconds by purpose' })}
    ${tableOf([{ title: 'purpose' }, { title: 'seconds', isNumber: true }, { title: 'share', isNumber: true }], rows)}`;
}

export function incidentsSection({ status: { incidents } }: RunEvidence): Html {
  if (incidents.length === 0) return html`<p>None.</p>`;
  return html`${incidents.map(incidentOf)}`;
}

function incidentOf(incident: Incident): Html {
  const { id, cause, workerId, rank, message, action, failedAtStep, resumedFromStep, phases, log } = incident;
  const where = workerId === null ? 'unknown worker' : `${workerId}${rank === null ? '' : `, rank ${String(rank)}`}`;
  const again = Math.max(0, failedAtStep - resumedFromStep);
  const rows = recoveryPhases(phases).map(({ phase, seconds, at }) => [
    phase.replace('_', ' '),
    seconds === null ? '–' : seconds.toFixed(3),
    at === null ? '–' : new Date(at).toISOString(),
  ]);
  return html`<details open>
    <summary><strong>${cause}</strong> · ${id} · ${where}</summary>
    <p>${message}</p>
    <p>
      ${action === '' ? 'recovering' : action}; failed at step ${failedAtStep}, went on from ${resumedFromStep}
      (${again} computed again).
    </p>
    ${tableOf([{ title: 'phase' }, { title: 'seconds', isNumber: true }, { title: 'at' }], rows)}
    ${
      log.length === 0
        ? null
        : html`<details>
            <summary>last lines of ${where}</summary>
            <pre>${log.join('\n')}</pre>
          </details>`
    }
  </details>`;
}
