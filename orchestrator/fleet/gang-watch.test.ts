import { EventEmitter } from 'node:events';

import { status, type ClientReadableStream } from '@grpc/grpc-js';
import { describe, expect, it, vi } from 'vitest';

import type { WatchJobResponse__Output } from '../../proto/generated/collimate/v1/WatchJobResponse.js';
import { GangWatch } from './gang-watch.js';

const fleet = { get: () => undefined, lastLog: (workerId: string) => [`last words of ${workerId}`] };

/** Two members whose streams the test drives, so that every interleaving can be played. */
function harness() {
  const streams: Record<string, EventEmitter[]> = { 'w-0': [], 'w-1': [] };
  const attachedAfter: Record<string, number[]> = { 'w-0': [], 'w-1': [] };
  let sequence = 0;
  const watch = new GangWatch({
    target: {
      jobId: 'job',
      epoch: 1,
      members: ['w-0', 'w-1'].map((workerId) => ({ workerId, address: 'x:1', warmStep: null })),
    },
    fleet,
    stallSeconds: 600,
    openStream: (member, afterSequence) => {
      const stream = Object.assign(new EventEmitter(), { cancel: () => undefined });
      streams[member.workerId]?.push(stream);
      attachedAfter[member.workerId]?.push(afterSequence);
      return stream as unknown as ClientReadableStream<WatchJobResponse__Output>;
    },
    onEvent: () => undefined,
  });
  const latest = (worker: string): EventEmitter | undefined => streams[worker]?.at(-1);
  return {
    watch,
    attachedAfter,
    send: (worker: string, event: object) => {
      sequence += 1;
      latest(worker)?.emit('data', { event: { jobId: 'job', epoch: 1, sequence, ...event } });
    },
    answer: (worker: string) => latest(worker)?.emit('metadata', {}),
    breakStream: (worker: string, code = status.UNAVAILABLE) =>
      latest(worker)?.emit('error', Object.assign(new Error('gone'), { code, details: 'gone' })),
    next: (afterStep = 0, untilFirstStep = false) =>
      watch.next({ afterStep, untilFirstStep }, new AbortController().signal),
  };
}

const parked = (reason: string, step = 3) => ({ parked: { reason: `PARK_REASON_${reason}`, step, message: reason } });
const peerLost = parked('PEER_LOST');

describe('GangWatch', () => {
  it('tells checkpoints beyond the step asked for, then the end', async () => {
    const { next, send } = harness();
    send('w-0', { step: { step: 7, stepsTotal: 20, metrics: {} } });
    send('w-0', { checkpoint: { step: 5 } });
    expect(await next(0)).toEqual({ type: 'checkpoint', step: 5, stepsTotal: 20 });
    const waiting = next(5);
    send('w-0', { finished: { resultJson: '{"key":"k"}' } });
    expect(await waiting).toEqual({ type: 'finished', step: 7, stepsTotal: 20, result: { key: 'k' } });
  });

  it('tells a stop with the checkpoint that was written there', async () => {
    const { next, send } = harness();
    send('w-0', { checkpoint: { step: 5, manifestDigest: 'five' } });
    send('w-0', { checkpoint: { step: 8, manifestDigest: 'eight' } });
    const stopped = next(8);
    send('w-1', { stopped: { step: 8 } });
    send('w-0', { stopped: { step: 8 } });
    expect(await stopped).toEqual({ type: 'stopped', step: 8, manifestDigest: 'eight' });
  });

  it('tells a stop without a checkpoint of that step as such', async () => {
    const { next, send } = harness();
    send('w-0', { checkpoint: { step: 5, manifestDigest: 'five' } });
    send('w-0', { stopped: { step: 8 } });
    expect(await next(5)).toEqual({ type: 'stopped', step: 8, manifestDigest: null });
  });

  it('names the worker that died, not the peer that noticed first', async () => {
    const { next, send, breakStream } = harness();
    send('w-0', peerLost);
    breakStream('w-1', status.NOT_FOUND);
    expect(await next()).toMatchObject({ type: 'failed', cause: 'worker_lost', workerId: 'w-1' });
  });

  it('tells peer_lost when no other cause shows', async () => {
    const { next, send } = harness();
    send('w-0', peerLost);
    expect(await next()).toMatchObject({ type: 'failed', cause: 'peer_lost', workerId: 'w-0' });
  });

  it('attaches again after the last sequence seen, and gives up after its tries', async () => {
    const { next, send, breakStream, attachedAfter } = harness();
    send('w-1', { step: { step: 1, stepsTotal: 2, metrics: {} } });
    const end = next();
    for (let tries = 0; tries <= 2; tries += 1) {
      breakStream('w-1');
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    expect(attachedAfter['w-1']).toEqual([0, 1, 1]);
    expect(await end).toMatchObject({ type: 'failed', cause: 'worker_lost', workerId: 'w-1' });
  });

  it('gives a failure the worker, its rank, its last log lines and the last progress', async () => {
    const { next, send, breakStream } = harness();
    send('w-0', { step: { step: 4, stepsTotal: 20, metrics: {} } });
    breakStream('w-1', status.NOT_FOUND);
    const event = await next();
    expect(event).toMatchObject({ cause: 'worker_lost', rank: 1, step: 4, log: ['last words of w-1'] });
    if (event.type !== 'failed') throw new Error('expected a failure');
    expect(event.detectedAt).toBeGreaterThanOrEqual(event.lastProgressAt ?? Infinity);
  });

  it('tells the first step once it is asked for, also when the job is over by then', async () => {
    const { next, send } = harness();
    send('w-0', { ready: { step: 6 } });
    send('w-0', { step: { step: 7, stepsTotal: 7, metrics: {} } });
    send('w-0', { finished: { resultJson: '{"key":"k"}' } });
    expect(await next(0, true)).toMatchObject({ type: 'first_step', step: 7 });
    expect(await next(0, false)).toMatchObject({ type: 'finished' });
  });

  it('is parked once all members are, and not while one still ends otherwise', async () => {
    const { next, send } = harness();
    send('w-0', parked('ASKED'));
    const end = next();
    send('w-1', parked('ASKED'));
    expect(await end).toEqual({ type: 'parked', step: 0 });

    const preempted = harness();
    preempted.send('w-0', parked('ASKED'));
    preempted.send('w-1', { failed: { cause: 'FAILURE_CAUSE_PREEMPTED', message: 'told to end', step: 9 } });
    expect(await preempted.next()).toMatchObject({ type: 'failed', cause: 'preempted', workerId: 'w-1', step: 9 });
  });

  it('does not end when a rank has done its last step: rank 0 has the result', async () => {
    const { next, send } = harness();
    send('w-1', parked('DONE'));
    const end = next();
    send('w-0', { finished: { resultJson: '{"key":"k"}' } });
    expect(await end).toMatchObject({ type: 'finished' });
  });

  it('lets a finish of rank 0 win over a rank that dies afterwards', async () => {
    const { next, send, breakStream } = harness();
    send('w-0', { finished: { resultJson: '{"key":"k"}' } });
    breakStream('w-1', status.NOT_FOUND);
    expect(await next()).toMatchObject({ type: 'finished' });
  });

  it('takes a worker for lost that accepts the stream and never answers', async () => {
    vi.useFakeTimers();
    try {
      const { next, attachedAfter, answer } = harness();
      answer('w-0');
      const end = next();
      await vi.advanceTimersByTimeAsync(10_000);
      expect(await end).toMatchObject({ type: 'failed', cause: 'worker_lost', workerId: 'w-1' });
      expect(attachedAfter).toEqual({ 'w-0': [0], 'w-1': [0, 0] });
    } finally {
      vi.useRealTimers();
    }
  });

  it('fails the attempt when a result is no JSON', async () => {
    const { next, send } = harness();
    send('w-0', { finished: { resultJson: 'nonsense' } });
    expect(await next()).toMatchObject({ type: 'failed', cause: 'internal', workerId: 'w-0' });
  });

  it('stops waiting when its signal aborts', async () => {
    const { watch } = harness();
    const abort = new AbortController();
    const waiting = watch.next({ afterStep: 0, untilFirstStep: false }, abort.signal);
    abort.abort(new Error('cancelled'));
    await expect(waiting).rejects.toThrow('cancelled');
  });
});
