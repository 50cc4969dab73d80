// The native tests under the compiler's sanitizers. Usage: node native/sanitize.mjs [address|thread] [-- DOCTEST OPTIONS]
//
// address: AddressSanitizer with leak detection and UndefinedBehaviorSanitizer, on every test.
// thread: ThreadSanitizer, on what several threads share: the pool, the transport, the lanes and the jobs on top.
// Matrix products are our own here: a library that was built without the sanitizer would hide what it touches.
import { join } from 'node:path';

import { buildPlain, must } from './plain_build.mjs';

const KINDS = {
  address: {
    sanitizers: 'address,undefined',
    environment: {
      ASAN_OPTIONS: 'detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1',
      UBSAN_OPTIONS: 'print_stacktrace=1',
    },
    tests: [],
  },
  thread: {
    sanitizers: 'thread',
    environment: { TSAN_OPTIONS: 'second_deadlock_stack=1' },
    tests: ['--test-case=pool*,transport*,lanes*,job*,state sync*,tune*,codebooks*,dccf job*,rank job*'],
  },
};

const args = process.argv.slice(2);
const kind = args[0] !== undefined && !args[0].startsWith('-') ? args.shift() : 'address';
if (!(kind in KINDS)) {
  console.error(`expected one of ${Object.keys(KINDS).join(', ')}, got ${kind}`);
  process.exit(2);
}
const { sanitizers, environment, tests } = KINDS[kind];
const out = buildPlain(`sanitize-${kind}`, { COLLIMATE_SANITIZE: sanitizers }, ['native_tests']);
const chosen = args.length > 0 ? args.filter((arg) => arg !== '--') : tests;
must(`native tests under ${sanitizers}`, join(out, 'native_tests'), ['--no-colors=true', ...chosen], environment);
