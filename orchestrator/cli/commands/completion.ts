/** `completion`: a script that completes commands and options in a shell. */
import { Argument, type Command } from 'commander';

import { completionScript, type Shell, SHELLS } from '../completion.js';
import { data } from '../output.js';

const HOW = `
To have it in every shell:
  bash  collimate completion bash > ~/.local/share/bash-completion/completions/collimate
  zsh   collimate completion zsh > a file that .zshrc sources
  fish  collimate completion fish > ~/.config/fish/completions/collimate.fish`;

export function addCompletionCommand(program: Command): void {
  program
    .command('completion')
    .description('print a script that completes commands and options in a shell')
    .addArgument(new Argument('<shell>', 'which shell').choices(SHELLS))
    .addHelpText('after', HOW)
    .action((shell: Shell) => {
      data(completionScript(shell, program).trimEnd());
    });
}
