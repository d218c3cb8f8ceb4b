"""`keras-reid completion bash|zsh`: a script that completes commands, flags and their values.

For bash, add to ~/.bashrc: eval "$(keras-reid completion bash)"
For zsh, add to ~/.zshrc, after compinit: source <(keras-reid completion zsh)
"""

import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field
from pkgutil import resolve_name
from typing import Any

from keras_reid.cli.options import HELP, Command, print_error, print_text

# Bash separates --flag=value into three words.
BASH = """\
_keras_reid() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} flag= words=
    if [[ $word == "=" ]]; then
        flag=$before word=
    elif [[ $before == "=" ]]; then
        flag=${COMP_WORDS[COMP_CWORD-2]}
    fi
    case "${COMP_WORDS[1]} $flag $((COMP_CWORD > 2)) ${word:0:1}" in
CASES
    esac
    ((COMP_CWORD == 1)) && words="COMMANDS"
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2> /dev/null
    return 0
}
complete -o default -F _keras_reid keras-reid
"""
ZSH = """\
#compdef keras-reid
_keras_reid() {
    local -a commands=(
COMMANDS
    )
    if ((CURRENT == 2)); then
        _describe command commands
        return
    fi
    shift words
    ((CURRENT--))
    case $words[1] in
CASES
    esac
}
compdef _keras_reid keras-reid
"""
Names = Mapping[str, tuple[str, str]]  # the object of each command as module:name, and a sentence


def main(words: Sequence[str], commands: Names) -> None:
    """Print the script of the shell that the only word names."""
    if HELP & {word.lstrip("-") for word in words}:
        print_text(str(__doc__))
    elif len(words) == 1 and words[0] in SCRIPTS:
        print_text(SCRIPTS[words[0]](commands))
    else:
        shells = " or ".join(SCRIPTS)
        print_error(f"completion takes {shells}, got {' '.join(words) or 'nothing'}.")
        sys.exit(2)


def _bash(commands: Names) -> str:
    """Return the script for bash."""
    cases = [case for name, command in _loaded(commands) for case in _bash_cases(name, command)]
    words = " ".join([*commands, "completion"])
    return BASH.replace("CASES", "\n".join(cases)).replace("COMMANDS", words)


def _bash_cases(name: str, command: Command) -> Iterator[str]:
    """Yield the words for flags, for values by flag, and for a subcommand."""
    flags = " ".join(flag for one in command.fields for flag in _flags(one))
    yield f'        "{name}  "[01]" -") words="{flags}" ;;'
    if command.words:
        yield f'        "{name}  0 "*) words="{" ".join(command.words)}" ;;'
    for one in command.fields:
        if choices := one.metadata.get("choices"):
            yield f'        "{name} --{one.name} "*) words="{" ".join(choices)}" ;;'


def _zsh(commands: Names) -> str:
    """Return the script for zsh."""
    lines = {name: line for name, (_, line) in commands.items()}
    listed = [f"        {shlex.quote(f'{name}:{_escaped(line)}')}" for name, line in lines.items()]
    cases = []
    for name, command in _loaded(commands):
        specs = [spec for one in command.fields for spec in _zsh_specs(one)]
        if command.words:
            specs.append(f"1:subcommand:({' '.join(command.words)})")
        arguments = " \\\n".join(f"            {shlex.quote(one)}" for one in specs)
        cases.append(f"        {name}) _arguments \\\n{arguments} '*:file:_files' ;;")
    return ZSH.replace("COMMANDS", "\n".join(listed)).replace("CASES", "\n".join(cases))


def _zsh_specs(one: Field[Any]) -> Iterator[str]:
    """Yield the flag in the form of `_arguments`, with the first sentence of its help."""
    sentence = re.split(r"(?<=\.)\s", one.metadata["help"])[0]
    choices = one.metadata.get("choices")
    values = f"({' '.join(choices)})" if choices else "_files"
    for flag in _flags(one):
        yield f"{flag}[{_escaped(sentence)}]" + (f":value:{values}" if flag.endswith("=") else "")


def _escaped(text: str) -> str:
    return re.sub(r"([\[\]:\\])", r"\\\1", text)


def _flags(one: Field[Any]) -> list[str]:
    """Return the flags of a field: `--name=`, or `--name` and `--noname`."""
    if one.type in (bool, bool | None):
        return [f"--{one.name}", f"--no{one.name}"]
    return [f"--{one.name}="]


def _loaded(commands: Names) -> Iterator[tuple[str, Command]]:
    for name, (path, _) in commands.items():
        yield name, resolve_name(path)


SCRIPTS = {"bash": _bash, "zsh": _zsh}
