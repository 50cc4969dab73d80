import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { status, type Server } from '@grpc/grpc-js';
import { afterEach, describe, expect, it, vi } from 'vitest';

import type { HealthResponse } from '../../proto/generated/collimate/v1/HealthResponse.js';
import { bindServer, loadService, makeClient, makeServer, MESSAGE_BYTES_MAX, RpcError, unary } from './channel.js';

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
  vi.unstubAllEnvs();
});

const Rendezvous = loadService('RendezvousService');
const Worker = loadService('WorkerService');
type Callback<T> = (error: { code: status; details: string } | null, response?: T) => void;

async function serve(address = '127.0.0.1:0', hang = false): Promise<{ server: Server; port: number }> {
  const server = makeServer();
  closers.push(() => server.forceShutdown());
  server.addService(Worker.service, {
    Health: (_call: unknown, callback: Callback<HealthResponse>) => {
      if (!hang) callback(null, { workerId: 'w-1', epoch: 3 });
    },
    Release: (_call: unknown, callback: Callback<object>) => {
      callback({ code: status.FAILED_PRECONDITION, details: 'stale epoch 2' });
    },
  });
  server.addService(Rendezvous.service, {
    Gather: (_call: unknown, callback: Callback<object>) =>
      callback(null, { blobs: [Buffer.alloc(MESSAGE_BYTES_MAX + 1)] }),
    Put: (_call: unknown, callback: Callback<object>) => callback(null, {}),
  });
  return { server, port: await bindServer(server, address) };
}

function workerAt(port: number, host = '127.0.0.1') {
  const client = makeClient(Worker, `${host}:${String(port)}`);
  closers.push(() => client.close());
  return client;
}

describe('calls', () => {
  it('carry requests and answers, with defaults filled in', async () => {
    const { port } = await serve();
    const answer = await unary(workerAt(port), 'health', {}, { deadlineMs: 2000 });
    expect(answer).toEqual({ workerId: 'w-1', numericsClass: '', jobId: '', epoch: 3 });
  });

  it('reject with status, method and address', async () => {
    const { port } = await serve();
    const call = unary(workerAt(port), 'release', { job: { jobId: 'j', epoch: 2 } }, { deadlineMs: 2000 });
    await expect(call).rejects.toMatchObject({ code: status.FAILED_PRECONDITION, details: 'stale epoch 2' });
    await expect(call).rejects.toThrow(
      new RegExp(`^release at (dns:)?127\\.0\\.0\\.1:${String(port)}: FAILED_PRECONDITION: stale epoch 2$`),
    );
    await expect(call).rejects.toBeInstanceOf(RpcError);
  });

  it('end at their deadline when the server never answers', async () => {
    const { port } = await serve('127.0.0.1:0', true);
    const startedMs = performance.now();
    const call = unary(workerAt(port), 'health', {}, { deadlineMs: 150 });
    await expect(call).rejects.toMatchObject({ code: status.DEADLINE_EXCEEDED });
    expect(performance.now() - startedMs).toBeLessThan(1500);
  });

  it('can be cancelled, also before they begin', async () => {
    const { port } = await serve('127.0.0.1:0', true);
    const abort = new AbortController();
    const options = { deadlineMs: 5000, signal: abort.signal };
    const call = unary(workerAt(port), 'health', {}, options);
    setTimeout(() => abort.abort(), 50);
    await expect(call).rejects.toMatchObject({ code: status.CANCELLED });
    await expect(unary(workerAt(port), 'health', {}, options)).rejects.toMatchObject({ code: status.CANCELLED });
  });

  it('refuse messages above 4 MiB in both directions', async () => {
    const { port } = await serve();
    const client = makeClient(Rendezvous, `127.0.0.1:${String(port)}`);
    closers.push(() => client.close());
    const blob = Buffer.alloc(MESSAGE_BYTES_MAX + 1);
    for (const call of [
      unary(client, 'put', { blob }, { deadlineMs: 5000 }),
      unary(client, 'gather', { world: 1 }, { deadlineMs: 5000 }),
    ]) {
      await expect(call).rejects.toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    }
  });

  it('see a peer that is there but silent within the keepalive time', async () => {
    const { port } = await serve('127.0.0.1:0', true);
    // A relay that stops forwarding, like a pulled cable: no reset, no end.
    let silent = false;
    const sockets: Socket[] = [];
    const relay = createServer((near) => {
      const far = new (near.constructor as typeof Socket)().connect(port, '127.0.0.1');
      sockets.push(near, far);
      near.on('data', (data) => !silent && far.write(data)).on('error', () => undefined);
      far.on('data', (data) => !silent && near.write(data)).on('error', () => undefined);
    });
    await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve));
    closers.push(() => {
      relay.close();
      for (const socket of sockets) socket.destroy();
    });
    const client = workerAt((relay.address() as { port: number }).port);
    const startedMs = performance.now();
    const call = unary(client, 'health', {}, { deadlineMs: 20_000 });
    setTimeout(() => (silent = true), 200);
    await expect(call).rejects.toMatchObject({ code: status.UNAVAILABLE });
    expect(performance.now() - startedMs).toBeLessThan(6000);
  }, 25_000);
});

describe('binding', () => {
  it('says when the port is in use or the address is not ours', async () => {
    const { port } = await serve();
    await expect(serve(`127.0.0.1:${String(port)}`)).rejects.toThrow(
      `gRPC server: cannot listen on 127.0.0.1:${String(port)}: the port is in use; choose another port`,
    );
    await expect(serve('192.0.2.1:0')).rejects.toThrow(/gRPC server: cannot listen on 192\.0\.2\.1:0: .*EADDRNOTAVAIL/);
  });

  it('finds a restarted server again', async () => {
    const { server, port } = await serve();
    const client = workerAt(port);
    await unary(client, 'health', {}, { deadlineMs: 2000 });
    server.forceShutdown();
    await expect(unary(client, 'health', {}, { deadlineMs: 1000 })).rejects.toMatchObject({ code: status.UNAVAILABLE });
    await serve(`127.0.0.1:${String(port)}`);
    await expect
      .poll(
        () =>
          unary(client, 'health', {}, { deadlineMs: 500 }).then(
            () => true,
            () => false,
          ),
        { timeout: 5000 },
      )
      .toBe(true);
  });
});

const openssl = spawnSync('openssl', ['version']);
describe.skipIf(openssl.error !== undefined)(
  `TLS${openssl.error === undefined ? '' : ' (skipped: openssl is missing)'}`,
  () => {
    function certificates(): string {
      const folder = mkdtempSync(join(tmpdir(), 'collimate-tls-'));
      closers.push(() => rmSync(folder, { recursive: true }));
      const run = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'ignore' });
      const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
      run(
        'req',
        '-x509',
        ...key,
        '-keyout',
        'ca-key.pem',
        '-out',
        'ca.pem',
        '-days',
        '2',
        '-subj',
        '/CN=test authority',
      );
      run(
        'req',
        ...key,
        '-keyout',
        'key.pem',
        '-out',
        'request.pem',
        '-subj',
        '/CN=localhost',
        '-addext',
        'subjectAltName=DNS:localhost',
      );
      run(
        'x509',
        '-req',
        '-in',
        'request.pem',
        '-CA',
        'ca.pem',
        '-CAkey',
        'ca-key.pem',
        '-CAcreateserial',
        '-out',
        'cert.pem',
        '-days',
        '2',
        '-copy_extensions',
        'copy',
      );
      return folder;
    }
    const health = (port: number) => unary(workerAt(port, 'localhost'), 'health', {}, { deadlineMs: 3000 });

    it('works with both certificates, and refuses plaintext and other authorities', async () => {
      vi.stubEnv('COLLIMATE_TLS_DIR', certificates());
      const { port } = await serve('localhost:0');
      expect(await health(port)).toMatchObject({ workerId: 'w-1' });
      vi.stubEnv('COLLIMATE_TLS_DIR', certificates());
      await expect(health(port)).rejects.toMatchObject({ code: status.UNAVAILABLE });
      vi.stubEnv('COLLIMATE_TLS_DIR', '');
      await expect(health(port)).rejects.toMatchObject({ code: status.UNAVAILABLE });
    });

    it('names the file that is missing', () => {
      vi.stubEnv('COLLIMATE_TLS_DIR', '/nowhere');
      expect(() => workerAt(1)).toThrow(
        /COLLIMATE_TLS_DIR: expected ca\.pem, cert\.pem and key\.pem in \/nowhere; cannot read ca\.pem/,
      );
    });
  },
);
