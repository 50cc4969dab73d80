/**
 * The command line: one command per function in `commands/`.
 *
 * 1. Only the module of the command that is asked for is loaded: a usage error must not cost the loading of Temporal's client.
 * 2. Whatever goes wrong ends here: a CliError with its own exit code, anything else as a bug with its stack.
 */
import { Command, CommanderError, Option } from 'commander';

import { CliError, EXIT, EXIT_CODES_HELP, messageOf } from './cli-error.js';
import { clearLive, progress, red } from './output.js';
import { projectVersion } from './project-paths.js';

type AddCommands = (program: Command) => void;

/** In the order of the help text. */
const MODULES: { commands: string[]; load: () => Promise<AddCommands> }[] = [
  {
    commands: ['up', 'down', 'controller', 'worker', 'serve'],
    load: async () => (await import('./commands/local.js')).addLocalCommands,
  },
  { commands: ['run'], load: async () => (await import('./commands/run.js')).addRunCommand },
  {
    commands: ['ls', 'status', 'watch', 'logs'],
    load: async () => (await import('./commands/follow.js')).addFollowCommands,
  },
  {
    commands: ['cancel', 'pause', 'resume', 'scale', 'approve'],
    load: async () => (await import('./commands/control.js')).addControlCommands,
  },
  { commands: ['top'], load: async () => (await import('./commands/top.js')).addTopCommand },
  { commands: ['fleet'], load: async () => (await import('./commands/fleet.js')).addFleetCommand },
  {
    commands: ['sweep', 'ablate'],
    load: async () => (await import('./commands/sweep.js')).addSweepCommands,
  },
  { commands: ['export'], load: async () => (await import('./commands/export.js')).addExportCommand },
  { commands: ['report'], load: async () => (await import('./commands/report.js')).addReportCommand },
  { commands: ['verify'], load: async () => (await import('./commands/verify.js')).addVerifyCommand },
  { commands: ['artifacts'], load: async () => (await import('./commands/artifacts.js')).addArtifactsCommand },
  { commands: ['recommend'], load: async () => (await import('./commands/recommend.js')).addRecommendCommand },
  { commands: ['doctor', 'version'], load: async () => (await import('./commands/doctor.js')).addDoctorCommand },
  {
    commands: ['completion'],
    load: async () => (await import('./commands/completion.js')).addCompletionCommand,
  },
  { commands: ['demo'], load: async () => (await import('./commands/demo.js')).addDemoCommand },
];

/** Commands that tell of all the others. */
const ALL_MODULES_FOR = ['help', 'completion'];

/** The module whose command is the first word that is one; all of them for the help text and for misspelt commands. */
function modulesFor(words: string[]): typeof MODULES {
  const command = words.find((word) => MODULES.some((module) => module.commands.includes(word)));
  const wanted = MODULES.filter((module) => command !== undefined && module.commands.includes(command));
  return wanted.length === 0 || ALL_MODULES_FOR.some((word) => words.includes(word)) ? MODULES : wanted;
}

async function makeProgram(words: string[]): Promise<Command> {
  const program = new Command('collimate')
    .description('Behaviour logs and item text in, a served top-K list per user out.')
    .version(projectVersion(), '--version', 'print the version')
    .option('--home <dir>', 'state home (default: $COLLIMATE_HOME, else ./.collimate)')
    .addOption(
      new Option('-o, --output <format>', 'form of the data on stdout').choices(['text', 'json']).default('text'),
    )
    .showSuggestionAfterError()
    .configureHelp({ showGlobalOptions: true, sortSubcommands: false })
    .addHelpText('after', EXIT_CODES_HELP);
  for (const module of modulesFor(words)) (await module.load())(program);
  for (const command of [program, ...program.commands.flatMap((one) => [one, ...one.commands])]) command.exitOverride();
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
  const program = await makeProgram(process.argv.slice(2));
  await program.parseAsync();
  process.exit();
} catch (error) {
  process.exit(exitCodeOf(error));
}
