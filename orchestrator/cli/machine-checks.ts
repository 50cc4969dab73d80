/** What `doctor` finds of a machine beside the programs: room on the disk, devices, and a Prometheus that runs. */
import { execFileSync } from 'node:child_process';
import { existsSync, statfsSync } from 'node:fs';
import { dirname } from 'node:path';

import { messageOf } from './cli-error.js';
import { findProgram, onPath } from './temporal-binary.js';

export interface Check {
  name: string;
  /** `missing` makes the command fail; `absent` is optional. */
  state: 'ok' | 'absent' | 'missing';
  /** What was found, or what to do. */
  detail: string;
}

/** A demo needs a tenth of it; a run of a real log some of it. */
const ROOM_BYTES_MIN = 2 ** 30;
const DRIVER_TIMEOUT_MS = 10_000;
const ANSWER_TIMEOUT_MS = 3_000;

/** Room where the home is, or would be made. */
export function roomCheck(folder: string, bytesMin: number = ROOM_BYTES_MIN): Check {
  let at = folder;
  while (!existsSync(at) && dirname(at) !== at) at = dirname(at);
  const { bavail, bsize } = statfsSync(at);
  const free = bavail * bsize;
  const text = `${(free / 2 ** 30).toFixed(1)} GiB free at ${at}`;
  if (free >= bytesMin) return { name: 'room', state: 'ok', detail: text };
  const needed = (bytesMin / 2 ** 30).toFixed(1);
  return {
    name: 'room',
    state: 'missing',
    detail: `${text}, expected at least ${needed}; "collimate artifacts gc" removes what nothing refers to, or give another --home`,
  };
}

/** CUDA devices as the driver shows them; `program` is its own tool. */
export function deviceCheck(program: string | null = onPath('nvidia-smi')): Check {
  const name = 'CUDA devices';
  const none = 'none: workers compute on processors';
  if (program === null) return { name, state: 'absent', detail: none };
  try {
    const asked = ['--query-gpu=index,name,memory.total', '--format=csv,noheader'];
    const answer = execFileSync(program, asked, { encoding: 'utf8', timeout: DRIVER_TIMEOUT_MS, stdio: 'pipe' });
    const devices = answer.trim().split('\n').filter(Boolean);
    if (devices.length === 0) return { name, state: 'absent', detail: none };
    const listed = devices.map((line) => `cuda:${line.split(', ').join(' ')}`).join('; ');
    return { name, state: 'ok', detail: `${listed} ("collimate worker --device cuda:0")` };
  } catch (error) {
    const why = messageOf(error).split('\n')[0] ?? '';
    return { name, state: 'absent', detail: `the driver does not answer (${why}); workers compute on processors` };
  }
}

export function prometheusCheck(): Check {
  const found = findProgram({ variable: 'COLLIMATE_PROMETHEUS', name: 'prometheus' });
  if (found !== null) return { name: 'Prometheus', state: 'ok', detail: `${found.path} (${found.source})` };
  const remedy = 'only "up --monitoring" needs one (Debian: apt-get install prometheus, or set COLLIMATE_PROMETHEUS)';
  return { name: 'Prometheus', state: 'absent', detail: remedy };
}

/** One that was started with the home and has to answer. */
export async function runningPrometheusCheck(address: string): Promise<Check> {
  const name = 'running Prometheus';
  try {
    const { status } = await fetch(`http://${address}/-/ready`, { signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
    if (status === 200) return { name, state: 'ok', detail: `ready at http://${address}` };
    return { name, state: 'missing', detail: `http://${address} answers ${status}; its log is in the home's logs/` };
  } catch (error) {
    const detail = `nothing answers at http://${address} (${messageOf(error)}); its log is in the home's logs/`;
    return { name, state: 'missing', detail };
  }
}
