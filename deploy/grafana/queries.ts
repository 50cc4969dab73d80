/**
 * The queries of a dashboard as Grafana would send them: with every variable filled in.
 *
 * A variable that nothing fills is an error here; Grafana would send it as it is and show an empty panel.
 */
import { VARIABLE_QUERIES, type Room, type VariableName } from './room.js';

export interface Values extends Partial<Record<VariableName, string>> {
  /** Grafana's rate interval: at least four scrapes. */
  rateInterval: string;
  /** The chosen time range. */
  range: string;
}

export interface PanelQuery {
  room: string;
  panel: string;
  expr: string;
}

export function panelQueries(room: Room, values: Values): PanelQuery[] {
  return room.panels.flatMap((panel) =>
    panel.queries.map(({ expr }) => ({
      room: room.uid,
      panel: panel.title,
      expr: filledIn(expr, { ...values, known: room.variables }),
    })),
  );
}

/** What the drop-downs of the rooms ask for. */
export function variableQueries(values: Values): PanelQuery[] {
  return Object.entries(VARIABLE_QUERIES).map(([name, { expr }]) => ({
    room: 'variables',
    panel: name,
    expr: filledIn(expr, { ...values, known: ['run', 'stage'] }),
  }));
}

function filledIn(expr: string, { known, ...values }: Values & { known: readonly VariableName[] }): string {
  return expr.replace(/\$(\w+)/g, (whole, name: string) => {
    if (name === '__rate_interval') return values.rateInterval;
    if (name === '__range') return values.range;
    if (known.some((variable) => variable === name)) return values[name as VariableName] ?? '.*';
    const expected = [...known, '__rate_interval', '__range'].map((variable) => `$${variable}`).join(', ');
    throw new Error(`expected one of ${expected} in "${expr}", got ${whole}; declare it in the room's variables`);
  });
}
