import { describe, expect, it } from 'vitest';

import { RendezvousStore, StaleEpochError } from './rendezvous.js';

const ref = (epoch: number, world = 2) => ({ jobId: 'job', epoch, world });

describe('RendezvousStore', () => {
  it('answers all blobs in rank order once the last rank has come', async () => {
    const store = new RendezvousStore();
    store.put(ref(1), 1, Buffer.from('b'));
    const gathered = store.gather(ref(1), 1000);
    store.put(ref(1), 0, Buffer.from('a'));
    expect((await gathered)?.map(String)).toEqual(['a', 'b']);
  });

  it('answers undefined when a rank does not come', async () => {
    const store = new RendezvousStore();
    store.put(ref(1), 0, Buffer.from('a'));
    expect(await store.gather(ref(1), 10)).toBeUndefined();
  });

  it('refuses a stale epoch, also one that was waiting', async () => {
    const store = new RendezvousStore();
    store.put(ref(1), 0, Buffer.from('a'));
    const waiting = store.gather(ref(1), 1000);
    store.put(ref(2), 0, Buffer.from('a'));
    await expect(waiting).rejects.toBeInstanceOf(StaleEpochError);
    expect(() => {
      store.put(ref(1), 0, Buffer.from('a'));
    }).toThrow(StaleEpochError);
  });

  it('refuses a rank outside the world and a second world size', () => {
    const store = new RendezvousStore();
    store.put(ref(1), 0, Buffer.from('a'));
    expect(() => {
      store.put(ref(1), 2, Buffer.from('c'));
    }).toThrow(RangeError);
    expect(() => {
      store.put(ref(1, 3), 0, Buffer.from('a'));
    }).toThrow(/world 3 came, 2/);
  });
});
