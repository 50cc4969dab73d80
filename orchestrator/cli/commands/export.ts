/** `export`: what a run tuned, in a folder that Hugging Face libraries load. */
import { type Command } from 'commander';

import { contextOf, withStore } from '../command-context.js';
import { exportModel } from '../export-model.js';
import { data, dataJson, progress } from '../output.js';

interface ExportFlags {
  merged?: boolean;
  base?: string;
}

export function addExportCommand(program: Command): void {
  program
    .command('export')
    .description('write what a run tuned to a folder: a PEFT adapter, or a Hugging Face model; needs no server')
    .argument('<run>', 'run id')
    .argument('<out-dir>', 'folder to make; an empty one will do')
    .option('--merged', 'a whole model, adapters added into its weights (what was trained in full always is one)')
    .option('--base <name>', "base that the adapter's config names: a folder or a name on a hub")
    .action(async (runId: string, folder: string, flags: ExportFlags, command: Command) => {
      const { home, output } = contextOf(command);
      const request = { runId, folder, merged: flags.merged === true, baseName: flags.base ?? null };
      const exported = await withStore(home, (store) => exportModel(store, request));
      if (output === 'json') dataJson(exported);
      else {
        data(`${exported.folder}`);
        progress(`${exported.form} of ${runId}: ${exported.files.join(', ')}; README.md says how to load it`);
      }
    });
}
