/**
 * The command line: one command per function in `commands/`.
 *
 * 1. Whatever goes wrong ends here: a CliError with its own exit code, anything else as a bug with its stack.
 */
import { Command, CommanderError, Option } from 'commander';

import { CliError, EXIT, EXIT_CODES_HELP, messageOf } from './cli-error.js';
import { addControlCommands } from './commands/control.js';
import { addDemoCommand } from './commands/demo.js';
import { addDoctorCommand } from './commands/doctor.js';
import { addFollowCommands } from './commands/follow.js';
import { addLocalCommands } from './commands/local.js';
import { addRecommendCommand } from './commands/recommend.js';
import { addRunCommand } from './commands/run.js';
import { clearLive, progress, red } from './output.js';
import { projectVersion } from './project-paths.js';

function makeProgram(): Command {
  const program = new Command('collimate')
    .description('Behaviour logs and item text in, a served top-K list per user out.')
    .version(projectVersion(), '--version', 'print the version')
    .option('--home <dir>', 'state home (default: $COLLIMATE_HOME, else ./.collimate)')
    .addOption(new Option('-o, --output <format>', 'form of the data on stdout').choices(['text', 'json']).default('text'))
    .showSuggestionAfterError()
    .configureHelp({ showGlobalOptions: true, sortSubcommands: false })
    .addHelpText('after', EXIT_CODES_HELP);
  addLocalCommands(program);
  addRunCommand(program);
  addFollowCommands(program);
  addControlCommands(program);
  addRecommendCommand(program);
  addDoctorCommand(program);
  addDemoCommand(program);
  for (const command of [program, ...program.commands]) command.exitOverride();
  return program;
}

function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.badInput;
  clearLive();
  if (error instanceof CliError) {
    progress(`${red('error:')} ${error.message}`);
    return error.exitCode;
  }
  progress(`${red('error:')} ${messageOf(error)}`);
  if (error instanceof Error && error.stack !== undefined) progress(error.stack);
  return EXIT.runFailed;
}

try {
  await makeProgram().parseAsync();
  process.exit();
} catch (error) {
  process.exit(exitCodeOf(error));
}
