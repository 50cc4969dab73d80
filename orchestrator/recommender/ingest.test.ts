import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { eventsOf } from './dataset.js';
import { ingest, type IngestResult } from './ingest.js';
import { type IngestColumns, type IngestFormat } from './recipes.js';
import { TestFolder } from './test-folder.js';

let folder: TestFolder;
beforeEach(async () => {
  folder = await TestFolder.make();
});
afterEach(() => folder.remove());

interface Case {
  format: IngestFormat;
  interactions: string | Uint8Array;
  items?: string | Uint8Array;
  minEventsPerUser?: number;
  minEventsPerItem?: number;
  columns?: IngestColumns | null;
}

async function ingested({
  format,
  interactions,
  items,
  minEventsPerUser = 1,
  minEventsPerItem = 1,
  columns = null,
}: Case): Promise<IngestResult> {
  const files = {
    interactions: await folder.write('interactions', interactions),
    items: items === undefined ? null : await folder.write('items', items),
  };
  return ingest(files, { format, minEventsPerUser, minEventsPerItem, columns });
}

/** Each user's external item ids. */
function histories({ dataset, catalogue, userIds }: IngestResult): Record<string, string[]> {
  return Object.fromEntries(
    userIds.map((user, index) => [user, Array.from(eventsOf(dataset, index), (item) => catalogue[item]?.item ?? '?')]),
  );
}

const event = (user: string, item: string, time: number): string => JSON.stringify({ user, item, time });

describe('ingest of each format', () => {
  it('collimate: orders by time, ties by place, drops repeats of (user, item, time)', async () => {
    const interactions = [
      event('u', 'c', 3),
      event('u', 'a', 1),
      event('v', 'b', 2),
      event('u', 'b', 1),
      event('u', 'a', 1),
    ];
    const items = ['a', 'b', 'c', 'd'].map((item) => JSON.stringify({ item, title: `title of ${item}` }));
    const result = await ingested({
      format: 'collimate',
      interactions: interactions.join('\n'),
      items: items.join('\n'),
    });
    expect(histories(result)).toEqual({ u: ['a', 'b', 'c'], v: ['b'] });
    expect(result.catalogue[0]).toEqual({
      item: 'a',
      title: 'title of a',
      brand: '',
      categories: '',
      keywords: '',
      description: '',
    });
    expect(result.report).toMatchObject({
      duplicateEvents: 1,
      metadataWithoutEvents: 1,
      usersTrainingOnly: 1,
      events: 4,
    });
  });

  it('s3rec: gzip lines and a tab-separated items file', async () => {
    const items = 'item_id\ttitle\tbrand\n7\tHammer\tAcme\n8\tNail\t\n';
    const result = await ingested({
      format: 's3rec',
      interactions: gzipSync('1 7 8 9\n2 8 7 7\n'),
      items: gzipSync(items),
    });
    expect(histories(result)).toEqual({ 1: ['7', '8', '9'], 2: ['8', '7', '7'] });
    expect(result.catalogue.map(({ title, brand }) => [title, brand])).toEqual([
      ['Hammer', 'Acme'],
      ['Nail', ''],
      ['', ''],
    ]);
    expect(result.report.itemsWithoutMetadata).toBe(1);
  });

  it('recbole: typed headers in any column order', async () => {
    const interactions =
      'item_id:token\tuser_id:token\trating:float\ttimestamp:float\na\tu\t5\t30\nb\tu\t4\t10\nc\tu\t1\t20\n';
    const items = 'item_id:token\tclass:token_seq\titem_title:token_seq\na\ttools\tSaw\n';
    const result = await ingested({ format: 'recbole', interactions, items });
    expect(histories(result)).toEqual({ u: ['b', 'c', 'a'] });
    expect(result.catalogue[2]).toMatchObject({ item: 'a', title: 'Saw', categories: 'tools' });
  });

  it('amazon: reviews and metadata of both generations', async () => {
    const review = (asin: string, time: number): string =>
      JSON.stringify({ reviewerID: 'A1', asin, unixReviewTime: time, overall: 5 });
    const metadata = [
      {
        asin: 'x',
        title: 'Drill',
        categories: [
          ['Tools', 'Power'],
          ['Tools', 'Gifts'],
        ],
        description: 'Fast.',
      },
      { asin: 'y', title: 'Bit', brand: 'Acme', category: ['Tools', 'Bits'], description: ['Hard.', 'Sharp.'] },
    ];
    const result = await ingested({
      format: 'amazon',
      interactions: gzipSync([review('y', 2), review('x', 1), review('z', 3)].join('\n')),
      items: metadata.map((item) => JSON.stringify(item)).join('\n'),
    });
    expect(histories(result)).toEqual({ A1: ['x', 'y', 'z'] });
    expect(result.catalogue[0]).toMatchObject({
      title: 'Drill',
      categories: 'Tools, Power, Gifts',
      description: 'Fast.',
    });
    expect(result.catalogue[1]).toMatchObject({
      brand: 'Acme',
      categories: 'Tools, Bits',
      description: 'Hard. Sharp.',
    });
  });

  it('takes the intention column of each format, and leaves items without one as they are', async () => {
    const files: Case[] = [
      {
        format: 'collimate',
        interactions: ['a', 'b', 'c'].map((item, time) => event('u', item, time)).join('\n'),
        items: '{"item":"a","intention":" gift "}\n{"item":"b"}\n{"item":"c","intention":""}\n',
      },
      {
        format: 's3rec',
        interactions: 'u a b c\n',
        items: 'item_id\ttitle\tintention\na\t\tgift\nb\t\t\nc\t\t\n',
      },
      {
        format: 'recbole',
        interactions: 'user_id:token\titem_id:token\nu\ta\nu\tb\nu\tc\n',
        items: 'item_id:token\tintention:token_seq\na\tgift\nb\t\nc\t\n',
      },
    ];
    for (const file of files) {
      const { catalogue } = await ingested(file);
      expect(catalogue.map((item) => item.intention)).toEqual(['gift', undefined, undefined]);
      expect(catalogue.map((item) => 'intention' in item)).toEqual([true, false, false]);
    }
  });

  it('removes short users and rare items until nothing changes', async () => {
    // d is rare; without d user w is short; without w item c is rare.
    const lines = ['u a b a b', 'v b a b a', 'w c a d', 'x c a b'];
    const result = await ingested({
      format: 's3rec',
      interactions: lines.join('\n'),
      minEventsPerUser: 3,
      minEventsPerItem: 2,
    });
    expect(histories(result)).toEqual({ u: ['a', 'b', 'a', 'b'], v: ['b', 'a', 'b', 'a'] });
    expect(result.report.removedByCore).toEqual({ users: 2, items: 2, events: 6 });
  });
});

describe('bad input', () => {
  const fine = Array.from({ length: 30 }, (_, i) => event('u', `i${i}`, i));

  it('counts and reports malformed lines within the limit', async () => {
    const { report } = await ingested({
      format: 'collimate',
      interactions: [...fine, '{"user": 3}', 'nonsense'].join('\n'),
    });
    expect(report.interactions).toMatchObject({ lines: 32, usable: 30, malformed: 2 });
    expect(report.interactions.examples[0]).toMatchObject({ line: 31, got: '"{\\"user\\": 3}"' });
  });

  it('refuses more than 10 % malformed lines, naming the first', async () => {
    const interactions = [...fine.slice(0, 20), ...['a', 'b', 'c']].join('\n');
    await expect(ingested({ format: 'collimate', interactions })).rejects.toThrow(
      /interactions line 21: expected \{"user": string.*got "a"; 3 of 23 lines are malformed \(limit 10 %\)/,
    );
  });

  it('judges no short file by its share of malformed lines', async () => {
    const { report } = await ingested({ format: 'collimate', interactions: [...fine.slice(0, 4), 'bad'].join('\n') });
    expect(report.interactions.malformed).toBe(1);
  });

  it('refuses an empty file and a file without a usable line', async () => {
    await expect(ingested({ format: 'amazon', interactions: '' })).rejects.toThrow(
      /expected lines of .* got a file without a single record/,
    );
    await expect(ingested({ format: 'amazon', interactions: fine.join('\n') })).rejects.toThrow(
      /interactions line 1: expected \{"reviewerID"/,
    );
    await expect(ingested({ format: 's3rec', interactions: fine.join('\n') })).rejects.toThrow(
      /expected a user and its items/,
    );
  });

  it('treats an event of an item that the items file lacks as malformed', async () => {
    const items = fine.slice(1).map((_, i) => JSON.stringify({ item: `i${i + 1}` }));
    const { report } = await ingested({ format: 'collimate', interactions: fine.join('\n'), items: items.join('\n') });
    expect(report.interactions.examples).toEqual([
      { line: 1, expected: 'an item that the items file lists', got: JSON.stringify(fine[0]) },
    ]);
  });

  it('refuses data in which nobody has three events', async () => {
    await expect(ingested({ format: 's3rec', interactions: 'u a\nv b c\n' })).rejects.toThrow(
      /expected at least one user with 3 events, got 2 users with fewer/,
    );
  });

  it('refuses tables without the needed header and counts rows of another width', async () => {
    await expect(ingested({ format: 'recbole', interactions: 'u\ta\t1\n' })).rejects.toThrow(
      /header with user_id, item_id, got/,
    );
    const interactions = 'user_id:token\titem_id:token\ttimestamp:float\nu\ta\t1\nu\tb\nu\tc\tsoon\nu\td\t4\nu\te\t5\n';
    const { report } = await ingested({ format: 'recbole', interactions });
    expect(report.interactions.examples.map(({ line }) => line)).toEqual([3, 4]);
  });
});
