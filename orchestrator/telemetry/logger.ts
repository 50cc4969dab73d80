/**
 * Structured logs: one JSON object a line on stderr (or in a file), with the fields by which a run is followed.
 * Standard output stays free for data.
 */
import pino, { type DestinationStream, type Logger as PinoLogger } from 'pino';

export type Logger = PinoLogger;

/** Fields that every line of a child logger carries; the same names as in proto, metrics and the contract types. */
export interface LogFields {
  run?: string;
  stage?: string;
  worker?: string;
  epoch?: number;
  job?: string;
}

export interface LoggerOptions {
  /** Program: `controller`, `worker`, `serve`, `cli`. */
  component: string;
  fields?: LogFields;
  /** Log file, made with its folder; stderr when left out. */
  file?: string;
  /** For tests; wins over `file`. */
  destination?: DestinationStream;
  /** Also told of every line, without its end. */
  onLine?: (line: string) => void;
}

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'];

/** The level is that of COLLIMATE_LOG_LEVEL, else `info`. Use `logger.child(fields)` to bind more fields. */
export function createLogger({ component, fields = {}, file, destination, onLine }: LoggerOptions): Logger {
  const level = process.env['COLLIMATE_LOG_LEVEL'] ?? 'info';
  if (!LEVELS.includes(level)) {
    throw new Error(`COLLIMATE_LOG_LEVEL: expected one of ${LEVELS.join(', ')}, got "${level}"`);
  }
  // Synchronous, so that the last lines before a crash are not lost.
  const target = destination ?? pino.destination({ dest: file ?? 2, mkdir: true, sync: true });
  return pino(
    {
      level,
      base: { component, pid: process.pid, ...fields },
      messageKey: 'message',
      errorKey: 'error',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    onLine === undefined ? target : teeing(target, onLine),
  );
}

function teeing(target: DestinationStream, onLine: (line: string) => void): DestinationStream {
  return {
    write(text) {
      target.write(text);
      onLine(text.trimEnd());
    },
  };
}
