"""`impactreg completion SHELL`: prints what makes a shell complete verbs, flags, their choices and parameter maps."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module

from impactreg.cli.arguments import Parser

EXAMPLES = """examples:
  impactreg completion bash > ~/.local/share/bash-completion/completions/impactreg
  source <(impactreg completion zsh)
  impactreg completion fish > ~/.config/fish/completions/impactreg.fish"""
Flags = dict[str, Sequence[str]]
"""The flags of a verb, each with the words that may follow it (none: a file, a number or nothing)."""


def run(arguments: Sequence[str]) -> None:
    """Prints the script of a shell; raises `UsageError`."""
    shell = parser().read(arguments).shell
    sys.stdout.write(_SHELLS[shell]({verb: _flags(verb) for verb in _verbs()}))


def parser() -> Parser:
    """The flags."""
    result = Parser("impactreg completion", "Prints what makes a shell complete this command.", EXAMPLES)
    result.add_argument("shell", choices=list(_SHELLS), help="the shell")
    return result


def _verbs() -> list[str]:
    from impactreg.cli import VERBS

    return list(VERBS)


def _flags(verb: str) -> Flags:
    from impactreg.cli import VERBS
    from impactreg.parameters import presets

    found: Flags = {}
    for action in import_module(VERBS[verb][0]).parser()._actions:
        words = [str(each) for each in action.choices or ()]
        if action.dest == "parameters":
            words = [name.rpartition("/")[2] for name in presets.names()]
        if action.help != argparse.SUPPRESS:
            found.update(dict.fromkeys(action.option_strings, words))
    return found


def _bash(verbs: dict[str, Flags]) -> str:
    lines = [
        "_impactreg() {",
        '    local current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" verb=register words=',
        f'    case "${{COMP_WORDS[1]}}" in {"|".join(verbs)}) verb="${{COMP_WORDS[1]}}" ;; esac',
        '    case "$verb $before" in',
        *(f'        "{verb} {flag}") words={_quoted(words)} ;;' for verb, flag, words in _choices(verbs)),
        "    esac",
        '    if [ -z "$words" ]; then',
        '        case "$verb $current" in',
        *(f'            "{verb} -"*) words={_quoted(flags)} ;;' for verb, flags in verbs.items()),
        "        esac",
        f'        [ "$COMP_CWORD" -gt 1 ] || words="$words "{_quoted(verbs)}',
        "    fi",
        '    COMPREPLY=($(compgen -W "$words" -- "$current") $(compgen -f -- "$current"))',
        "}",
        "complete -o filenames -F _impactreg impactreg",
    ]
    return "\n".join(lines) + "\n"


def _zsh(verbs: dict[str, Flags]) -> str:
    return "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" + _bash(verbs)


def _fish(verbs: dict[str, Flags]) -> str:
    others = " ".join(verb for verb in verbs if verb != "register")
    lines = [f"complete -c impactreg -n __fish_use_subcommand -a {_quoted(verbs)}"]
    for verb, flags in verbs.items():
        seen = (
            f"not __fish_seen_subcommand_from {others}" if verb == "register" else f"__fish_seen_subcommand_from {verb}"
        )
        for flag, words in flags.items():
            name = f"-l {flag[2:]}" if flag.startswith("--") else f"-o {flag[1:]}"
            lines.append(f"complete -c impactreg -n '{seen}' {name}{f' -ra {_quoted(words)}' if words else ''}")
    return "\n".join(lines) + "\n"


def _choices(verbs: dict[str, Flags]) -> Iterator[tuple[str, str, Sequence[str]]]:
    return ((verb, flag, words) for verb, flags in verbs.items() for flag, words in flags.items() if words)


def _quoted(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


_SHELLS: dict[str, Callable[[dict[str, Flags]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
