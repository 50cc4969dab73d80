/**
 * Job kind `carry_ids`: the semantic ids of an earlier run, by today's numbers of the items.
 *
 * 1. Items are known by their external ids. One that the earlier run did not have gets −1 in every level.
 * 2. Ids of items that are gone are retired, and stay so through every later run: whoever kept an id must not meet another item.
 */
import { readCatalogue } from './catalogue.js';
import { type DomainJob } from './domain-job.js';
import { inputPath, outputPath } from './job-files.js';
import { SafetensorsFile, writeSafetensors } from './safetensors.js';
import { readSemanticIds } from './semantic-ids.js';

export const carryIdsJob: DomainJob = async (context) => {
  const catalogue = await readCatalogue(inputPath(context, 'catalogue'));
  const earlier = await readCatalogue(inputPath(context, 'earlier_catalogue'));
  const file = await SafetensorsFile.open(inputPath(context, 'earlier_codes'));
  const { levels, values } = readSemanticIds(file, earlier.length);
  const idOf = (item: number): Int32Array => values.subarray(item * levels, (item + 1) * levels);

  const numbers = new Map(earlier.map(({ item }, number) => [item, number]));
  const codes = new Int32Array(catalogue.length * levels).fill(-1);
  let kept = 0;
  catalogue.forEach(({ item }, number) => {
    const before = numbers.get(item);
    if (before === undefined) return;
    codes.set(idOf(before), number * levels);
    numbers.delete(item);
    kept += 1;
  });
  const gone = [...numbers.values()].flatMap((number) => [...idOf(number)]);
  const goneBefore = context.inputs['earlier_published'];
  const retired = Int32Array.from([
    ...(goneBefore === undefined ? [] : (await SafetensorsFile.open(goneBefore)).i32('retired', [-1, levels]).data),
    ...gone,
  ]);
  const outputs = { published: 'published.safetensors' };
  await writeSafetensors(outputPath(context, outputs.published), {
    codes: { shape: [catalogue.length, levels], data: codes },
    retired: { shape: [retired.length / levels, levels], data: retired },
    centroids: file.f32('centroids', [levels, -1, -1]),
  });
  context.report(1, 1, { kept });
  const summary = { kept, added: catalogue.length - kept, retired: retired.length / levels };
  return { outputs, summary };
};
