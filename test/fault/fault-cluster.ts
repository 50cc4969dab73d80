/**
 * A cluster that can be hurt: its processes under a supervisor as `collimate up` has one, its store on a small disk, and,
 * where a fault needs them, its workers on hosts of their own and its clocks in files.
 *
 * 1. Whatever ends is started again after its delay, whoever ended it; exits that no fault asked for are remembered.
 * 2. Features that a fault does not need are left out, so that they cannot be what is tested.
 * 3. `close` leaves no process, mount or namespace.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, mkdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import type { TestChild } from '../support/child.js';
import { Cluster } from '../support/cluster.js';
import { Network } from '../support/network.js';
import { StoreDisk } from './store-disk.js';

export const WORKER_IDS = ['w-0', 'w-1', 'w-2'] as const;
const DEFAULT_DELAY_MS = 500;
const RESTART_TRIES_PAUSE_MS = 500;
const FAKETIME_LIBRARIES = ['x86_64-linux-gnu', 'aarch64-linux-gnu'].map(
  (architecture) => `/usr/lib/${architecture}/faketime/libfaketimeMT.so.1`,
);

export interface Features {
  /** Workers in network namespaces. */
  network: boolean;
  /** Node processes under libfaketime. */
  clocks: boolean;
}

export function clocksMissing(): string | null {
  return faketime() === undefined ? 'libfaketime is not installed (Debian: apt-get install libfaketime)' : null;
}

function faketime(): string | undefined {
  return FAKETIME_LIBRARIES.find((path) => existsSync(path));
}

export class FaultCluster {
  /** Ends that no fault asked for. */
  readonly unexpectedExits: string[] = [];
  readonly #delays = new Map<string, number | null>();
  readonly #expectedExits = new Set<TestChild>();
  readonly #restarting = new Map<string, Promise<void>>();
  #closing = false;

  private constructor(
    readonly features: Features,
    readonly cluster: Cluster,
    readonly disk: StoreDisk,
    readonly network: Network | null,
    readonly folder: string,
  ) {}

  static async start(features: Features): Promise<FaultCluster> {
    const folder = await mkdtemp(join(tmpdir(), 'collimate-fault-'));
    const disk = await StoreDisk.mount(join(folder, 'store'));
    let network: Network | null = null;
    try {
      await mkdir(join(folder, 'clocks'));
      network = features.network ? await Network.create(WORKER_IDS) : null;
      for (const name of ['controller', ...WORKER_IDS]) await writeFile(clockFile(folder, name), '+0\n');
      const host = network?.gateway;
      const cluster = await Cluster.start(
        WORKER_IDS.map((id) => workerShape(id, network)),
        {
          ...(host === undefined ? {} : { host }),
          storeUrl: disk.folder,
          launch: (name, command) => launched({ name, command, folder, features, network }),
        },
      );
      const started = new FaultCluster(features, cluster, disk, network, folder);
      for (const name of ['temporal', 'controller', ...WORKER_IDS]) started.#supervise(name);
      return started;
    } catch (error) {
      await network?.close();
      disk.unmount();
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  child(name: string): TestChild {
    if (name === 'temporal') return this.cluster.temporal;
    if (name === 'controller') return this.cluster.controller;
    const worker = this.cluster.workers.get(name);
    if (worker === undefined) throw new Error(`expected one of ${WORKER_IDS.join(', ')}, got ${name}`);
    return worker;
  }

  /** Sends a signal that ends the process, and says when it is to come back. */
  end(name: string, signal: NodeJS.Signals, restartAfterMs: number | null): void {
    this.#delays.set(name, restartAfterMs);
    const child = this.child(name);
    this.#expectedExits.add(child);
    child.process.kill(signal);
  }

  /** The process may end of what is done to it, and is then restarted after the delay. */
  mayEnd(name: string, restartAfterMs: number | null): void {
    this.#delays.set(name, restartAfterMs);
    this.#expectedExits.add(this.child(name));
  }

  async jumpClock(name: string, seconds: number): Promise<void> {
    await writeFile(clockFile(this.folder, name), `${seconds >= 0 ? '+' : ''}${String(seconds)}\n`);
  }

  /** Brings back what stayed away, and waits for everything that is being started. */
  async whole(): Promise<void> {
    this.#delays.clear();
    for (const name of WORKER_IDS) {
      if (hasEnded(this.child(name)) && !this.#restarting.has(name)) this.#restartAfter(name, 0);
    }
    await Promise.all(this.#restarting.values());
  }

  /** Processes of this cluster that should not be there. */
  strays(): string[] {
    const expected = new Set(['temporal', 'controller', ...WORKER_IDS].map((name) => this.child(name).process.pid));
    return readdirSync('/proc').flatMap((entry) => {
      if (!/^\d+$/.test(entry) || expected.has(Number(entry))) return [];
      try {
        const command = readFileSync(`/proc/${entry}/cmdline`, 'utf8').replaceAll('\0', ' ');
        return command.includes(this.cluster.folder) ? [`process ${entry}: ${command.slice(0, 120)}`] : [];
      } catch {
        return [];
      }
    });
  }

  logTails(lines = 25): string {
    const folder = join(this.cluster.folder, 'logs');
    return readdirSync(folder)
      .map((name) => `--- ${name}\n${readFileSync(join(folder, name), 'utf8').split('\n').slice(-lines).join('\n')}`)
      .join('\n');
  }

  async close(): Promise<void> {
    this.#closing = true;
    await Promise.allSettled(this.#restarting.values());
    await this.cluster.close();
    await this.network?.close();
    this.disk.unmount();
    await rm(this.folder, { recursive: true, force: true });
  }

  #supervise(name: string): void {
    const child = this.child(name);
    void child.exited.then(() => {
      if (this.#closing) return;
      if (!this.#expectedExits.has(child)) {
        const { exitCode, signalCode } = child.process;
        this.unexpectedExits.push(`${name} ended by itself (${signalCode ?? `code ${String(exitCode)}`})`);
      }
      const delay = this.#delays.get(name);
      if (delay !== null) this.#restartAfter(name, delay ?? DEFAULT_DELAY_MS);
    });
  }

  #restartAfter(name: string, delayMs: number): void {
    const restarted = sleep(delayMs)
      .then(() => this.#restart(name))
      .finally(() => this.#restarting.delete(name));
    this.#restarting.set(name, restarted);
  }

  /** A start may fail while the disk is full or the network cut; a supervisor tries again. */
  async #restart(name: string): Promise<void> {
    while (!this.#closing) {
      try {
        if (name === 'temporal') await this.cluster.startTemporal();
        else if (name === 'controller') await this.cluster.startController();
        else await this.cluster.startWorker(workerShape(name, this.network));
        this.#supervise(name);
        return;
      } catch (error) {
        this.unexpectedExits.push(`${name} could not be started: ${(error as Error).message.split('\n')[0] ?? ''}`);
        if (!hasEnded(this.child(name))) await this.child(name).kill();
        await sleep(RESTART_TRIES_PAUSE_MS);
      }
    }
  }
}

export function hasEnded(child: TestChild): boolean {
  return child.process.exitCode !== null || child.process.signalCode !== null;
}

function workerShape(id: string, network: Network | null) {
  return network === null ? { id } : { id, host: network.address(id) };
}

function clockFile(folder: string, name: string): string {
  return join(folder, 'clocks', name);
}

interface LaunchOptions {
  name: string;
  command: string[];
  folder: string;
  features: Features;
  network: Network | null;
}

function launched({ name, command, folder, features, network }: LaunchOptions): string[] {
  let launch = command;
  const library = faketime();
  // Not Temporal: a Go program asks the kernel for the time, not the C library.
  if (features.clocks && library !== undefined && name !== 'temporal') {
    const settings = [
      `LD_PRELOAD=${library}`,
      `FAKETIME_TIMESTAMP_FILE=${clockFile(folder, name)}`,
      // A wall clock jumps; the monotonic one, by which timers run, does not.
      'FAKETIME_DONT_FAKE_MONOTONIC=1',
      'FAKETIME_CACHE_DURATION=1',
    ];
    launch = ['env', ...settings, ...launch];
  }
  const onHost = (WORKER_IDS as readonly string[]).includes(name);
  return network !== null && onHost ? network.on(name, launch) : launch;
}
