/**
 * Projects: unit tests beside the source; end-to-end tests on real processes, one file at a time; and long ones, which `npm test`
 * leaves out.
 */
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: [
            'orchestrator/**/*.test.ts',
            'native/worker/**/*.test.ts',
            'workflows/**/*.test.ts',
            'deploy/**/*.test.ts',
          ],
          testTimeout: 30_000,
          hookTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test/**/*.test.ts'],
          exclude: ['test/long/**'],
          testTimeout: 180_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
      { test: { name: 'long', include: ['test/long/**/*.test.ts'], fileParallelism: false } },
    ],
  },
});
