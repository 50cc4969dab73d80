/**
 * Import of MovieLens: `u.data` and `u.item` (100K), `ratings.dat` and `movies.dat` (1M, 10M), `ratings.csv` and `movies.csv` (20M and
 * later). Which one a file is shows in its first line.
 *
 * 1. Every rating is an event, whatever its value: what a person chose to watch is what is predicted.
 * 2. Titles of the older sets are latin1; lines that are UTF-8 are read as such.
 */
import { basename } from 'node:path';
import { forEachRow, importTableEvents, type TableForm } from './delimited-table.js';
import { BadInputError } from './domain-job.js';
import { type EventLog } from './event-log.js';
import { excerpt, firstLine } from './files.js';
import { type AuditReport, ImportAudit } from './import-audit.js';
import { type ItemTexts } from './item-texts.js';

/** Columns of u.item behind the five of the movie, in their order. */
const GENRES_100K = [
  ...['unknown', 'Action', 'Adventure', 'Animation', "Children's", 'Comedy', 'Crime', 'Documentary', 'Drama'],
  ...['Fantasy', 'Film-Noir', 'Horror', 'Musical', 'Mystery', 'Romance', 'Sci-Fi', 'Thriller', 'War', 'Western'],
];
const RATING_COLUMNS = ['userid', 'movieid', 'rating', 'timestamp'];
const RATINGS_HOLD =
  'user::movie::rating::time, user<tab>movie<tab>rating<tab>time, or CSV with userId,movieId,rating,timestamp';
const MOVIES_HOLD = 'movie::title::genres, u.item, or CSV with movieId,title,genres';
const NO_GENRES = '(no genres listed)';

const columnName = (cell: string): string => cell.trim().toLowerCase();

export async function importMovieLensRatings(path: string, log: EventLog): Promise<AuditReport> {
  return importTableEvents(path, log, {
    form: await formOf(path, {
      fixed: RATING_COLUMNS,
      plain: '\t',
      header: ['userid', 'movieid'],
      holds: RATINGS_HOLD,
    }),
    columns: { user: 'userid', item: 'movieid', time: 'timestamp' },
    holds: RATINGS_HOLD,
  });
}

export async function importMovieLensMovies(path: string, into: ItemTexts): Promise<AuditReport> {
  const audit = new ImportAudit(path, MOVIES_HOLD);
  const form = await formOf(path, {
    fixed: ['movieid', 'title', 'genres'],
    plain: '|',
    header: ['movieid', 'title'],
    holds: MOVIES_HOLD,
  });
  if (form.separator === '|') form.columns = ['movieid', 'title', 'date', 'video_date', 'url', ...GENRES_100K];
  await forEachRow(path, audit, {
    form,
    visit: ({ cell, first }) => {
      if (into.has(first)) {
        audit.skipped('repeated_item');
        return;
      }
      const flagged = GENRES_100K.filter((genre) => cell(genre) === '1');
      const listed = (cell('genres') ?? '').split('|').filter((genre) => genre !== '' && genre !== NO_GENRES);
      const categories = [...flagged, ...listed].join(', ');
      into.add(first, { title: cell('title') ?? '', brand: '', categories, keywords: '', description: '' });
      audit.usable();
    },
  });
  return audit.finish();
}

interface Variants {
  /** Columns of the `::` form and of the plain one. */
  fixed: string[];
  /** Separator of the form of 100K. */
  plain: string;
  header: string[];
  holds: string;
}

async function formOf(path: string, { fixed, plain, header, holds }: Variants): Promise<TableForm> {
  const line = await firstLine(path);
  const base = { columnName, required: header, maybeLatin1: true };
  if (line.includes('::')) return { ...base, separator: '::', quoted: false, columns: fixed };
  if (line.toLowerCase().startsWith('movieid,') || line.toLowerCase().startsWith('userid,')) {
    return { ...base, separator: ',', quoted: true, columns: null };
  }
  if (line === '' || line.split(plain).length >= fixed.length) {
    return { ...base, separator: plain, quoted: false, columns: fixed };
  }
  throw new BadInputError(
    `${basename(path)} line 1: expected ${holds}, got ${excerpt(line)}; check the format setting`,
  );
}
