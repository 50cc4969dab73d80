/**
 * A real S3 server for tests (versitygw over a plain folder), and a TCP proxy that breaks connections on their way to it.
 * Where the program is missing, tests skip and say so.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const START_TIMEOUT_MS = 20_000;
const CREDENTIALS = { AWS_ACCESS_KEY_ID: 'collimate-test', AWS_SECRET_ACCESS_KEY: 'collimate-test-secret' };
export const BUCKET = 'collimate-test';

/** In the order of `deploy/lib/versitygw.sh`: COLLIMATE_VERSITYGW, the PATH, the project's cache. */
export function findS3Server(): string | null {
  const cache = fileURLToPath(new URL('../../.cache/bin/versitygw', import.meta.url));
  const onPath = (process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, 'versitygw'));
  for (const path of [process.env['COLLIMATE_VERSITYGW'] ?? '', ...onPath, cache]) {
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not there.
    }
  }
  return null;
}

export const S3_SERVER_REFUSAL =
  findS3Server() === null ? 'no versitygw; "deploy/bootstrap --with-test-tools" gets it' : null;

export class S3TestServer {
  #child: ChildProcess | null = null;

  private constructor(
    readonly root: string,
    readonly port: number,
    readonly host: string,
  ) {}

  /** Serves the folder `root`. This process and its children get the credentials by their environment. */
  static async start(root: string, { host = '127.0.0.1' } = {}): Promise<S3TestServer> {
    await mkdir(join(root, 'data', BUCKET), { recursive: true });
    await mkdir(join(root, 'metadata'), { recursive: true });
    Object.assign(process.env, CREDENTIALS);
    const server = new S3TestServer(root, await freePort(host), host);
    await server.up();
    return server;
  }

  /** A store address. */
  address(prefix: string, { bucket = BUCKET, port = this.port } = {}): string {
    const endpoint = `http://${this.host}:${String(port)}`;
    return `s3://${bucket}/${prefix}?endpoint=${endpoint}&region=us-east-1`;
  }

  /** Where the server keeps the bytes of a key. */
  pathOf(key: string): string {
    return join(this.root, 'data', BUCKET, key);
  }

  async up(): Promise<void> {
    const args = ['--quiet', '--port', `${this.host}:${String(this.port)}`];
    // Metadata in a folder of its own: not every file system has extended attributes.
    args.push('posix', '--sidecar', join(this.root, 'metadata'), join(this.root, 'data'));
    const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY } = CREDENTIALS;
    const env = { ...process.env, ROOT_ACCESS_KEY: AWS_ACCESS_KEY_ID, ROOT_SECRET_KEY: AWS_SECRET_ACCESS_KEY };
    const child = spawn(findS3Server() ?? 'versitygw', args, { stdio: 'ignore', env });
    this.#child = child;
    const deadline = Date.now() + START_TIMEOUT_MS;
    while (!(await answers(this.host, this.port))) {
      if (child.exitCode !== null) throw new Error(`the S3 server ended with ${String(child.exitCode)} at its start`);
      if (Date.now() > deadline) throw new Error(`no S3 server after ${String(START_TIMEOUT_MS)} ms`);
      await sleep(20);
    }
  }

  async down(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  }
}

interface ProxyRule {
  direction: 'up' | 'down';
  action: 'cut' | 'garble';
  afterBytes: number;
  /** Connections that it still applies to. */
  times: number;
}

/** Passes bytes on, and breaks connections or changes a byte after so many bytes of one direction. */
export class FaultyProxy {
  /** Connections that have been cut or garbled. */
  faults = 0;
  /** Bytes of all connections, by direction. */
  readonly bytes = { up: 0, down: 0 };
  #rule: ProxyRule | null = null;
  readonly #sockets = new Set<Socket>();

  private constructor(
    readonly server: Server,
    readonly target: number,
  ) {}

  static async start(target: number): Promise<FaultyProxy> {
    const server = createServer();
    const proxy = new FaultyProxy(server, target);
    server.on('connection', (socket) => {
      proxy.#serve(socket);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  /** Applies to the next connections over which so many bytes go in the direction. */
  rule(rule: ProxyRule): void {
    this.#rule = { ...rule };
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }

  #serve(client: Socket): void {
    const server = connect(this.target, '127.0.0.1');
    const passed = { up: 0, down: 0 };
    const both = [client, server];
    const end = (): void => {
      for (const socket of both) socket.destroy();
    };
    const pass = (direction: 'up' | 'down', from: Socket, to: Socket): void => {
      from.on('data', (chunk) => {
        passed[direction] += chunk.length;
        this.bytes[direction] += chunk.length;
        const rule = this.#rule;
        if (rule?.direction === direction && rule.times > 0 && passed[direction] > rule.afterBytes) {
          rule.times -= 1;
          this.faults += 1;
          if (rule.action === 'cut') {
            end();
            return;
          }
          const last = chunk.length - 1;
          chunk[last] = (chunk[last] ?? 0) ^ 1;
        }
        if (!to.write(chunk)) {
          from.pause();
          to.once('drain', () => from.resume());
        }
      });
    };
    for (const socket of both) {
      this.#sockets.add(socket);
      socket.on('error', end);
      socket.on('close', () => {
        this.#sockets.delete(socket);
        end();
      });
    }
    pass('up', client, server);
    pass('down', server, client);
  }
}

async function answers(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, host);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => {
      resolve(false);
    });
  });
}

async function freePort(host: string): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
