/** The page docs/metrics.md, made from the registry. */
import { METRICS, type MetricDeclaration, type MetricExporter } from './registry.js';

const EXPORTERS: readonly { exporter: MetricExporter; heading: string; found: string }[] = [
  { exporter: 'every process', heading: 'Every process', found: 'Wherever a process serves `/metrics`.' },
  {
    exporter: 'controller',
    heading: 'Controller',
    found: '`collimate controller --metrics host:port`. What is heard of runs, of the fleet and of Temporal.',
  },
  {
    exporter: 'worker',
    heading: 'Worker',
    found:
      "`collimate worker --metrics host:port`. Prometheus finds workers through the controller's `/targets` (`http_sd_configs`), which gives each series the label `worker`.",
  },
  { exporter: 'serve', heading: 'Recommender', found: '`collimate serve --metrics host:port`.' },
];

const INTRODUCTION = `# Metrics

Made by \`npm run generate\` from \`orchestrator/telemetry/registry.ts\`; a test holds this page, what a real run exports, and what the dashboards and
alerts use to that file.

Labels are bounded: never a step, a user or an item. Series of a run (label \`run\`) go five minutes after it has ended, on workers half an hour after its last
job, and everywhere once nothing has been heard of it for fifty minutes. Metrics marked † have no series before something has gone wrong, or without a device.
`;

export function metricsPage(): string {
  const sections = EXPORTERS.map(({ exporter, heading, found }) => {
    const rows = Object.entries<MetricDeclaration>(METRICS)
      .filter(([, declaration]) => declaration.exporter === exporter)
      .map(([name, declaration]) => row(name, declaration));
    return [
      `## ${heading}`,
      '',
      found,
      '',
      '| metric | type | unit | labels | what it is |',
      '| --- | --- | --- | --- | --- |',
      ...rows,
      '',
    ].join('\n');
  });
  return `${INTRODUCTION}\n${sections.join('\n')}`;
}

function row(name: string, { type, unit, labels, help, rare }: MetricDeclaration): string {
  const labelled = labels.length === 0 ? '–' : labels.map((label) => `\`${label}\``).join(', ');
  return `| \`${name}\`${rare === true ? ' †' : ''} | ${type} | ${unit === 'none' ? '–' : unit} | ${labelled} | ${help} |`;
}
