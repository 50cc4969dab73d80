/**
 * A real pretrained base through the whole path: SmolLM2-135M tuned on a real log, ranked, published, exported, and loaded by peft.
 * Too long for `npm test`. Run: COLLIMATE_SMOLLM2=<model folder> COLLIMATE_DATA=<amazon18_scientific> npm run test:smollm2
 * COLLIMATE_STEPS (300) and COLLIMATE_USERS (200, the first of the log) make it shorter or longer. As they are, on two busy
 * cores of an AMD EPYC: 13 minutes in all, loss 24.8 to 1.8 at 0.50 steps/s, logits in peft within 1.2e-6.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { openStore } from '../../orchestrator/artifacts/store.js';
import { projectRoot } from '../../orchestrator/build-info.js';
import { homeAt } from '../../orchestrator/cli/home.js';
import { runNativeJob } from '../../orchestrator/cli/native-job.js';
import { SafetensorsFile, writeSafetensors } from '../../orchestrator/recommender/safetensors.js';
import { type RunPlan, type RunResult, type RunStatus } from '../../workflows/contract.js';
import { cli, temporaryHome } from '../support/cli.js';
import { findPython, roundTrip } from '../support/python.js';

const { COLLIMATE_SMOLLM2: base, COLLIMATE_DATA: log } = process.env;
const steps = Number(process.env['COLLIMATE_STEPS'] ?? 300);
const users = Number(process.env['COLLIMATE_USERS'] ?? 200);
const HOURS_6_MS = 6 * 3_600_000;
const PROMPTS_COMPARED = 8;
// 30 layers in fp32, another order of sums in each.
const TOLERANCE = 1e-4;

if (base === undefined || log === undefined) {
  console.error(
    'skipped: expected the folders COLLIMATE_SMOLLM2 (model) and COLLIMATE_DATA (sequences.txt.gz, items.tsv.gz)',
  );
}

describe.skipIf(base === undefined || log === undefined)('SmolLM2-135M', () => {
  const home = temporaryHome();
  const folder = mkdtempSync(join(tmpdir(), 'collimate-smollm2-'));
  let result: RunResult;
  beforeAll(async () => {
    const up = await cli(['up', '--workers', '2', '--home', home.path]);
    expect(up.code, up.stderr).toBe(0);
  });
  afterAll(async () => {
    await cli(['down', '--home', home.path]);
    home.remove();
    rmSync(folder, { recursive: true, force: true });
  });

  /** The first users of the log, with all its items: ranking is most of the time. */
  function shortLog(): string {
    const short = join(folder, 'data');
    mkdirSync(short);
    const lines = gunzipSync(readFileSync(join(log ?? '', 'sequences.txt.gz')))
      .toString('utf8')
      .split('\n');
    writeFileSync(join(short, 'sequences.txt'), `${lines.slice(0, users).join('\n')}\n`);
    writeFileSync(join(short, 'items.tsv.gz'), readFileSync(join(log ?? '', 'items.tsv.gz')));
    return short;
  }

  test(
    'is tuned, ranked and published',
    async () => {
      const file = join(projectRoot(), 'deploy', 'examples', 'pretrained.yaml');
      const sets = [
        `model.base=${base}`,
        `tune.steps=${steps}`,
        `tune.warmupSteps=${Math.min(20, Math.floor(steps / 4))}`,
      ];
      const args = ['run', file, '--home', home.path, '--data', shortLog(), '-o', 'json'];
      const run = await cli([...args, ...sets.flatMap((set) => ['--set', set])], { timeoutMs: HOURS_6_MS });
      expect(run.code, run.stderr.slice(-4_000)).toBe(0);
      result = (JSON.parse(run.stdout) as RunStatus).result as RunResult;
      const [tuned, evaluated] = [result.jobs['tune']?.summary, result.jobs['evaluate']?.summary];
      console.log([JSON.stringify(tuned), speedOf(result.runId), JSON.stringify(evaluated)].join('\n'));
      expect(Number(tuned?.['lastLoss'])).toBeLessThan(0.95 * Number(tuned?.['firstLoss']));
      const user = readFileSync(join(folder, 'data', 'sequences.txt'), 'utf8').split(' ')[0] ?? '';
      const list = await cli(['recommend', user, '-k', '5', '--home', home.path, '-o', 'json']);
      expect((JSON.parse(list.stdout) as { items: unknown[] }).items).toHaveLength(5);
    },
    HOURS_6_MS,
  );

  /** Steps a second of tuning, from the run's own events. */
  function speedOf(runId: string): string {
    const events = readFileSync(join(home.path, 'store', 'runs', runId, 'events.ndjson'), 'utf8')
      .split('\n')
      .filter(Boolean);
    const seconds = events
      .map((line) => JSON.parse(line) as { type?: string; job?: string; metrics?: Record<string, number> })
      .filter(({ type, job }) => type === 'step' && job?.endsWith('/tune') === true)
      .flatMap(({ metrics }) => metrics?.['step_seconds'] ?? []);
    const mean = seconds.reduce((sum, value) => sum + value, 0) / seconds.length;
    return `tune: ${(1 / mean).toFixed(4)} steps/s over ${seconds.length} reported steps`;
  }

  const python = findPython();
  if (python.missing !== null) console.error(`skipped: ${python.missing}`);
  test.skipIf(python.path === null)(
    'is exported as an adapter with our logits in peft',
    async () => {
      const out = join(folder, 'adapter');
      const exported = await cli(['export', result.runId, out, '--base', base ?? '', '--home', home.path]);
      expect(exported.code, exported.stderr).toBe(0);
      const store = openStore(homeAt(home.path).store);
      const plan = JSON.parse(String(await store.readRunFile(result.runId, 'plan.json'))) as RunPlan;
      const inputs: Record<string, string> = {
        model: await store.localPath(result.jobs['tune']?.outputs['model'] ?? ''),
        prompts: join(folder, 'prompts'),
      };
      for (const [name, digest] of Object.entries(plan.baseFiles)) inputs[name] = await store.localPath(digest);
      const all = await SafetensorsFile.open(
        await store.localPath(result.jobs['render']?.outputs['test_prompts'] ?? ''),
      );
      const offsets = all.i64('offsets', [-1]).data.slice(0, PROMPTS_COMPARED + 1);
      const tokens = all.i32('tokens', [-1]).data.slice(0, offsets.at(-1));
      await writeSafetensors(inputs['prompts'] ?? '', {
        tokens: { shape: [tokens.length], data: tokens },
        offsets: { shape: [offsets.length], data: BigInt64Array.from(offsets, BigInt) },
      });
      mkdirSync(join(folder, 'logits'));
      const outputDir = join(folder, 'logits');
      const { outputs } = await runNativeJob({ kind: 'logits', recipe: {}, inputs, outputDir });
      const compared = await roundTrip<{ relativeDifference: number; firstItemToken: number; encoded: number[] }>(
        ...([python.path ?? '', 'compare_logits', out, inputs['prompts'] ?? '', outputs['logits'] ?? ''] as const),
      );
      console.log(`logits in peft: relative difference ${compared.relativeDifference}`);
      expect(compared.relativeDifference).toBeLessThan(TOLERANCE);
      expect(compared.firstItemToken).toBe(result.jobs['render']?.summary['firstItemToken']);
      expect(readdirSync(out)).toContain('adapter_config.json');
    },
    HOURS_6_MS,
  );
});
