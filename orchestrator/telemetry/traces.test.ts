/** Spans as a collector receives them, and collectors that are not there. */
import { createServer } from 'node:net';

import { afterEach, describe, expect, it } from 'vitest';

import { OtlpReceiver } from '../../test/support/otlp-receiver.js';
import { createTraces, spanIdOf, spanNames, type ToldSpan, traceIdOf } from './traces.js';

const ME = { component: 'test', version: '1.2.3', instance: 'w-0' };
const span = (change: Partial<ToldSpan> = {}): ToldSpan => ({
  ...{ runId: 'r', name: spanNames.run(), parent: null, title: 'run r', startMs: 1_000, endMs: 3_500 },
  ...change,
});

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

describe('traces', () => {
  it('arrive with ids that follow from names, whoever tells them and however often', async () => {
    const receiver = await OtlpReceiver.start();
    closers.push(() => receiver.close());
    for (const instance of ['one', 'two']) {
      const traces = createTraces({ ...ME, instance }, { OTEL_EXPORTER_OTLP_ENDPOINT: `${receiver.endpoint}/` });
      expect(traces.enabled).toBe(true);
      traces.tell(span());
      traces.tell(
        span({ name: spanNames.stage('embed'), parent: spanNames.run(), title: 'embed', failure: 'no luck' }),
      );
      traces.tell(span({ name: null, parent: spanNames.stage('embed'), title: 'a call', kind: 'client' }));
      await traces.close();
    }
    expect(receiver.spans).toHaveLength(6);
    expect(new Set(receiver.spans.map(({ traceId }) => traceId))).toEqual(new Set([traceIdOf('r')]));
    const [run, stage, call, runAgain, stageAgain, callAgain] = receiver.spans;
    expect(run).toMatchObject({ parentSpanId: null, name: 'run r', startMs: 1_000, endMs: 3_500, failed: false });
    expect(run?.attributes).toMatchObject({
      ...{ 'service.name': 'collimate-test', 'service.version': '1.2.3', 'process.pid': process.pid },
      'collimate.run': 'r',
    });
    expect(stage).toMatchObject({ spanId: spanIdOf('r', 'stage embed'), parentSpanId: run?.spanId, failed: true });
    expect(call?.parentSpanId).toBe(stage?.spanId);
    expect([runAgain?.spanId, stageAgain?.spanId]).toEqual([run?.spanId, stage?.spanId]);
    expect(callAgain?.spanId).not.toBe(call?.spanId);
  });

  it('are off where no collector is named', async () => {
    for (const env of [{}, { OTEL_EXPORTER_OTLP_ENDPOINT: '' }]) {
      const traces = createTraces(ME, env);
      expect(traces.enabled).toBe(false);
      traces.tell(span());
      await traces.close();
    }
  });

  it('cost nobody any time when the collector is away, or takes a call and never answers', async () => {
    const mute = createServer(() => undefined);
    await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve));
    closers.push(() => mute.close());
    const { port } = mute.address() as { port: number };
    for (const endpoint of ['http://127.0.0.1:1/v1/traces', `http://127.0.0.1:${port}/v1/traces`]) {
      const traces = createTraces(ME, { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: endpoint });
      const startedMs = performance.now();
      for (let i = 0; i < 10_000; i += 1) traces.tell(span({ name: null }));
      expect(performance.now() - startedMs).toBeLessThan(2_000);
      await traces.close();
      expect(performance.now() - startedMs).toBeLessThan(15_000);
    }
  }, 40_000);
});
