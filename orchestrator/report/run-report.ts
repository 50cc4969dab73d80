/**
 * The report of a run: one HTML page without anything from outside, for people after the fact; never part of a result.
 *
 * 1. The page holds no script and loads nothing: its policy forbids both, whatever a title or a log line may try.
 * 2. A run that failed has a report as far as it got: a section without content says so.
 */
import { type RunStatus } from '../../workflows/contract.js';
import { type ArtifactStore } from '../artifacts/store.js';
import { configurationSection, examplesSection } from './content-sections.js';
import { html, type Html } from './html.js';
import { codebooksSection, curvesSection } from './learning-section.js';
import { incidentsSection, secondsSection } from './operation-sections.js';
import { qualitySection } from './quality-section.js';
import { gatherEvidence, type ReportedRun, type RunEvidence } from './run-evidence.js';
import { style } from './style.js';

/** Below `runs/<id>/`. */
export const REPORT_FILE = 'report.html';
/** Results of a run that has no `result.json`, for a report that is made later. */
export const JOBS_FILE = 'jobs.json';

export const SECTIONS: { id: string; title: string; content: (evidence: RunEvidence) => Html }[] = [
  { id: 'quality', title: 'Quality', content: qualitySection },
  { id: 'examples', title: 'Examples', content: examplesSection },
  { id: 'curves', title: 'Learning curves', content: curvesSection },
  { id: 'codebooks', title: 'Codebooks', content: codebooksSection },
  { id: 'incidents', title: 'Incidents', content: incidentsSection },
  { id: 'seconds', title: 'Where the time went', content: secondsSection },
  { id: 'configuration', title: 'Configuration and digests', content: configurationSection },
];

export async function makeRunReport(store: ArtifactStore, run: ReportedRun): Promise<string> {
  return reportPage(await gatherEvidence(store, run));
}

export function reportPage(evidence: RunEvidence): string {
  const { status, trouble } = evidence;
  const links = SECTIONS.map(({ id, title }) => html`<a href="#${id}">${title}</a>`);
  const sections = SECTIONS.map(
    ({ id, title, content }) =>
      html`<section id="${id}">
        <h2>${title}</h2>
        ${shown(content, evidence)}
      </section> `,
  );
  const unread = trouble.map((line) => html`<p class="bad">Not to be read: ${line}</p>`);
  const page = html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>${status.runId}</title>
        ${style()}
      </head>
      <body>
        <main>
          <h1>${status.runId}</h1>
          ${stateLine(status)}${unread}
          <nav>${links}</nav>
          ${sections}
        </main>
      </body>
    </html> `;
  return page.text;
}

/** Results of other versions may lack what a section shows: that section says so, and the others are there. */
function shown(content: (evidence: RunEvidence) => Html, evidence: RunEvidence): Html {
  try {
    return content(evidence);
  } catch (error) {
    return html`<p class="bad">Not to be shown: ${error instanceof Error ? error.message : String(error)}</p>`;
  }
}

function stateLine({ state, failure, stages }: RunStatus): Html {
  const colour = state === 'done' ? 'good' : state === 'failed' ? 'bad' : 'soft';
  const done = stages.filter((stage) => stage.state === 'done').map(({ name }) => name);
  return html`<p class="${colour}"><strong>${state}</strong>${failure === null ? null : html`: ${failure}`}</p>
    <p class="soft">stages done: ${done.length === 0 ? 'none' : done.join(', ')}</p>`;
}
