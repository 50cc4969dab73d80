/**
 * One child process that is kept running: started, watched until it is ready, restarted with backoff when it dies.
 *
 * 1. A child that dies is started again after `backoffMs`, doubled up to a limit; staying up resets the backoff.
 * 2. Before it was ready for the first time, a few deaths in a row are a failure of the start, not a reason to go on.
 * 3. After `stop` nothing is started again.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, renameSync, statSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';

import { type ProcessRecord } from './home.js';
import { recordOf, stopAll } from './process-control.js';

const BACKOFF_FIRST_MS = 250;
const BACKOFF_MAX_MS = 10_000;
const STEADY_AFTER_MS = 30_000;
const START_ATTEMPTS = 3;
const LOG_BYTES_MAX = 32 * 1024 * 1024;

/** The line that the controller and the workers print when they are up. */
export interface ReadyLine {
  ready: true;
  address: string;
  metrics: string | null;
}

export interface ManagedProcessOptions {
  name: string;
  command: string;
  args: string[];
  env?: NodeJS.ProcessEnv;
  logFile: string;
  /** Waits until the child answers; absent: the child prints a ready line on stdout. */
  probe?: (signal: AbortSignal) => Promise<ReadyLine>;
  /** Time from start to ready. */
  readyTimeoutMs: number;
  stopGraceMs: number;
  /** Called at every change of `record`, `ready` or `restarts`. */
  onChange: () => void;
}

export class ManagedProcess {
  record: ProcessRecord | null = null;
  ready: ReadyLine | null = null;
  restarts = 0;
  private stopping = false;
  private wasReady = false;
  private backoffMs = BACKOFF_FIRST_MS;
  private failedStarts = 0;
  private timer: NodeJS.Timeout | null = null;
  private resolveReady: () => void = () => undefined;
  private rejectReady: (error: Error) => void = () => undefined;
  private readonly firstReady = new Promise<void>((resolve, reject) => {
    this.resolveReady = resolve;
    this.rejectReady = reject;
  });

  constructor(private readonly options: ManagedProcessOptions) {
    this.firstReady.catch(() => undefined);
  }

  get name(): string {
    return this.options.name;
  }

  /** Resolves when the child was ready for the first time; rejects when it would not start. */
  start(): Promise<void> {
    this.spawnOnce();
    return this.firstReady;
  }

  async stop(): Promise<void> {
    this.stopping = true;
    if (this.timer !== null) clearTimeout(this.timer);
    if (this.record !== null) await stopAll([this.record], this.options.stopGraceMs);
  }

  private spawnOnce(): void {
    const { command, args, logFile, env } = this.options;
    rotate(logFile);
    const log = openSync(logFile, 'a');
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', log], env: env ?? process.env });
    const startedMs = Date.now();
    const probeAbort = new AbortController();
    const deadline = setTimeout(() => child.kill('SIGKILL'), this.options.readyTimeoutMs);
    // At once, not on 'spawn': a stop that comes in between must find the child.
    if (child.pid !== undefined) this.record = recordOf(child.pid);
    this.options.onChange();
    const onReady = (line: ReadyLine): void => {
      clearTimeout(deadline);
      this.ready = line;
      this.wasReady = true;
      this.failedStarts = 0;
      this.options.onChange();
      this.resolveReady();
    };
    this.followOutput(child, log, onReady);
    this.options.probe?.(probeAbort.signal).then(onReady, () => undefined);
    let ended = false;
    const onEnd = (reason: string): void => {
      if (ended) return;
      ended = true;
      clearTimeout(deadline);
      probeAbort.abort();
      closeSync(log);
      this.record = null;
      this.ready = null;
      this.options.onChange();
      this.afterEnd(reason, Date.now() - startedMs);
    };
    child.once('error', (error) => onEnd(error.message));
    child.once('close', (code, signal) => onEnd(signal === null ? `exit code ${code}` : `signal ${signal}`));
  }

  private followOutput(child: ChildProcess, log: number, onReady: (line: ReadyLine) => void): void {
    if (child.stdout === null) return;
    let waiting = this.options.probe === undefined;
    createInterface({ input: child.stdout }).on('line', (line) => {
      const ready = waiting ? parseReadyLine(line) : null;
      if (ready !== null) {
        waiting = false;
        onReady(ready);
        return;
      }
      try {
        writeSync(log, `${line}\n`);
      } catch {
        // The log was closed with the child, or the disk is full: the line is lost, the process is not.
      }
    });
  }

  private afterEnd(reason: string, livedMs: number): void {
    if (this.stopping) return;
    if (!this.wasReady && ++this.failedStarts >= START_ATTEMPTS) {
      const tail = lastLines(this.options.logFile, 5);
      this.rejectReady(
        new Error(
          `${this.name} was expected to start, but ended ${START_ATTEMPTS} times before it was ready (last: ${reason}); ` +
            `see ${this.options.logFile}${tail === '' ? '' : `, which ends with:\n${tail}`}`,
        ),
      );
      return;
    }
    this.restarts += 1;
    if (livedMs > STEADY_AFTER_MS) this.backoffMs = BACKOFF_FIRST_MS;
    this.timer = setTimeout(() => this.spawnOnce(), this.backoffMs);
    this.backoffMs = Math.min(this.backoffMs * 2, BACKOFF_MAX_MS);
  }
}

function parseReadyLine(line: string): ReadyLine | null {
  if (!line.startsWith('{')) return null;
  try {
    const value = JSON.parse(line) as { ready?: unknown; address?: unknown; metrics?: unknown };
    if (value.ready !== true || typeof value.address !== 'string') return null;
    return { ready: true, address: value.address, metrics: typeof value.metrics === 'string' ? value.metrics : null };
  } catch {
    return null;
  }
}

function rotate(logFile: string): void {
  try {
    if (statSync(logFile).size > LOG_BYTES_MAX) renameSync(logFile, `${logFile}.1`);
  } catch {
    // No log yet.
  }
}

/** The end of a log file, for an error message. */
export function lastLines(file: string, count: number): string {
  try {
    return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-count).join('\n');
  } catch {
    return '';
  }
}
