/** What `doctor` says of a machine. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, expect, test, vi } from 'vitest';

import { deviceCheck, prometheusCheck, roomCheck, runningPrometheusCheck } from './machine-checks.js';

const folder = mkdtempSync(join(tmpdir(), 'collimate-checks-'));
afterAll(() => rmSync(folder, { recursive: true }));

function driver(script: string): string {
  const path = join(folder, 'nvidia-smi');
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  return path;
}

test('room is looked for where the home would be, and too little of it is missing', () => {
  expect(roomCheck(join(folder, 'not', 'there'), 1)).toMatchObject({
    state: 'ok',
    detail: expect.stringContaining(`free at ${folder}`) as string,
  });
  expect(roomCheck(folder, 2 ** 60)).toMatchObject({
    state: 'missing',
    detail: expect.stringContaining('collimate artifacts gc') as string,
  });
});

test('devices are those of the driver; none, or a driver that fails, is no error', () => {
  expect(deviceCheck(driver('echo "0, NVIDIA H100, 81559 MiB"; echo "1, NVIDIA H100, 81559 MiB"'))).toMatchObject({
    state: 'ok',
    detail: expect.stringContaining('cuda:0 NVIDIA H100 81559 MiB; cuda:1 NVIDIA H100') as string,
  });
  expect(deviceCheck(null)).toMatchObject({ state: 'absent', detail: 'none: workers compute on processors' });
  expect(deviceCheck(driver('exit 9'))).toMatchObject({
    state: 'absent',
    detail: expect.stringContaining('the driver does not answer') as string,
  });
});

test('a Prometheus is optional, and what to do says so', () => {
  vi.stubEnv('PATH', folder);
  vi.stubEnv('COLLIMATE_PROMETHEUS', '');
  expect(prometheusCheck()).toMatchObject({
    state: 'absent',
    detail: expect.stringContaining('apt-get install prometheus') as string,
  });
  vi.unstubAllEnvs();
});

test('a running Prometheus is ready, not ready yet, or away', async () => {
  let status = 200;
  const server = createServer((_request, response) => response.writeHead(status).end());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const check = () => runningPrometheusCheck(`127.0.0.1:${port}`);
  expect(await check()).toMatchObject({ state: 'ok' });
  status = 503;
  expect(await check()).toMatchObject({ state: 'missing', detail: expect.stringContaining('answers 503') as string });
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  expect(await check()).toMatchObject({
    state: 'missing',
    detail: expect.stringContaining('nothing answers') as string,
  });
});
