/**
 * Completion scripts for shells, made from the commands themselves: what may follow each chain of subcommands.
 *
 * 1. A script holds words only and calls nothing: completing is instant and needs no server.
 * 2. After the last subcommand files complete too, since most arguments are files or ids.
 */
import { type Command } from 'commander';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

interface Place {
  /** Subcommands up to here; the program itself has none. */
  path: string[];
  /** Subcommands that may follow, with what they do. */
  commands: { name: string; description: string }[];
  options: { flag: string; description: string }[];
}

export function completionScript(shell: Shell, program: Command): string {
  const places = placesOf(program);
  if (shell === 'fish') return fishScript(places);
  const script = bashScript(places);
  return shell === 'bash' ? script : `autoload -U +X bashcompinit && bashcompinit\n${script}`;
}

/** Every chain of subcommands, the program first. */
export function placesOf(program: Command): Place[] {
  const globals = optionsOf(program);
  const walk = (command: Command, path: string[]): Place[] => {
    const visible = command.createHelp().visibleCommands(command);
    const own = path.length === 0 ? [] : optionsOf(command);
    return [
      {
        path,
        commands: visible.map((one) => ({ name: one.name(), description: one.description() })),
        options: [...own, ...globals, { flag: '--help', description: 'display help' }],
      },
      ...visible.filter((one) => one.name() !== 'help').flatMap((one) => walk(one, [...path, one.name()])),
    ];
  };
  return walk(program, []);
}

function optionsOf(command: Command): Place['options'] {
  return command.options
    .filter(({ hidden }) => !hidden)
    .flatMap(({ long, description }) => (long == null ? [] : [{ flag: long, description }]));
}

/** Bash 3.2 has no associative arrays: a case for each chain. */
function bashScript(places: readonly Place[]): string {
  const cases = places.map(({ path, commands, options }) => {
    const words = [...commands.map(({ name }) => name), ...options.map(({ flag }) => flag)];
    return `    ${JSON.stringify(path.join(' '))}) words=${JSON.stringify(words.join(' '))} ;;`;
  });
  const chains = places.filter(({ path }) => path.length > 0).map(({ path }) => `"${path.join(' ')}"`);
  return [
    '_collimate() {',
    '  local current="${COMP_WORDS[COMP_CWORD]}" path="" longer words="" i',
    '  for ((i = 1; i < COMP_CWORD; i++)); do',
    '    longer="${path:+$path }${COMP_WORDS[i]}"',
    `    case "$longer" in ${chains.join(' | ')}) path="$longer" ;; esac`,
    '  done',
    '  case "$path" in',
    ...cases,
    '  esac',
    '  COMPREPLY=($(compgen -W "$words" -- "$current"))',
    '}',
    'complete -o default -F _collimate collimate',
    '',
  ].join('\n');
}

function fishScript(places: readonly Place[]): string {
  const lines = places.flatMap(({ path, commands, options }) => {
    const seen = path.map((word) => `__fish_seen_subcommand_from ${word}`);
    const following = commands.map(({ name }) => name).join(' ');
    const none = following === '' ? [] : [`not __fish_seen_subcommand_from ${following}`];
    const when = [...seen, ...none].join('; and ');
    const condition = when === '' ? '' : ` -n ${quoted(when)}`;
    return [
      ...commands.map((one) => `complete -c collimate${condition} -a ${one.name} -d ${quoted(one.description)}`),
      ...options.map(
        ({ flag, description }) => `complete -c collimate${condition} -l ${flag.slice(2)} -d ${quoted(description)}`,
      ),
    ];
  });
  return `${lines.join('\n')}\n`;
}

function quoted(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}
