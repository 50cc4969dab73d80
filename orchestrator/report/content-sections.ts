/** What was recommended, to whom; and what the run was: its configuration and the digests of all that it made. */
import { type ExampleList, type ExampleUser } from './example-users.js';
import { html, type Html, tableOf } from './html.js';
import { type RunEvidence } from './run-evidence.js';

export function examplesSection({ examples }: RunEvidence): Html {
  if (examples.length === 0) return html`<p class="soft">This run has no lists for test events.</p>`;
  return html`<p class="soft">Evenly spaced users; nobody chose them. Marked: what the user did next.</p>
    ${examples.map(exampleOf)}`;
}

function exampleOf({ user, history, earlier, truth, lists }: ExampleUser): Html {
  return html`<h3>${user}</h3>
    <div class="columns">
      <div>
        <p class="soft">history${earlier > 0 ? ` (${String(earlier)} earlier events left out)` : ''}</p>
        <ul>
          ${history.map((title) => html`<li>${title}</li>`)}
        </ul>
        <p class="soft">and then</p>
        <p class="hit">${truth}</p>
      </div>
      ${lists.map((list) => listOf(list))}
    </div>`;
}

function listOf({ name, titles, rankOfTruth }: ExampleList): Html {
  const items = titles.map((title, i) =>
    i + 1 === rankOfTruth ? html`<li class="hit">${title} ✓</li>` : html`<li>${title}</li>`,
  );
  const found = rankOfTruth === null ? 'not in the list' : `at ${String(rankOfTruth)}`;
  return html`<div>
    <p class="soft">${name}: ${found}</p>
    <ol>
      ${items}
    </ol>
  </div>`;
}

export function configurationSection({ plan, jobs, status }: RunEvidence): Html {
  const { recipes, inputs, baseFiles, ...rest } = plan;
  const jobRows = Object.entries(jobs).map(([name, { key, outputs }]) => [
    name,
    html`<code>${key}</code>`,
    Object.entries(outputs).map(([output, digest]) => html`${output} <code>${digest}</code><br />`),
  ]);
  const fileRows = Object.entries({ ...inputs, ...baseFiles }).map(([name, digest]) => [
    name,
    html`<code>${digest}</code>`,
  ]);
  const result = status.result;
  return html`<p>
      Result digest <code>${result?.resultDigest ?? '–'}</code><br />Numerics class
      <code>${status.numericsClass ?? '–'}</code><br />
      Engine revision <code>${result?.engineRevision ?? '–'}</code><br />Published generation
      <code>${result?.generation ?? '–'}</code>
    </p>
    <details>
      <summary>Recipes</summary>
      <pre>${JSON.stringify(recipes, null, 2)}</pre>
    </details>
    <details>
      <summary>Plan</summary>
      <pre>${JSON.stringify(rest, null, 2)}</pre>
    </details>
    <details>
      <summary>Input files (${fileRows.length})</summary>
      ${tableOf([{ title: 'name' }, { title: 'SHA-256' }], fileRows)}
    </details>
    <details>
      <summary>Jobs and their outputs (${jobRows.length})</summary>
      ${tableOf([{ title: 'job' }, { title: 'key' }, { title: 'outputs' }], jobRows)}
    </details>`;
}
