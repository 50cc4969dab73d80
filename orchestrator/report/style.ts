/** The report's one style sheet: light and dark by the reader's setting, one column on a phone. */
import { html, type Html } from './html.js';

export function style(): Html {
  return html`<style>
    :root {
      color-scheme: light dark;
      --ink: #1c2330;
      --soft: #5b6577;
      --line: #d9dee7;
      --page: #fbfcfe;
      --card: #ffffff;
      --accent: #2457d6;
      --good: #12805c;
      --bad: #c0392b;
      --other: #b26a00;
    }
    @media (prefers-color-scheme: dark) {
      :root {
        --ink: #e6eaf2;
        --soft: #9aa5b8;
        --line: #2c3444;
        --page: #11151d;
        --card: #181e29;
        --accent: #7ba2ff;
        --good: #4cc79a;
        --bad: #ff7b6b;
        --other: #f0b456;
      }
    }
    * {
      box-sizing: border-box;
    }
    body {
      margin: 0;
      background: var(--page);
      color: var(--ink);
      font:
        15px/1.5 system-ui,
        sans-serif;
    }
    main {
      max-width: 68rem;
      margin: 0 auto;
      padding: 1rem;
    }
    h1 {
      font-size: 1.5rem;
      margin: 0.5rem 0;
      overflow-wrap: anywhere;
    }
    h2 {
      font-size: 1.15rem;
      margin: 0 0 0.6rem;
    }
    h3 {
      font-size: 1rem;
      margin: 1.1rem 0 0.4rem;
    }
    section {
      background: var(--card);
      border: 1px solid var(--line);
      border-radius: 10px;
      padding: 1rem;
      margin: 1rem 0;
    }
    nav {
      display: flex;
      flex-wrap: wrap;
      gap: 0.3rem 1rem;
    }
    a {
      color: var(--accent);
    }
    p {
      margin: 0.4rem 0;
    }
    .soft,
    small {
      color: var(--soft);
    }
    .good {
      color: var(--good);
    }
    .bad {
      color: var(--bad);
    }
    .scroll {
      overflow-x: auto;
    }
    table {
      border-collapse: collapse;
      width: 100%;
      font-variant-numeric: tabular-nums;
    }
    th,
    td {
      text-align: left;
      padding: 0.3rem 0.6rem;
      border-bottom: 1px solid var(--line);
      vertical-align: top;
    }
    th {
      color: var(--soft);
      font-weight: 600;
      white-space: nowrap;
    }
    .number {
      text-align: right;
      white-space: nowrap;
    }
    td small {
      display: block;
    }
    code,
    pre {
      font:
        12.5px/1.45 ui-monospace,
        monospace;
    }
    code {
      overflow-wrap: anywhere;
    }
    pre {
      overflow: auto;
      max-height: 28rem;
      padding: 0.6rem;
      border: 1px solid var(--line);
      border-radius: 6px;
      white-space: pre-wrap;
    }
    svg {
      display: block;
      width: 100%;
      height: auto;
      color: var(--accent);
    }
    svg text {
      fill: var(--soft);
      font:
        11px system-ui,
        sans-serif;
    }
    .columns {
      display: grid;
      grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr));
      gap: 1rem;
    }
    ol,
    ul {
      margin: 0.2rem 0;
      padding-left: 1.5rem;
    }
    .hit {
      color: var(--good);
      font-weight: 600;
    }
    @media (max-width: 600px) {
      svg text {
        font-size: 18px;
      }
    }
    details {
      margin: 0.5rem 0;
    }
    summary {
      cursor: pointer;
      overflow-wrap: anywhere;
    }
  </style>`;
}
