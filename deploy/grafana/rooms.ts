/** All rooms, in the order in which an operator walks through them. */
import type { Room } from './room.js';
import { codebooks } from './rooms/codebooks.js';
import { fleet } from './rooms/fleet.js';
import { hardware } from './rooms/hardware.js';
import { recovery } from './rooms/recovery.js';
import { run } from './rooms/run.js';
import { serving } from './rooms/serving.js';
import { stage } from './rooms/stage.js';
import { temporal } from './rooms/temporal.js';

export const ROOMS: readonly Room[] = [fleet, run, stage, recovery, codebooks, hardware, serving, temporal];
