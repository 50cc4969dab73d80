/** The table of a chaos session: a line per fault, the run's own columns on its first one. */
import type { TrialRow } from './trial.js';

interface Column {
  title: string;
  width: number;
}

const COLUMNS: Column[] = [
  { title: 'seed', width: 6 },
  { title: 'fault', width: 44 },
  { title: 'moment', width: 34 },
  { title: 'hit', width: 34 },
  { title: 'noticed', width: 8 },
  { title: '1st step', width: 8 },
  { title: 'repeated', width: 8 },
  { title: 'digest', width: 9 },
  { title: 'total', width: 7 },
  { title: 'incidents', width: 10 },
];

export function tableHead(): string {
  const titles = line(COLUMNS.map(({ title }) => title));
  return `${titles}\n${'-'.repeat(titles.length)}`;
}

export function tableRows(row: TrialRow): string {
  const lines = row.faults.map((fault, index) =>
    line([
      index === 0 ? String(row.seed) : '',
      fault.fault,
      fault.moment,
      fault.hit ?? (row.outcome === 'skipped' || row.outcome === 'broken' ? '-' : 'moment did not come'),
      seconds(fault.noticedAfterMs),
      seconds(fault.firstStepAfterMs),
      index === 0 ? String(row.stepsRepeated) : '',
      index === 0 ? row.outcome : '',
      index === 0 ? `${row.seconds.toFixed(1)} s` : '',
      index === 0 ? row.incidents.join(' ') : '',
    ]),
  );
  return [...lines, ...row.trouble.map((trouble) => `       ! ${trouble}`)].join('\n');
}

export interface Tally {
  runs: number;
  identical: number;
  different: number;
  lost: number;
  hangs: number;
  skipped: number;
  broken: number;
  /** Runs with the right digest after which something else was not as it must be. */
  unclean: number;
}

export function tallyOf(rows: readonly TrialRow[]): Tally {
  const count = (outcome: TrialRow['outcome']): number => rows.filter((row) => row.outcome === outcome).length;
  return {
    runs: rows.length,
    identical: count('identical'),
    different: count('different'),
    lost: count('lost'),
    hangs: count('hung'),
    skipped: count('skipped'),
    broken: count('broken'),
    unclean: rows.filter((row) => row.outcome === 'identical' && row.trouble.length > 0).length,
  };
}

/** Nothing lost, nothing hung, nothing different; what this machine could not do does not count. */
export function allWell({ runs, identical, skipped, unclean }: Tally): boolean {
  return identical > 0 && identical + skipped === runs && unclean === 0;
}

function seconds(ms: number | null): string {
  return ms === null ? '-' : `${(ms / 1000).toFixed(1)} s`;
}

function line(cells: string[]): string {
  return cells
    .map((cell, index) => cell.padEnd(COLUMNS[index]?.width ?? 0))
    .join(' ')
    .trimEnd();
}
