/** What every domain job does with its files: find inputs, name outputs. */
import { join } from 'node:path';
import { type DomainJobContext, BadInputError } from './domain-job.js';
import { readDataset, type Dataset } from './dataset.js';
import { SafetensorsFile } from './safetensors.js';

/** Path of a required input. */
export function inputPath(context: DomainJobContext, name: string): string {
  const path = context.inputs[name];
  if (path === undefined) {
    throw new BadInputError(`expected the input '${name}', got ${Object.keys(context.inputs).join(', ') || 'none'}`);
  }
  return path;
}

export async function inputDataset(context: DomainJobContext): Promise<Dataset> {
  return readDataset(await SafetensorsFile.open(inputPath(context, 'dataset')), 'dataset');
}

export function outputPath(context: DomainJobContext, file: string): string {
  return join(context.outputDir, file);
}
