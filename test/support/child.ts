/** A child process of a test: started, awaited until its ready line, killed for certain at the end. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createWriteStream, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const READY_TIMEOUT_MS = 60_000;

export interface ReadyLine {
  ready: true;
  address: string;
  metrics: string;
}

export class TestChild {
  readonly process: ChildProcess;
  readonly exited: Promise<void>;
  readonly #logFile: string;

  constructor(command: string, args: string[], logFile: string) {
    this.#logFile = logFile;
    this.process = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const log = createWriteStream(logFile, { flags: 'a' });
    this.process.stderr?.pipe(log);
    this.exited = new Promise((resolve) => {
      this.process.once('exit', () => {
        resolve();
      });
    });
  }

  async ready(): Promise<ReadyLine> {
    const { stdout } = this.process;
    if (stdout === null) throw new Error('child without stdout');
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`not ready within ${String(READY_TIMEOUT_MS)} ms:\n${this.logTail()}`));
      }, READY_TIMEOUT_MS);
      void this.exited.then(() => {
        clearTimeout(timer);
        reject(new Error(`exited before it was ready:\n${this.logTail()}`));
      });
      createInterface({ input: stdout }).on('line', (line) => {
        if (!line.startsWith('{"ready":true')) return;
        clearTimeout(timer);
        resolve(JSON.parse(line) as ReadyLine);
      });
    });
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    this.process.kill(signal);
    await this.exited;
  }

  logTail(): string {
    try {
      return readFileSync(this.#logFile, 'utf8').split('\n').slice(-30).join('\n');
    } catch {
      return '(no log)';
    }
  }
}
