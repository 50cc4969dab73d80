// Typed lint. Folder boundaries: workflows -> contract types; activities -> fleet, artifacts, recommender;
// worker -> addon, recommender, artifacts; recommender -> nothing but contract types.
import js from '@eslint/js';
import { createTypeScriptImportResolver } from 'eslint-import-resolver-typescript';
import { importX } from 'eslint-plugin-import-x';
import tseslint from 'typescript-eslint';

/** Files in `folders` may not import from the given path patterns. */
function forbid(folders, patterns, message) {
  return {
    files: folders.map((folder) => `${folder}/**/*.ts`),
    rules: { 'no-restricted-imports': ['error', { patterns: patterns.map((group) => ({ group: [group], message })) }] },
  };
}

export default tseslint.config(
  { ignores: ['dist/**', 'build/**', 'node_modules/**', 'proto/generated/**', '.cache/**', '.collimate/**'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommendedTypeChecked],
    plugins: { 'import-x': importX },
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    settings: { 'import-x/resolver-next': [createTypeScriptImportResolver({ project: './tsconfig.json' })] },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      'import-x/no-cycle': 'error',
    },
  },
  {
    files: ['**/*.mjs', '**/*.js'],
    languageOptions: { globals: { process: 'readonly', console: 'readonly', URL: 'readonly', Buffer: 'readonly' } },
  },
  forbid(
    ['workflows'],
    ['**/orchestrator/**', '**/native/**', 'node:*', '@grpc/*'],
    'Workflow code is deterministic: contract types only.',
  ),
  forbid(
    ['orchestrator/recommender'],
    [
      '**/controller/**',
      '**/activities/**',
      '**/fleet/**',
      '**/cli/**',
      '**/serving/**',
      '**/native/**',
      '@temporalio/*',
      '@grpc/*',
    ],
    'The domain depends on nothing but contract types.',
  ),
  forbid(
    ['orchestrator/artifacts', 'orchestrator/telemetry'],
    [
      '**/controller/**',
      '**/activities/**',
      '**/fleet/**',
      '**/cli/**',
      '**/serving/**',
      '**/recommender/**',
      '**/native/**',
    ],
    'Artifacts and telemetry are below everything else.',
  ),
  forbid(
    ['orchestrator/fleet', 'orchestrator/serving'],
    ['**/controller/**', '**/activities/**', '**/cli/**', '**/native/**'],
    'Fleet and serving are used by activities and the controller, never the reverse.',
  ),
  forbid(
    ['orchestrator/report'],
    [
      '**/controller/**',
      '**/activities/**',
      '**/fleet/**',
      '**/cli/**',
      '**/serving/**',
      '**/telemetry/**',
      '**/native/**',
      '@temporalio/*',
      '@grpc/*',
    ],
    'The report reads the artifact store and the domain; activities and the command line make it.',
  ),
  forbid(
    ['orchestrator/activities'],
    ['**/controller/**', '**/cli/**', '**/native/**'],
    'Activities use fleet, artifacts, recommender.',
  ),
  forbid(
    ['native/worker'],
    ['**/controller/**', '**/activities/**', '**/cli/**', '@temporalio/*'],
    'The worker uses the addon, the domain and the artifact store.',
  ),
  {
    files: ['orchestrator/**/*.ts', 'test/**/*.ts'],
    rules: {
      'no-restricted-syntax': [
        'error',
        {
          selector: "CallExpression[callee.property.name='localeCompare']",
          message: 'Locale-dependent order changes results.',
        },
        { selector: "Identifier[name='Intl']", message: 'Locale data changes results.' },
      ],
    },
  },
);
