/**
 * Machines in miniature: one network namespace per host, each with an address of its own, joined to one bridge by a cable
 * that can be cut, slowed or made to lose frames.
 *
 * 1. Needs root, `ip`, /dev/net/tun and a Python 3; `networkMissing` says what of these is not there.
 * 2. The kernel's own `tc netem` is often absent from small kernels, so a program forwards the frames: see `links.py`, also
 *    for what it does not model.
 * 3. The test itself stands at the bridge, with the address `gateway`. `close` removes everything.
 */
import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

import { projectRoot } from '../../orchestrator/build-info.js';

const execute = promisify(execFile);
const COMMAND_TIMEOUT_MS = 20_000;
const READY_TIMEOUT_MS = 20_000;

export interface CableShape {
  /** One way; a frame between two hosts crosses two cables. */
  delayMs: number;
  /** Probability that a frame is lost. */
  loss: number;
  seed: number;
}

/** Why there can be no such network here; null when there can. */
export function networkMissing(): string | null {
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  if (!existsSync('/dev/net/tun')) return 'there is no /dev/net/tun';
  const probe = `collimate-probe-${String(process.pid)}`;
  try {
    execFileSync('python3', ['-c', 'import fcntl, heapq, select'], { stdio: 'pipe', timeout: COMMAND_TIMEOUT_MS });
    execFileSync('ip', ['netns', 'add', probe], { stdio: 'pipe', timeout: COMMAND_TIMEOUT_MS });
    execFileSync('ip', ['netns', 'del', probe], { stdio: 'pipe', timeout: COMMAND_TIMEOUT_MS });
    return null;
  } catch (error) {
    return `network namespaces cannot be made: ${(error as Error).message.trim().split('\n').at(-1) ?? ''}`;
  }
}

export class Network {
  readonly #hosts: readonly string[];
  readonly #name: string;
  readonly #subnet: string;
  #forwarder: ChildProcess | null = null;

  private constructor(hosts: readonly string[]) {
    this.#hosts = hosts;
    // Interface names have at most 15 characters.
    this.#name = `cm${process.pid.toString(36)}${(counter += 1).toString(36)}`;
    this.#subnet = freeSubnet();
  }

  static async create(hosts: readonly string[]): Promise<Network> {
    const network = new Network(hosts);
    try {
      await network.#build();
      return network;
    } catch (error) {
      await network.close();
      throw error;
    }
  }

  get gateway(): string {
    return `${this.#subnet}.1`;
  }

  address(host: string): string {
    return `${this.#subnet}.${String(this.#index(host) + 2)}`;
  }

  /** The command as it runs on the host. */
  on(host: string, command: string[]): string[] {
    return ['ip', 'netns', 'exec', this.#namespace(this.#index(host)), ...command];
  }

  shape(host: string, { delayMs, loss, seed }: CableShape): void {
    const change = { cable: this.#index(host), delay_ms: delayMs, loss, seed };
    this.#forwarder?.stdin?.write(`${JSON.stringify(change)}\n`);
  }

  /** Pulls the host's cable out of the bridge, or puts it back. */
  async setLink(host: string, state: 'up' | 'down'): Promise<void> {
    await ip('link', 'set', this.#bridgeEnd(this.#index(host)), state);
  }

  /** Lets every frame from one host to the other vanish, and nothing else; both ends go on as if it were on its way. */
  async setPath(from: string, to: string, state: 'whole' | 'broken'): Promise<void> {
    const source = this.#index(from);
    const neighbour = ['neigh', state === 'broken' ? 'replace' : 'del', this.address(to)];
    const nowhere = state === 'broken' ? ['lladdr', '02:00:00:00:00:01', 'nud', 'permanent'] : [];
    await ip('-n', this.#namespace(source), ...neighbour, ...nowhere, 'dev', this.#hostEnd(source));
  }

  /** Whatever was made is removed, and only that. Processes on the hosts must have ended. */
  async close(): Promise<void> {
    const forwarder = this.#forwarder;
    if (forwarder !== null && forwarder.exitCode === null) {
      const exited = new Promise((resolve) => forwarder.once('exit', resolve));
      forwarder.kill('SIGKILL');
      await exited;
    }
    for (const index of this.#hosts.keys()) await ip('netns', 'del', this.#namespace(index)).catch(() => undefined);
    await ip('link', 'del', this.#name).catch(() => undefined);
  }

  async #build(): Promise<void> {
    const ends = this.#hosts.flatMap((_, index) => [this.#bridgeEnd(index), this.#hostEnd(index)]);
    const script = join(projectRoot(), 'test', 'support', 'links.py');
    const forwarder = spawn('python3', [script, ...ends], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#forwarder = forwarder;
    // A cable that is shaped after the forwarder's end is no reason to end the test with an unhandled error.
    forwarder.stdin.on('error', () => undefined);
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error('links.py: expected "ready", it said nothing')),
        READY_TIMEOUT_MS,
      );
      createInterface({ input: forwarder.stdout }).once('line', () => {
        clearTimeout(timer);
        resolve();
      });
      forwarder.once('exit', (code) => reject(new Error(`links.py: expected to run, ended with code ${String(code)}`)));
    });
    await ip('link', 'add', this.#name, 'type', 'bridge');
    await ip('addr', 'add', `${this.gateway}/24`, 'dev', this.#name);
    await ip('link', 'set', this.#name, 'up');
    for (const [index, host] of this.#hosts.entries()) {
      const namespace = this.#namespace(index);
      await ip('netns', 'add', namespace);
      await ip('link', 'set', this.#hostEnd(index), 'netns', namespace);
      await ip('link', 'set', this.#bridgeEnd(index), 'master', this.#name);
      await ip('link', 'set', this.#bridgeEnd(index), 'up');
      await ip('-n', namespace, 'addr', 'add', `${this.address(host)}/24`, 'dev', this.#hostEnd(index));
      await ip('-n', namespace, 'link', 'set', this.#hostEnd(index), 'up');
      await ip('-n', namespace, 'link', 'set', 'lo', 'up');
    }
  }

  #index(host: string): number {
    const index = this.#hosts.indexOf(host);
    if (index < 0) throw new Error(`expected one of the hosts ${this.#hosts.join(', ')}, got ${host}`);
    return index;
  }

  #namespace(index: number): string {
    return `${this.#name}-${String(index)}`;
  }

  #bridgeEnd(index: number): string {
    return `${this.#name}b${String(index)}`;
  }

  #hostEnd(index: number): string {
    return `${this.#name}h${String(index)}`;
  }
}

let counter = 0;

/** A /24 that no interface of this machine has an address in. */
function freeSubnet(): string {
  const used = execFileSync('ip', ['-4', 'addr'], { encoding: 'utf8', timeout: COMMAND_TIMEOUT_MS });
  for (let third = process.pid % 250; ; third = (third + 1) % 250) {
    const subnet = `10.213.${String(third)}`;
    if (!used.includes(`${subnet}.`)) return subnet;
  }
}

async function ip(...args: string[]): Promise<void> {
  await execute('ip', args, { timeout: COMMAND_TIMEOUT_MS });
}
