/** `fleet`: who is in it and what they do; `fleet cordon`, `drain` and `uncordon` for taking workers out and back. */
import { setTimeout as sleep } from 'node:timers/promises';

import { type Command } from 'commander';

import { CliError } from '../cli-error.js';
import { contextOf, wholeNumber } from '../command-context.js';
import { describeWorkers, workerState } from '../describe-fleet.js';
import { FleetClient } from '../fleet-client.js';
import { requireUp } from '../installation.js';
import { data, dataJson, progress } from '../output.js';

const DRAIN_SECONDS_DEFAULT = 120;
const DRAIN_SECONDS_MAX = 86_400;
const POLL_MS = 200;

export function addFleetCommand(program: Command): void {
  const fleet = program
    .command('fleet')
    .description('list the workers: state, where, since when, and for which job')
    .option('--controller <host:port>', 'address of the controller (default: that of this home)')
    .action(async (_flags: unknown, command: Command) => {
      const { output } = contextOf(command);
      await withFleet(command, async (client) => {
        const { workers } = await client.listWorkers();
        const now = Date.now() / 1000;
        if (output === 'json') dataJson(workers.map((worker) => ({ ...worker, state: workerState(worker, now) })));
        else data(describeWorkers(workers, now));
      });
    });

  addSchedulingCommand(fleet, 'cordon', {
    description: 'give these workers no new job; what runs on them goes on',
    scheduling: 'SCHEDULING_CORDONED',
    done: 'takes no new job',
  });
  addSchedulingCommand(fleet, 'uncordon', {
    description: 'let these workers take jobs again',
    scheduling: 'SCHEDULING_OPEN',
    done: 'takes jobs',
  });
  fleet
    .command('drain')
    .description(
      'cordon these workers and hand over what they do, without a step computed again; wait until they are free',
    )
    .argument('<worker...>', 'worker ids')
    .option(
      '--timeout <seconds>',
      'how long to wait for the hand-over',
      wholeNumber('--timeout', 1, DRAIN_SECONDS_MAX),
      DRAIN_SECONDS_DEFAULT,
    )
    .action(async (workerIds: string[], flags: { timeout: number }, command: Command) => {
      const { output } = contextOf(command);
      await withFleet(command, async (client) => {
        for (const workerId of workerIds) await client.setScheduling(workerId, 'SCHEDULING_DRAINED');
        progress(`${workerIds.join(', ')} told to hand over; waiting …`);
        await untilFree(client, workerIds, flags.timeout);
        if (output === 'json') dataJson(workerIds.map((workerId) => ({ workerId, state: 'drained' })));
        else
          for (const workerId of workerIds)
            data(`${workerId} drained; "collimate fleet uncordon ${workerId}" undoes it`);
      });
    });
}

function addSchedulingCommand(
  fleet: Command,
  name: string,
  options: { description: string; scheduling: 'SCHEDULING_CORDONED' | 'SCHEDULING_OPEN'; done: string },
): void {
  fleet
    .command(name)
    .description(options.description)
    .argument('<worker...>', 'worker ids')
    .action(async (workerIds: string[], _flags: unknown, command: Command) => {
      const { output } = contextOf(command);
      await withFleet(command, async (client) => {
        for (const workerId of workerIds) await client.setScheduling(workerId, options.scheduling);
        if (output === 'json') dataJson(workerIds.map((workerId) => ({ workerId, state: name })));
        else for (const workerId of workerIds) data(`${workerId} ${options.done}`);
      });
    });
}

/** Resolves once none of them has a job; one that has left the fleet has none. */
async function untilFree(client: FleetClient, workerIds: readonly string[], seconds: number): Promise<void> {
  const end = Date.now() + seconds * 1_000;
  for (;;) {
    const { workers } = await client.listWorkers();
    const busy = workers.filter(({ hello, lease }) => workerIds.includes(hello?.workerId ?? '') && lease !== null);
    if (busy.length === 0) return;
    if (Date.now() > end) {
      const jobs = busy.map(({ hello, lease }) => `${hello?.workerId ?? '?'} has ${lease?.jobId ?? '?'}`);
      throw new CliError(
        'timeout',
        `expected the hand-over within ${seconds} s, but ${jobs.join(', ')}; it goes on, see "collimate fleet"`,
      );
    }
    await sleep(POLL_MS);
  }
}

async function withFleet(command: Command, action: (client: FleetClient) => Promise<void>): Promise<void> {
  const { home } = contextOf(command);
  const { controller } = command.optsWithGlobals<{ controller?: string }>();
  const client = new FleetClient(controller ?? requireUp(home).addresses.controller);
  try {
    await action(client);
  } finally {
    client.close();
  }
}
