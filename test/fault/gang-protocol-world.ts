/**
 * A fleet and its jobs as one object that makes one move at a time: the real `Lease`, `RendezvousStore` and `FleetRegistry`, and a
 * model of the calls between them. `gang-protocol.model.test.ts` says what is modelled and names the invariants A to D that
 * `broken` collects the violations of.
 */
import { DOMAIN_NUMERICS_CLASS } from '../../workflows/contract.js';
import { FleetRegistry, type FleetMember } from '../../orchestrator/fleet/registry.js';
import { RendezvousStore, StaleEpochError } from '../../orchestrator/fleet/rendezvous.js';
import { Lease, same, type AttemptRef } from '../../native/worker/lease.js';
import type { Budget, LateCall, ModelJob, ModelWorker, Run } from './gang-protocol-state.js';

const WORLD = 2;
const TTL_MS = 1_000;
const REQUIREMENTS = { numericsClass: DOMAIN_NUMERICS_CLASS, engineRevision: 'r' };

export class World {
  readonly fleet = new FleetRegistry();
  readonly rendezvous = new RendezvousStore();
  readonly workers = new Map<string, ModelWorker>();
  readonly jobs: ModelJob[];
  readonly late: LateCall[] = [];
  /** By job, the generation that the rendezvous has and its ranks: what invariants B and C are held against. */
  readonly put = new Map<string, { epoch: number; ranks: Set<number> }>();
  readonly broken: string[] = [];
  readonly #budget: Omit<Budget, 'workers' | 'jobs'>;

  constructor(budget: Budget) {
    const { crashes, freezes, lapses } = budget;
    this.#budget = { crashes, freezes, lapses };
    for (const id of budget.workers) this.workers.set(id, this.#freshWorker(id, 0));
    this.jobs = budget.jobs.map((id) => ({
      id,
      epoch: 1,
      phase: 'acquire',
      members: [],
      count: 0,
      failed: false,
      committed: false,
    }));
  }

  /** Every move that is possible now. */
  moves(): string[] {
    const moves: string[] = [];
    for (const job of this.jobs) {
      if (
        job.phase === 'acquire' &&
        (job.members.length > 0 || job.committed || this.#candidates(job).length === WORLD)
      ) {
        moves.push(`acquire ${job.id}`);
      } else if (job.phase === 'start' || job.phase === 'release') {
        moves.push(`${job.phase} ${job.id}`);
      } else if (job.phase === 'await' && (job.committed || this.#hasLostMember(job))) {
        moves.push(`notice ${job.id}`);
      }
    }
    for (const [id, worker] of this.workers) {
      const { run, state } = worker;
      if (state === 'up') {
        if (run?.state === 'started') moves.push(`put ${id}`);
        if (run?.state === 'put' && this.#canGather(run)) moves.push(`gather ${id}`);
        if (run !== null && run.state !== 'started' && this.#isAlone(run)) moves.push(`give-up ${id}`);
        if (run?.state === 'computing' && run.rank === 0 && this.#isComplete(run)) moves.push(`commit ${id}`);
        if (this.#budget.crashes > 0) moves.push(`crash ${id}`);
        if (this.#budget.freezes > 0) moves.push(`freeze ${id}`);
        const held = worker.lease.holder;
        if (held !== null && run === null && (this.#budget.lapses > 0 || !this.#isWanted(id, held)))
          moves.push(`lapse ${id}`);
      } else {
        moves.push(`${state === 'down' ? 'restart' : 'thaw'} ${id}`);
      }
    }
    this.late.forEach(({ to }, index) => {
      if (this.workers.get(to)?.state === 'up') moves.push(`late ${String(index)}`);
    });
    return moves;
  }

  async apply(move: string): Promise<void> {
    const [verb = '', subject = ''] = move.split(' ');
    const job = this.jobs.find(({ id }) => id === subject);
    if (job !== undefined) this.#jobMove(verb, job);
    else if (verb === 'late') this.#deliverLate(Number(subject));
    else await this.#workerMove(verb, subject);
    this.#check();
  }

  get isGoodEnd(): boolean {
    const free = [...this.workers.values()].every(
      ({ state, lease, run }) => state === 'up' && lease.holder === null && run === null,
    );
    return free && this.jobs.every(({ phase }) => phase === 'done') && this.late.length === 0;
  }

  /** Everything that the future depends on. */
  key(): string {
    const workers = [...this.workers].map(([id, { state, lease, run, member, incarnation }]) => [
      [id, state, lease.holder, run, member?.lease ?? null, incarnation],
      this.jobs.map(({ id: jobId }) => lease.staleness({ jobId, epoch: 0 })),
    ]);
    const put = [...this.put].map(([id, { epoch, ranks }]) => [id, epoch, [...ranks].sort()]).sort();
    return JSON.stringify([workers, this.jobs, this.late, put, this.#budget]);
  }

  #jobMove(verb: string, job: ModelJob): void {
    if (verb === 'acquire') this.#acquire(job);
    else if (verb === 'start') this.#start(job);
    else if (verb === 'release') this.#release(job);
    else this.#toRelease(job, { failed: !job.committed, count: job.members.length });
  }

  /** Chooses free workers in id order, then reserves one more of them; all are given back on the first refusal. */
  #acquire(job: ModelJob): void {
    if (job.committed) {
      this.#toRelease(job, { failed: false, count: job.count });
      return;
    }
    if (job.members.length === 0) {
      job.members = this.#candidates(job);
      job.count = 0;
    }
    const id = job.members[job.count] ?? '';
    const answer = this.#call({ to: id, call: 'reserve', jobId: job.id, epoch: job.epoch, rank: job.count });
    if (answer === 'granted') {
      job.count += 1;
      const { member } = this.#worker(id);
      if (member !== null) this.fleet.setLease(member, { jobId: job.id, epoch: job.epoch });
      if (job.count === WORLD) Object.assign(job, { phase: 'start', count: 0 });
    } else {
      // As in the activity: a worker that did not answer may yet have heard, and is told to let go as well.
      this.#toRelease(job, { failed: answer === 'stale', count: answer === 'timeout' ? job.count + 1 : job.count });
    }
  }

  #start(job: ModelJob): void {
    const to = job.members[job.count] ?? '';
    const answer = this.#call({ to, call: 'start', jobId: job.id, epoch: job.epoch, rank: job.count });
    job.count += 1;
    if (answer !== 'granted') this.#toRelease(job, { failed: true, count: WORLD });
    else if (job.count === WORLD) job.phase = 'await';
  }

  #release(job: ModelJob): void {
    if (job.count > 0) {
      job.count -= 1;
      const id = job.members[job.count] ?? '';
      this.#call({ to: id, call: 'release', jobId: job.id, epoch: job.epoch, rank: 0 });
      const { member } = this.#worker(id);
      if (member !== null && member.lease !== null && same(member.lease, { jobId: job.id, epoch: job.epoch })) {
        this.fleet.setLease(member, null);
      }
      return;
    }
    job.members = [];
    if (job.committed) job.phase = 'done';
    else {
      job.phase = 'acquire';
      if (job.failed) job.epoch += 1;
    }
    job.failed = false;
  }

  #toRelease(job: ModelJob, { failed, count }: { failed: boolean; count: number }): void {
    Object.assign(job, { phase: 'release', failed, count });
  }

  /** A call to a frozen worker times out and is delivered once it runs again; one to a dead worker is lost. */
  #call(call: Omit<LateCall, 'incarnation'>): 'granted' | 'busy' | 'stale' | 'timeout' | 'lost' {
    const { state, incarnation } = this.#worker(call.to);
    if (state === 'down') return 'lost';
    if (state === 'frozen') {
      this.late.push({ ...call, incarnation });
      // Its stream has ended by keepalive too: it is no candidate until it joins again.
      this.#leave(this.#worker(call.to));
      return 'timeout';
    }
    return this.#receive(call);
  }

  #receive({ to, call, jobId, epoch, rank }: Omit<LateCall, 'incarnation'>): 'granted' | 'busy' | 'stale' {
    const worker = this.#worker(to);
    const attempt = { jobId, epoch };
    const { lease } = worker;
    try {
      if (call === 'release') {
        this.#letGo(worker, attempt);
        return 'granted';
      }
      if (call === 'start') {
        if (lease.staleness(attempt) !== null || !lease.start(attempt)) return 'stale';
        worker.run = { ...attempt, rank, state: 'started' };
        return 'granted';
      }
      let outcome = lease.reserve(attempt, TTL_MS);
      if (outcome.type === 'superseded') {
        this.#letGo(worker, outcome.holder);
        outcome = lease.reserve(attempt, TTL_MS);
      }
      return outcome.type === 'superseded' ? 'busy' : outcome.type;
    } finally {
      this.#beat(worker);
    }
  }

  #letGo(worker: ModelWorker, attempt: AttemptRef): void {
    if (worker.run !== null && same(worker.run, attempt)) worker.run = null;
    worker.lease.release(attempt);
  }

  #deliverLate(index: number): void {
    const [call] = this.late.splice(index, 1);
    if (call !== undefined) this.#receive(call);
  }

  async #workerMove(verb: string, id: string): Promise<void> {
    const worker = this.#worker(id);
    const { run } = worker;
    if (verb === 'crash') {
      this.#budget.crashes -= 1;
      Object.assign(worker, { state: 'down', run: null });
      this.#leave(worker);
      // What was on its way to this incarnation is lost with it.
      for (let at = this.late.length - 1; at >= 0; at -= 1) if (this.late[at]?.to === id) this.late.splice(at, 1);
    } else if (verb === 'restart') {
      this.workers.set(id, this.#freshWorker(id, worker.incarnation + 1));
    } else if (verb === 'freeze') {
      this.#budget.freezes -= 1;
      worker.state = 'frozen';
    } else if (verb === 'thaw') {
      worker.state = 'up';
      worker.member ??= this.#joined(id, worker.incarnation);
      this.#beat(worker);
    } else if (verb === 'lapse') {
      if (worker.lease.holder !== null && this.#isWanted(id, worker.lease.holder)) this.#budget.lapses -= 1;
      worker.nowMs += TTL_MS;
      this.#beat(worker);
    } else if (run !== null) {
      await this.#runMove(verb, worker, run);
    }
  }

  async #runMove(verb: string, worker: ModelWorker, run: Run): Promise<void> {
    const end = (): void => {
      this.#letGo(worker, run);
      this.#beat(worker);
    };
    const generation = { jobId: run.jobId, epoch: run.epoch, world: WORLD };
    try {
      if (verb === 'put') {
        this.rendezvous.put(generation, run.rank, Buffer.from(String(run.rank)));
        run.state = 'put';
        const known = this.put.get(run.jobId);
        if (known !== undefined && known.epoch > run.epoch) this.broken.push('B: a rank put after a newer epoch had');
        const ranks = known?.epoch === run.epoch ? known.ranks : new Set<number>();
        this.put.set(run.jobId, { epoch: run.epoch, ranks: ranks.add(run.rank) });
      } else if (verb === 'gather') {
        const blobs = await this.rendezvous.gather(generation, 0);
        const known = this.put.get(run.jobId);
        if (known?.epoch !== run.epoch)
          this.broken.push(`B: epoch ${String(run.epoch)} joined after a newer one had put`);
        if (blobs?.length !== WORLD || known?.ranks.size !== WORLD) this.broken.push('C: a rank joined a partial gang');
        run.state = 'computing';
      } else if (verb === 'commit') {
        const job = this.jobs.find(({ id }) => id === run.jobId);
        if (job !== undefined) job.committed = true;
        for (const other of this.workers.values()) {
          if (other.run === null || !same(other.run, run)) continue;
          this.#letGo(other, run);
          this.#beat(other);
        }
      } else {
        end();
      }
    } catch (error) {
      if (!(error instanceof StaleEpochError)) throw error;
      end();
    }
  }

  #check(): void {
    for (const { id } of this.jobs) {
      const epochs = new Set<number>();
      for (const { run, state } of this.workers.values()) {
        if (state === 'up' && run?.jobId === id && run.state === 'computing' && this.#isComplete(run))
          epochs.add(run.epoch);
      }
      if (epochs.size > 1) this.broken.push(`A: epochs ${[...epochs].join(' and ')} of ${id} compute at once`);
    }
    for (const [id, { run, lease }] of this.workers) {
      if (run !== null && (lease.holder === null || !same(lease.holder, run))) {
        this.broken.push(`D: ${id} runs ${run.jobId}#${String(run.epoch)} without its lease`);
      }
    }
  }

  #candidates({ id }: ModelJob): string[] {
    return this.fleet
      .compatible(REQUIREMENTS)
      .filter(({ lease }) => lease === null || lease.jobId === id)
      .map(({ workerId }) => workerId)
      .slice(0, WORLD);
  }

  #hasLostMember({ id, epoch, members }: ModelJob): boolean {
    return members.some((member) => {
      const { state, run } = this.#worker(member);
      return state !== 'up' || run === null || !same(run, { jobId: id, epoch });
    });
  }

  /** Mirrors what the rendezvous will answer, so that no move has to wait. */
  #canGather({ jobId, epoch }: Run): boolean {
    const known = this.put.get(jobId);
    return known !== undefined && (known.epoch > epoch || known.ranks.size === WORLD);
  }

  #ranksUp(run: Run): Run[] {
    return [...this.workers.values()].flatMap(({ state, run: other }) =>
      state === 'up' && other !== null && same(other, run) ? [other] : [],
    );
  }

  #isComplete(run: Run): boolean {
    return this.#ranksUp(run).filter(({ state }) => state === 'computing').length === WORLD;
  }

  /** A closed socket, or a rendezvous whose deadline has passed; not while the other rank may still be started. */
  #isAlone(run: Run): boolean {
    const job = this.jobs.find(({ id }) => id === run.jobId);
    const maySoonStart = job?.epoch === run.epoch && job.phase === 'start';
    return !maySoonStart && this.#ranksUp(run).length < WORLD;
  }

  /** Whether a job still means to start, or has just started, something under the lease. */
  #isWanted(id: string, { jobId, epoch }: AttemptRef): boolean {
    const job = this.jobs.find((candidate) => candidate.id === jobId);
    return job !== undefined && job.epoch === epoch && job.phase !== 'done' && job.members.includes(id);
  }

  #beat({ member, lease }: ModelWorker): void {
    if (member !== null)
      this.fleet.beat(member, { lease: lease.holder, progress: null, draining: false, cordoned: false });
  }

  #leave(worker: ModelWorker): void {
    if (worker.member !== null) this.fleet.leave(worker.member);
    worker.member = null;
  }

  #worker(id: string): ModelWorker {
    const worker = this.workers.get(id);
    if (worker === undefined) throw new Error(`expected one of ${[...this.workers.keys()].join(', ')}, got ${id}`);
    return worker;
  }

  #joined(id: string, incarnation: number): FleetMember {
    return this.fleet.join({ workerId: id, address: id, metricsAddress: '', pid: incarnation, ...REQUIREMENTS });
  }

  #freshWorker(id: string, incarnation: number): ModelWorker {
    const member = this.fleet.join({
      workerId: id,
      address: id,
      metricsAddress: '',
      pid: incarnation,
      ...REQUIREMENTS,
    });
    const worker: ModelWorker = {
      incarnation,
      state: 'up',
      nowMs: 0,
      run: null,
      member,
      lease: new Lease(() => worker.nowMs),
    };
    return worker;
  }
}
