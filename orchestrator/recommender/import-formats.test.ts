/** Every format from its own files: what each reads, what broken ones are refused with, and real data rendered in all of them. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { eventsOf } from './dataset.js';
import { forEachLine } from './files.js';
import { ingest, type IngestResult } from './ingest.js';
import { type IngestColumns, ingestColumns, type IngestFormat } from './recipes.js';
import { TestFolder } from './test-folder.js';

const SHARED = process.env['COLLIMATE_TEST_DATA'] ?? fileURLToPath(new URL('../../../shared/data', import.meta.url));

let folder: TestFolder;
beforeEach(async () => {
  folder = await TestFolder.make();
});
afterEach(() => folder.remove());

type Content = string | Uint8Array;

async function ingested(
  format: IngestFormat,
  { interactions, items, columns = null }: { interactions: Content; items?: Content; columns?: IngestColumns | null },
): Promise<IngestResult> {
  const files = {
    interactions: await folder.write('interactions', interactions),
    items: items === undefined ? null : await folder.write('items', items),
  };
  return ingest(files, { format, minEventsPerUser: 1, minEventsPerItem: 1, columns });
}

function histories({ dataset, catalogue, userIds }: IngestResult): Record<string, string[]> {
  return Object.fromEntries(
    userIds.map((user, index) => [user, Array.from(eventsOf(dataset, index), (item) => catalogue[item]?.item ?? '?')]),
  );
}

const texts = ({ catalogue }: IngestResult): Record<string, [string, string]> =>
  Object.fromEntries(catalogue.map(({ item, title, categories }) => [item, [title, categories]]));

describe('amazon', () => {
  const reviews = [3, 1, 2].map((time) =>
    JSON.stringify({ reviewerID: 'A1', asin: `B00000000${time}`, unixReviewTime: time }),
  );

  it('reads the metadata of 2014, which is Python and not JSON', async () => {
    const items = [
      `{'asin': 'B000000001', 'title': "Baby's Drill \\u00e9", 'price': 1.5, 'categories': [['Tools', u'Power'], ('Tools',)], 'x': None}`,
      `{'asin': 'B000000002', 'title': 'It\\'s \\\\ here', 'related': {'also_bought': ['a', 'b',]}, 'ok': True, 'salesRank': {}}`,
      `{'asin': 'B000000003', 'title': __import__('os')}`,
    ].join('\n');
    const result = await ingested('amazon', { interactions: reviews.join('\n'), items });
    expect(histories(result)).toEqual({ A1: ['B000000001', 'B000000002', 'B000000003'] });
    expect(texts(result)).toEqual({
      B000000001: ["Baby's Drill é", 'Tools, Power'],
      B000000002: ["It's \\ here", ''],
      B000000003: ['', ''],
    });
    expect(result.report.items).toMatchObject({ usable: 2, malformed: 1, examples: [{ line: 3 }] });
  });

  it('reads 2023: parents instead of variants, milliseconds, a store for a brand', async () => {
    const review = (item: string, timestamp: number): string =>
      JSON.stringify({ user_id: 'AE7', asin: 'variant', parent_asin: item, timestamp, rating: 5, text: 'x' });
    const items = JSON.stringify({
      parent_asin: 'B2',
      title: 'Saw',
      store: 'Acme',
      categories: ['Tools'],
      description: [],
    });
    const interactions = [
      review('B2', 1_600_000_000_002),
      review('B1', 1_600_000_000_001),
      review('B3', 1_600_000_000_003),
    ];
    const result = await ingested('amazon', { interactions: interactions.join('\n'), items });
    expect(histories(result)).toEqual({ AE7: ['B1', 'B2', 'B3'] });
    expect(result.catalogue[1]).toMatchObject({ item: 'B2', title: 'Saw', brand: 'Acme', categories: 'Tools' });
  });

  it('reads ratings-only files of each generation, and tells users from items by their ids', async () => {
    const rows = [
      ['A2CX7LUOHB2NDG', 'B000000002', '2'],
      ['A2CX7LUOHB2NDG', '032173494X', '1'],
      ['A2CX7LUOHB2NDG', 'B000000003', '3'],
    ] as const;
    const expected = { A2CX7LUOHB2NDG: ['032173494X', 'B000000002', 'B000000003'] };
    const of2014 = rows.map(([user, item, time]) => `${user},${item},5.0,${time}`).join('\n');
    const of2018 = rows.map(([user, item, time]) => `${item},${user},5.0,${time}`).join('\n');
    const of2023 = `user_id,parent_asin,rating,timestamp\n${of2014}`;
    for (const interactions of [of2014, of2018, of2023]) {
      expect(histories(await ingested('amazon', { interactions }))).toEqual(expected);
    }
  });

  it('refuses ratings whose columns could be either, instead of guessing', async () => {
    await expect(ingested('amazon', { interactions: '17,42,5.0,100\n' })).rejects.toThrow(
      /interactions line 1: expected user,item,rating,time or .* got "17,42,5.0,100"; give the file a header/,
    );
  });
});

describe('movielens', () => {
  const expected = { 1: ['20', '10', '30'] };

  it('reads 1M: "::" and latin1 titles', async () => {
    const movies = Buffer.from('10::Café (1995)::Comedy|Drama\n20::Heat::Action\n', 'latin1');
    const interactions = '1::10::5::200\n1::20::3::100\n1::30::4::300\n';
    const result = await ingested('movielens', { interactions, items: movies });
    expect(histories(result)).toEqual(expected);
    expect(texts(result)['10']).toEqual(['Café (1995)', 'Comedy, Drama']);
  });

  it('reads 20M and later: CSV with quoted titles in UTF-8', async () => {
    const items =
      'movieId,title,genres\r\n10,"American ""Président"", The (1995)",Comedy|Romance\r\n20,Heat,(no genres listed)\r\n';
    const interactions = 'userId,movieId,rating,timestamp\r\n1,10,4.0,200\r\n1,20,3.5,100\r\n1,30,2,300\r\n';
    const result = await ingested('movielens', { interactions: gzipSync(interactions), items });
    expect(histories(result)).toEqual(expected);
    expect(texts(result)).toMatchObject({
      10: ['American "Président", The (1995)', 'Comedy, Romance'],
      20: ['Heat', ''],
    });
  });

  it('reads 100K: tabs, and genres as columns of 0 and 1', async () => {
    const flags = Array.from({ length: 19 }, (_, i) => (i === 5 || i === 18 ? '1' : '0')).join('|');
    const items = Buffer.from(`10|Café|01-Jan-1995||http://x|${flags}\n`, 'latin1');
    const result = await ingested('movielens', {
      interactions: '1\t10\t3\t200\n1\t20\t3\t100\n1\t30\t1\t300\n',
      items,
    });
    expect(histories(result)).toEqual(expected);
    expect(texts(result)['10']).toEqual(['Café', 'Comedy, Western']);
  });

  it('refuses another file', async () => {
    await expect(ingested('movielens', { interactions: 'hello\n' })).rejects.toThrow(
      /interactions line 1: expected user::movie::rating::time, .* got "hello"; check the format setting/,
    );
  });
});

describe('csv and ndjson with named columns', () => {
  const columns = ingestColumns({ user: 'who', item: 'what', time: 'when', title: 'name' });

  it('reads quotes of RFC 4180: separators, doubled quotes and line ends within cells', async () => {
    const interactions =
      'when,what,who\n2024-01-03,"a,1",u\n2024-01-01T10:00:00Z,b,u\n2024-01-01 09:59:59,"c ""x""",u\n';
    const items = 'name,what\n"two\nlines, one ""title""","a,1"\n';
    const result = await ingested('csv', { interactions, items, columns });
    expect(histories(result)).toEqual({ u: ['c "x"', 'b', 'a,1'] });
    expect(texts(result)['a,1']).toEqual(['two\nlines, one "title"', '']);
  });

  it('takes another separator, and the order in the file without a time', async () => {
    const other = ingestColumns({ user: 'who', item: 'what', separator: ';' });
    const result = await ingested('csv', { interactions: 'who;what\nu;b\nu;a\nu;c\n', columns: other });
    expect(histories(result)).toEqual({ u: ['b', 'a', 'c'] });
  });

  it('counts bad quotes and reads on behind a quote that is never closed', async () => {
    const lines = [
      'who,what,when',
      'u,a,1',
      'u,"b"x,2',
      'u,"c,3',
      ...Array.from({ length: 200 }, (_, i) => `u,i${i},${i + 4}`),
    ];
    const { report } = await ingested('csv', { interactions: lines.join('\n'), columns });
    expect(report.interactions).toMatchObject({ usable: 201, malformed: 2 });
    expect(report.interactions.examples.map(({ line }) => line)).toEqual([3, 4]);
  });

  it('refuses a file without a named column', async () => {
    await expect(ingested('csv', { interactions: 'who,what\nu,a\n', columns })).rejects.toThrow(
      'interactions line 1: expected a comma-separated header with who, what, when, got "who,what"',
    );
    await expect(ingested('csv', { interactions: 'who,what,when\n' })).rejects.toThrow(/expected "columns"/);
  });

  it('ndjson: ids of text or whole numbers, dates or numbers for times', async () => {
    const record = (what: unknown, when: unknown): string => JSON.stringify({ who: 7, what, when });
    const interactions = [record('b', 20), record(5, 10), record('c', 30), record(1.5, 40), record('d', 'soon'), ''];
    const items = `${JSON.stringify({ what: 'b', name: ['Saw', 'Blade'] })}\n`;
    const result = await ingested('ndjson', { interactions: interactions.join('\n\n'), items, columns });
    expect(histories(result)).toEqual({ 7: ['5', 'b', 'c'] });
    expect(texts(result)['b']).toEqual(['Saw, Blade', '']);
    expect(result.report.interactions).toMatchObject({ usable: 3, malformed: 2, skipped: { blank_line: 5 } });
    expect(Object.values(result.report.interactions.malformedBy ?? {})).toEqual([2]);
  });
});

describe('wrong files', () => {
  const line = (i: number): string => JSON.stringify({ user: 'u', item: `i${i}`, time: i });

  it('are given up after 10,000 lines when more than 5 % are malformed', async () => {
    const lines = Array.from({ length: 60_000 }, (_, i) => (i % 15 === 3 ? 'bad' : line(i)));
    await expect(ingested('collimate', { interactions: lines.join('\n') })).rejects.toThrow(
      /interactions line 4: expected \{"user": string.* got "bad"; 667 of the first 10000 lines are malformed \(limit 5 %\)/,
    );
  });

  it('are not given up for 4 %', async () => {
    const lines = Array.from({ length: 12_000 }, (_, i) => (i % 25 === 3 ? 'bad' : line(i)));
    const { report } = await ingested('collimate', { interactions: lines.join('\n') });
    expect(report.interactions.malformed).toBe(480);
  });

  it('without a line end are not taken into memory', async () => {
    await expect(ingested('s3rec', { interactions: 'x'.repeat(20_000_000) })).rejects.toThrow(
      /expected lines of text, got \d+ characters without a line end/,
    );
  });

  it.each<[IngestFormat, Content]>([
    ['collimate', 'user_id:token\titem_id:token\nu\ta\n'],
    ['s3rec', '{"user": "u", "item": "a", "time": 1}\n'],
    ['recbole', '1::2::3::4\n'],
    ['amazon', 'u a b c\n'],
    ['movielens', '{"user": "u"}\n'],
  ])('%s: a file of another format is bad input that names line 1', async (format, interactions) => {
    await expect(ingested(format, { interactions })).rejects.toThrow(/interactions line 1: expected .* got "/);
  });

  it('cut gzip files are bad input', async () => {
    const whole = gzipSync(Array.from({ length: 5_000 }, (_, i) => line(i * 7919)).join('\n'));
    await expect(ingested('collimate', { interactions: whole.subarray(0, whole.length >> 1) })).rejects.toThrow(
      /expected a whole gzip file, got a damaged one/,
    );
  });
});

describe.each([
  { name: 'amazon18_scientific', users: 8_317, items: 4_344, events: 58_492 },
  { name: 'amazon14_beauty', users: 22_363, items: 12_101, events: 198_502 },
])('$name (skipped without the shared data)', ({ name, users, items, events }) => {
  const files = { interactions: `${SHARED}/${name}/sequences.txt.gz`, items: `${SHARED}/${name}/items.tsv.gz` };

  it.skipIf(!existsSync(files.items))('comes whole, and a core of it keeps what it promises', async () => {
    const all = await ingest(files, { format: 's3rec', minEventsPerUser: 1, minEventsPerItem: 1, columns: null });
    expect(all.report).toMatchObject({ users, itemsKept: items, events, itemsWithoutMetadata: 0, duplicateEvents: 0 });
    expect(all.report.interactions.malformed).toBe(0);
    const core = await ingest(files, { format: 's3rec', minEventsPerUser: 6, minEventsPerItem: 6, columns: null });
    const { dataset, report } = core;
    const perItem = new Map<number, number>();
    for (const item of dataset.items) perItem.set(item, (perItem.get(item) ?? 0) + 1);
    expect(report.removedByCore.users).toBeGreaterThan(0);
    expect(Math.min(...perItem.values())).toBeGreaterThanOrEqual(6);
    for (let user = 0; user < dataset.userCount; user += 1) {
      expect(eventsOf(dataset, user).length).toBeGreaterThanOrEqual(6);
    }
    expect(report.events + report.removedByCore.events).toBe(events);
  });
});

describe('real data in every format', () => {
  const source = `${SHARED}/amazon18_scientific/sequences.txt.gz`;
  const USERS = 400;

  it.skipIf(!existsSync(source))('gives one dataset (skipped without the shared data)', async () => {
    const sequences: [string, string[]][] = [];
    await forEachLine(source, (text) => {
      const [user = '', ...items] = text.split(' ');
      sequences.push([user, items]);
      return sequences.length < USERS;
    });
    // One time for each event, users one after the other; the rows are then shuffled by a fixed rule.
    const rows = sequences.flatMap(([user, items]) => items.map((item) => ({ user, item })));
    const events = rows
      .map((row, time) => ({ ...row, time }))
      .sort((a, b) => ((a.time * 7919) % 10_007) - ((b.time * 7919) % 10_007));
    const file = (header: string, lineOf: (event: (typeof events)[number]) => string): string =>
      `${header}${events.map(lineOf).join('\n')}\n`;
    const columns = ingestColumns({ user: 'who', item: 'what', time: 'when' });
    const rendered: [IngestFormat, Content, IngestColumns | null][] = [
      ['s3rec', sequences.map(([user, items]) => [user, ...items].join(' ')).join('\n'), null],
      ['collimate', gzipSync(file('', (event) => JSON.stringify(event))), null],
      [
        'recbole',
        file('time:x\ttimestamp:float\titem_id:token\tuser_id:token\n', (e) => `x\t${e.time}\t${e.item}\t${e.user}`),
        null,
      ],
      ['amazon', file('', (e) => JSON.stringify({ reviewerID: e.user, asin: e.item, unixReviewTime: e.time })), null],
      ['movielens', file('', (e) => `${e.user}::${e.item}::5::${e.time}`), null],
      ['csv', file('when,who,what\n', (e) => `${e.time},"${e.user}",${e.item}`), columns],
      ['ndjson', file('', (e) => JSON.stringify({ who: e.user, what: Number(e.item), when: e.time })), columns],
    ];
    const results = [];
    for (const [format, interactions, named] of rendered) {
      results.push(await ingested(format, { interactions, columns: named }));
    }
    const [first] = results;
    if (first === undefined) throw new Error('nothing was rendered');
    expect(first.dataset.userCount).toBe(USERS);
    expect(first.dataset.items.length).toBe(rows.length);
    for (const { dataset, userIds, catalogue } of results) {
      expect(userIds).toEqual(first.userIds);
      expect(catalogue).toEqual(first.catalogue);
      expect(dataset).toEqual(first.dataset);
    }
  });
});
