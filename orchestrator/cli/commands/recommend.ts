/** `recommend`: the published list of one user, read from the serving folder or asked from a server. */
import { status } from '@grpc/grpc-js';
import { type Command } from 'commander';

import { loadService, makeClient, RpcError, unary } from '../../fleet/channel.js';
import { ListReader, NothingPublishedError, UnknownUserError } from '../../serving/list-reader.js';
import { CliError } from '../cli-error.js';
import { contextOf, wholeNumber } from '../command-context.js';
import { type Home } from '../home.js';
import { data, dataJson, progress, table } from '../output.js';

const LOOK_UP_DEADLINE_MS = 5_000;

interface RecommendFlags {
  k: number;
  exclude: string[];
  server?: string;
}

interface UserList {
  user: string;
  items: { item: string; title: string; score: number }[];
  generation: string;
  historyHash: string;
}

export function addRecommendCommand(program: Command): void {
  program
    .command('recommend')
    .description('print the published list of a user; needs no server')
    .argument('<user>', 'user id, as in the data')
    .option('-k <n>', 'items wanted', wholeNumber('-k', 1, 1000), 10)
    .option('--exclude <item>', 'leave this item out (may be repeated)', (value, all: string[]) => [...all, value], [])
    .option('--server <host:port>', 'ask a running "collimate serve" instead of reading the files')
    .action(async (user: string, flags: RecommendFlags, command: Command) => {
      const { home, output } = contextOf(command);
      const list =
        flags.server === undefined ? await readList(home, user, flags) : await askServer(flags.server, user, flags);
      if (output === 'json') {
        dataJson(list);
        return;
      }
      const rows = list.items.map(({ item, title, score }, index) => [
        String(index + 1),
        score.toFixed(4),
        item,
        title,
      ]);
      const columns = [
        { title: '#', align: 'right' as const },
        { title: 'SCORE', align: 'right' as const },
        { title: 'ITEM' },
        { title: 'TITLE' },
      ];
      data(table(columns, rows));
      progress(`generation ${list.generation}, history ${list.historyHash.slice(0, 12)}`);
    });
}

async function readList(home: Home, user: string, { k, exclude }: RecommendFlags): Promise<UserList> {
  const reader = await ListReader.open({ servingDir: home.serving, onWarning: progress });
  try {
    const { items, historyHash, meta } = reader.recommend({ user, k, exclude });
    return { user, items, generation: meta.generation, historyHash };
  } catch (error) {
    if (error instanceof UnknownUserError || error instanceof NothingPublishedError) {
      throw new CliError('notFound', error.message, { cause: error });
    }
    throw error;
  } finally {
    await reader.close();
  }
}

async function askServer(address: string, user: string, { k, exclude }: RecommendFlags): Promise<UserList> {
  const client = makeClient(loadService('RecommendService'), address);
  try {
    const request = { userId: user, k, excludeItemIds: exclude };
    const response = await unary(client, 'recommend', request, { deadlineMs: LOOK_UP_DEADLINE_MS });
    return {
      user,
      items: response.items.map(({ itemId, title, score }) => ({ item: itemId, title, score })),
      generation: response.generation,
      historyHash: response.historyHash,
    };
  } catch (error) {
    if (!(error instanceof RpcError)) throw error;
    const exit =
      error.code === status.NOT_FOUND
        ? 'notFound'
        : error.code === status.DEADLINE_EXCEEDED
          ? 'timeout'
          : 'unreachable';
    throw new CliError(exit, `look-up at ${address}: ${error.details}`, { cause: error });
  } finally {
    client.close();
  }
}
