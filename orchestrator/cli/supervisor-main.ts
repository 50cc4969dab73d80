/** Entry point of the supervisor process: its configuration is one JSON argument. SIGTERM takes everything down. */
import { Supervisor } from './supervisor.js';
import { type SupervisorConfig } from './supervisor-config.js';

const supervisor = new Supervisor(JSON.parse(process.argv[2] ?? '') as SupervisorConfig);
let stopping = false;

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    if (stopping) return;
    stopping = true;
    void supervisor.stop().then(() => {
      supervisor.forget();
      process.exit(0);
    });
  });
}

// On failure the table stays, since it says why; the process itself has nothing left to look after.
if (!(await supervisor.start()) && !stopping) process.exit(1);
