/**
 * Draws a room from a Prometheus: node dist/deploy/picture.js --prometheus host:port --run RUN --room collimate-run --out FILE.svg
 * [--seconds N]. Of the last N seconds (600) those in which the run ran.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { pictureOf, type Line, type PanelData, type PictureRange } from './grafana/picture.js';
import { panelQueries } from './grafana/queries.js';
import { ROOMS } from './grafana/rooms.js';

const QUERY_TIMEOUT_MS = 10_000;
const POINTS = 200;
/** Last values come with the scrapes after the end. */
const AFTER_SECONDS = 3;

interface Matrix {
  metric: Record<string, string>;
  values: [seconds: number, value: string][];
}

const { values: flags } = parseArgs({
  options: {
    prometheus: { type: 'string' },
    run: { type: 'string' },
    room: { type: 'string', default: 'collimate-run' },
    out: { type: 'string' },
    seconds: { type: 'string', default: '600' },
  },
});

try {
  await draw();
} catch (error) {
  console.error(`error: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 2;
}

async function draw(): Promise<void> {
  const { prometheus, run, out } = flags;
  if (prometheus === undefined || run === undefined || out === undefined) {
    throw new Error('expected --prometheus host:port, --run RUN and --out FILE');
  }
  const room = ROOMS.find(({ uid }) => uid === flags.room);
  if (room === undefined) {
    throw new Error(`expected --room to be one of ${ROOMS.map(({ uid }) => uid).join(', ')}, got "${flags.room}"`);
  }
  const endSeconds = Date.now() / 1000;
  const whole = { startSeconds: endSeconds - Number(flags.seconds), endSeconds };
  const [seen] = await ask(prometheus, `max(collimate_run_state{run="${run}",state="running"}) == 1`, whole);
  const [from, to] = [seen?.values[0]?.[0], seen?.values.at(-1)?.[0]];
  if (from === undefined || to === undefined) {
    throw new Error(`expected a run "${run}" that ran in the last ${flags.seconds} s at ${prometheus}, found none`);
  }
  const range = { startSeconds: from, endSeconds: Math.min(to + AFTER_SECONDS, endSeconds) };
  const asked = panelQueries(room, { run, rateInterval: '4s', range: '10m' });
  const panels: PanelData[] = [];
  for (const panel of room.panels) {
    const lines: Line[] = [];
    for (const { legend } of panel.queries) {
      const query = asked.shift();
      if (query === undefined) throw new Error('a panel without its query');
      lines.push(...(await ask(prometheus, query.expr, range)).map((series) => lineOf(series, legend)));
    }
    panels.push({ panel, lines });
  }
  writeFileSync(`${out}.tmp`, pictureOf(room, panels, range));
  renameSync(`${out}.tmp`, out);
}

async function ask(address: string, query: string, { startSeconds, endSeconds }: PictureRange): Promise<Matrix[]> {
  const step = Math.max(1, Math.ceil((endSeconds - startSeconds) / POINTS));
  const parameters = { query, start: String(startSeconds), end: String(endSeconds), step: String(step) };
  const url = `http://${address}/api/v1/query_range?${new URLSearchParams(parameters).toString()}`;
  const response = await fetch(url, { signal: AbortSignal.timeout(QUERY_TIMEOUT_MS) }).catch((error: unknown) => {
    throw new Error(`expected a Prometheus at ${address}, but it does not answer; see "collimate up --monitoring"`, {
      cause: error,
    });
  });
  const body = (await response.json()) as { status: string; error?: string; data: { result: Matrix[] } };
  if (body.status !== 'success') throw new Error(`Prometheus refused ${query}: ${body.error ?? body.status}`);
  return body.data.result;
}

function lineOf({ metric, values }: Matrix, legend: string): Line {
  const name = legend.replace(/\{\{(\w+)\}\}/g, (_, label: string) => metric[label] ?? '');
  return { legend: name, points: values.map(([seconds, value]) => [seconds, Number(value)] as const) };
}
