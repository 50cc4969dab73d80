/** From a room to Grafana's JSON. Every panel gets its unit, its description and the link to the next room. */
import * as common from '@grafana/grafana-foundation-sdk/common';
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import * as bargauge from '@grafana/grafana-foundation-sdk/bargauge';
import * as heatmap from '@grafana/grafana-foundation-sdk/heatmap';
import * as prometheus from '@grafana/grafana-foundation-sdk/prometheus';
import * as stat from '@grafana/grafana-foundation-sdk/stat';
import * as statetimeline from '@grafana/grafana-foundation-sdk/statetimeline';
import * as statushistory from '@grafana/grafana-foundation-sdk/statushistory';
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';

import { VARIABLE_QUERIES, type PanelSpec, type Room, type VariableName } from './room.js';

const HEIGHT = 8;
const WIDTH = 12;
const DATASOURCE = { type: 'prometheus', uid: '${datasource}' };

type PanelBuilder =
  | bargauge.PanelBuilder
  | heatmap.PanelBuilder
  | stat.PanelBuilder
  | statetimeline.PanelBuilder
  | statushistory.PanelBuilder
  | timeseries.PanelBuilder;

export function dashboardOf(room: Room, titles: ReadonlyMap<string, string>): dashboard.Dashboard {
  const builder = new dashboard.DashboardBuilder(room.title)
    .uid(room.uid)
    .description(room.description)
    .tags(['collimate'])
    .refresh('10s')
    .time({ from: 'now-1h', to: 'now' })
    .timezone('browser')
    .tooltip(dashboard.DashboardCursorSync.Crosshair)
    .withVariable(new dashboard.DatasourceVariableBuilder('datasource').label('Prometheus').type('prometheus'))
    .link(linkTo('All rooms', '').type(dashboard.DashboardLinkType.Dashboards).tags(['collimate']).asDropdown(true));
  for (const name of room.variables) builder.withVariable(variable(name));
  for (const panel of room.panels) {
    const title = titles.get(panel.next);
    if (title === undefined) {
      throw new Error(`panel "${panel.title}" of ${room.uid} leads to "${panel.next}", which is no room; see rooms.ts`);
    }
    builder.withPanel(panelOf(panel, title));
  }
  return builder.build();
}

function variable(name: VariableName): dashboard.QueryVariableBuilder {
  const { expr, regex } = VARIABLE_QUERIES[name];
  const builder = new dashboard.QueryVariableBuilder(name)
    .label(name)
    .datasource(DATASOURCE)
    .query({ query: `query_result(${expr})`, refId: name })
    .regex(regex)
    .refresh(dashboard.VariableRefresh.OnTimeRangeChanged)
    .sort(dashboard.VariableSort.AlphabeticalDesc);
  // One run at a time: the numbers of two do not add up.
  return name === 'run' ? builder : builder.multi(true).includeAll(true).allValue('.*');
}

function panelOf(spec: PanelSpec, nextTitle: string): PanelBuilder {
  const builder = drawn(spec)
    .title(spec.title)
    .description(spec.description)
    .unit(spec.unit)
    .datasource(DATASOURCE)
    .height(HEIGHT)
    .span(spec.width ?? WIDTH)
    .links([linkTo(nextTitle, `/d/${spec.next}`)]);
  for (const [index, { expr, legend }] of spec.queries.entries()) {
    const query = new prometheus.DataqueryBuilder()
      .refId(String.fromCharCode(65 + index))
      .expr(expr)
      .legendFormat(legend)
      .range();
    builder.withTarget(spec.kind === 'heatmap' ? query.format(prometheus.PromQueryFormat.Heatmap) : query);
  }
  return builder;
}

function drawn({ kind, stacked }: PanelSpec): PanelBuilder {
  switch (kind) {
    case 'timeseries': {
      const panel = new timeseries.PanelBuilder();
      const normal = new common.StackingConfigBuilder().mode(common.StackingMode.Normal);
      return stacked ? panel.stacking(normal).fillOpacity(30).min(0) : panel;
    }
    case 'stat':
      return new stat.PanelBuilder();
    case 'bars':
      return new bargauge.PanelBuilder().orientation(common.VizOrientation.Horizontal).min(0);
    case 'states':
      return new statetimeline.PanelBuilder().mergeValues(true);
    case 'grid':
      return new statushistory.PanelBuilder().colorScheme(
        new dashboard.FieldColorBuilder().mode(dashboard.FieldColorModeId.ContinuousYlRd),
      );
    case 'heatmap':
      return new heatmap.PanelBuilder().calculate(false);
  }
}

/** With the time range and the variables of where one comes from. */
function linkTo(title: string, url: string): dashboard.DashboardLinkBuilder {
  return new dashboard.DashboardLinkBuilder(title)
    .type(dashboard.DashboardLinkType.Link)
    .url(url)
    .includeVars(true)
    .keepTime(true);
}
