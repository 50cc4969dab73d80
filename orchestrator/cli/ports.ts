/** Ports on the loopback interface: which are free, and a clear refusal of one that is not. */
import { createServer, connect } from 'node:net';

import { CliError, hasCode } from './cli-error.js';

export const HOST = '127.0.0.1';

function listenOnce(port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen({ host: HOST, port, exclusive: true }, () => {
      const address = server.address();
      const bound = typeof address === 'object' && address !== null ? address.port : port;
      server.close(() => resolve(bound));
    });
  });
}

/** The wanted port when it is free, or any free one for 0. */
export async function choosePort(wanted: number, option: string): Promise<number> {
  try {
    return await listenOnce(wanted);
  } catch (error) {
    if (hasCode(error, 'EADDRINUSE')) {
      throw new CliError(
        'badInput',
        `expected a free port for ${option}, but ${HOST}:${wanted} is in use by another process; ` +
          `stop it, give another port, or leave ${option} out to have a free one chosen`,
      );
    }
    if (hasCode(error, 'EACCES')) {
      throw new CliError(
        'badInput',
        `port ${wanted} for ${option} may not be opened by this user; give one above 1023`,
      );
    }
    throw error;
  }
}

export function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65_535) {
    throw new CliError('badInput', `expected a port number from 0 to 65535, got "${text}"`);
  }
  return port;
}

/** True once something accepts connections there. */
export function accepts(address: string, timeoutMs: number): Promise<boolean> {
  const colon = address.lastIndexOf(':');
  return new Promise((resolve) => {
    const socket = connect({ host: address.slice(0, colon), port: Number(address.slice(colon + 1)) });
    const finish = (result: boolean): void => {
      socket.destroy();
      resolve(result);
    };
    socket.setTimeout(timeoutMs, () => finish(false));
    socket.once('connect', () => finish(true));
    socket.once('error', () => finish(false));
  });
}
