import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, describe, expect, it, vi } from 'vitest';

import { createLogger } from './logger.js';

afterEach(() => {
  vi.unstubAllEnvs();
});

function lines(): { destination: { write(text: string): void }; read: () => Record<string, unknown>[] } {
  const written: string[] = [];
  return {
    destination: { write: (text) => written.push(text) },
    read: () => written.map((text) => JSON.parse(text) as Record<string, unknown>),
  };
}

describe('createLogger', () => {
  it('writes one JSON object a line with the bound fields', () => {
    const { destination, read } = lines();
    const log = createLogger({ component: 'worker', fields: { worker: 'w-1' }, destination });
    log.child({ run: 'r', stage: 'embed', epoch: 2 }).warn({ step: 7 }, 'slow\nstep');
    log.debug('not at this level');
    expect(read()).toEqual([
      expect.objectContaining({
        level: 'warn',
        component: 'worker',
        worker: 'w-1',
        run: 'r',
        stage: 'embed',
        epoch: 2,
        step: 7,
        message: 'slow\nstep',
        pid: process.pid,
      }),
    ]);
    expect(new Date(String(read()[0]?.['time'])).getTime()).toBeGreaterThan(Date.now() - 60_000);
  });

  it('keeps the message and stack of errors', () => {
    const { destination, read } = lines();
    createLogger({ component: 'cli', destination }).error(new Error('broken'));
    expect(read()[0]).toMatchObject({ message: 'broken', error: { type: 'Error', message: 'broken' } });
    expect((read()[0]?.['error'] as { stack: string }).stack).toContain('logger.test');
  });

  it('takes its level from the environment and refuses unknown ones', () => {
    vi.stubEnv('COLLIMATE_LOG_LEVEL', 'debug');
    const { destination, read } = lines();
    createLogger({ component: 'cli', destination }).debug('seen');
    expect(read()).toHaveLength(1);
    vi.stubEnv('COLLIMATE_LOG_LEVEL', 'loud');
    expect(() => createLogger({ component: 'cli' })).toThrow(
      /COLLIMATE_LOG_LEVEL: expected one of trace, .* got "loud"/,
    );
  });

  it('writes to a file in a folder that it makes', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'collimate-log-'));
    try {
      const file = join(folder, 'logs', 'worker.log');
      createLogger({ component: 'worker', file }).info('hello');
      expect(JSON.parse(await readFile(file, 'utf8'))).toMatchObject({ level: 'info', message: 'hello' });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
