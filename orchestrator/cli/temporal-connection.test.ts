/** What errors of the Temporal client mean to a user. */
import { NamespaceNotFoundError, WorkflowNotFoundError } from '@temporalio/client';
import { expect, test } from 'vitest';

import { CliError, isAway } from './cli-error.js';
import { explain } from './temporal-connection.js';

test('a server that does not know its namespace is one that is away for now, not a run that is missing', () => {
  const error = explain(new NamespaceNotFoundError('default'), 'run r', '127.0.0.1:7233');
  expect(error).toBeInstanceOf(CliError);
  expect(isAway(error)).toBe(true);
  expect((error as CliError).message).toContain('may be starting');
});

test('a run that nobody knows is not found, and other errors pass', () => {
  const unknown = explain(new WorkflowNotFoundError('no', 'r', undefined), 'run r', '127.0.0.1:7233');
  expect(unknown).toMatchObject({ exit: 'notFound' });
  const other = new Error('something else');
  expect(explain(other, 'run r', '127.0.0.1:7233')).toBe(other);
});
