"""Options of a command: fields of a dataclass, which are its flags on the command line.

The dataclass holds all input of a command, so a notebook runs one as
`evaluate(EvaluateOptions(run="runs/market1501-bot-1"))`.
"""

import dataclasses
import inspect
import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, NoReturn, get_args

from absl import app, flags, logging

from keras_reid.cli.memory import keep_memory
from keras_reid.errors import InputError, invalid, printable
from keras_reid.inference import runs

FLAGS = flags.FLAGS
MOST = 2**32  # maximum of a number
FLAG = re.compile(r"(--?)([a-zA-Z][\w-]*)(=.*)?", re.DOTALL)
DEFINERS: dict[Any, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}
Fields = Sequence[dataclasses.Field[Any]]
# Flags of version 0.2.0 and their new names.
RENAMED = {
    **runs.RENAMED,
    "check_others": "num_check_distractors",
    "k": "top_k",
    "like": "base_run",
    "output": "format",
    "sheet": "contact_sheet",
    "soft_margin": "margin=soft",
    "video": "source",
}
RENAMED_VALUES = {"distance=global": "distance=euclidean"}
HELP = {"help", "helpshort", "helpfull"}
# Headings in the help, in their order.
TOPICS = ("data", "model", "gallery", "recipe", "objective", "schedule", "evaluation", "output")


def option(
    text: str,
    default: Any = None,
    *,
    choices: Sequence[str] = (),
    least: float | None = None,
    most: float | None = None,
    topic: str = "",
) -> Any:
    """Return a field of options.

    Args:
        text: help of the flag.
        default: value if the flag is not set.
        choices: allowed values; the help lists them, unless `text` has all of them.
        least: minimum of a number.
        most: maximum of a number.
        topic: heading in the help; by default the `topic` of the class.
    """
    metadata = {
        "help": text,
        "default": default,
        "choices": choices,
        "bounds": (least, most),
        "topic": topic,
    }
    return dataclasses.field(default=default, metadata=metadata)


def reject(*faults: tuple[Any, str]) -> None:
    """Raise the message of the first fault with a true condition.

    Args:
        faults: pairs of a condition, such as conflicting flags, and a message.
    """
    for condition, message in faults:
        if condition:
            raise InputError(message)


def define(fields: Fields, values: flags.FlagValues = FLAGS) -> None:
    """Define flags with the names and types of the fields."""
    for one in fields:
        metadata = one.metadata
        kind = get_args(one.type)[0] if isinstance(one.type, UnionType) else one.type
        arguments = (one.name, metadata.get("default"))
        if choices := metadata.get("choices"):
            flags.DEFINE_enum(*arguments, list(choices), metadata["help"], flag_values=values)
        else:
            bounds = metadata.get("bounds", ()) if kind in (int, float) else ()
            definer = DEFINERS.get(kind, flags.DEFINE_list)
            definer(*arguments, metadata["help"], *bounds, flag_values=values)


class Command:
    """Console script of `act(options)`: invalid input is one sentence on stderr and exit code 1.

    Exit codes: 0 for success and help; 1 for invalid input, or an error of the system; 2 for an
    unknown flag, or an argument that is not a flag; 130 if interrupted.

    Args:
        act: function of the command.
        options: dataclass of `option`s.
        shown: names of the flags in --help; --helpfull lists all.
        settings: further flags; those with a value are the dict `settings` of the options.
        words: subcommands; empty: none. Arguments that are not flags become `words` of the
            options. None: there are no such arguments.
    """

    def __init__(
        self,
        act: Callable[[Any], Any],
        options: type,
        *shown: str,
        settings: Fields = (),
        words: Sequence[str] | None = None,
    ) -> None:
        self.act = act
        self.options = options
        self.shown = " ".join(shown).split()
        self.settings = settings
        self.words = words

    @property
    def fields(self) -> list[dataclasses.Field[Any]]:
        """Fields of all flags; the class variable `unused` names inherited ones without effect."""
        unused = getattr(self.options, "unused", "").split()
        own = (one for one in dataclasses.fields(self.options) if one.name not in unused)
        return [*(one for one in own if "help" in one.metadata), *self.settings]

    def help_text(self, full: bool) -> str:
        """Return the usage, and the flags by topic: those of `shown`, or all."""
        usage = inspect.getdoc(sys.modules[self.act.__module__]) or ""
        *first, last = TOPICS
        topics: dict[str, list[str]] = {name: [] for name in (*first, self.act.__name__, last)}
        for one in self.fields:
            if full or one.name in self.shown:
                topics.setdefault(self._topic(one), []).append(_flag_help(one))
        parts = [f"{topic}:\n" + "\n".join(texts) for topic, texts in topics.items() if texts]
        more = [] if full else ["--helpfull lists all flags."]
        return "\n\n".join([usage, "flags:", *parts, *more])

    def _topic(self, one: dataclasses.Field[Any]) -> str:
        if topic := one.metadata.get("topic"):
            return str(topic)
        owners = (c for c in self.options.__mro__ if one.name in inspect.get_annotations(c))
        owner = next(owners, None)
        return "recipe" if owner is None else vars(owner).get("topic", self.act.__name__)

    def main(self, argv: list[str], values: flags.FlagValues = FLAGS) -> None:
        """Run the command with the parsed flags; exit the process on errors."""
        if isinstance(sys.stdout, io.TextIOWrapper):  # its code page may lack letters of a name
            sys.stdout.reconfigure(errors="replace")
        arguments = {one.name: values[one.name].value for one in self.fields}
        if argv[1:] and self.words is None:
            print_error(f"Flags start with --, got {' '.join(argv[1:])}.")
            sys.exit(2)
        try:
            _check_numbers(arguments)
            if self.settings:
                settings = {one.name: arguments.pop(one.name) for one in self.settings}
                arguments["settings"] = {k: v for k, v in settings.items() if v is not None}
            if self.words is not None:
                arguments["words"] = tuple(argv[1:])
            options = self.options(**arguments)
            _check_backend()
            self.act(options)
        except InputError as error:
            print_error(_with_flag(error, values))
            sys.exit(1)
        except BrokenPipeError:
            _exit_closed_pipe()
        except UnicodeEncodeError as error:  # a file name, in TensorFlow or Arrow
            print_error(f"{printable(error.object)} must be UTF-8. Choose another name.")
            sys.exit(1)
        except (OSError, MemoryError) as error:
            print_error(_system_message(error))
            sys.exit(1)
        except KeyboardInterrupt as interrupt:
            text = str(interrupt) or "Interrupted. The same command resumes."
            print(f"\n{text}", file=sys.stderr)
            sys.exit(130)

    def __call__(self) -> None:
        """Run as the script of the process."""
        keep_memory()
        define(self.fields)
        logging.set_verbosity(logging.WARNING)
        argv = [sys.argv[0], *map(_with_underscores, sys.argv[1:])]
        if wanted := HELP & {word.lstrip("-") for word in argv if word.startswith("-")}:
            print_text(self.help_text("helpfull" in wanted))
            sys.exit(0)
        app.run(self.main, argv, flags_parser=parsed)


def _flag_help(one: dataclasses.Field[Any]) -> str:
    """Return the lines of a flag in the help: name, text, allowed values and default."""
    metadata = one.metadata
    name = f"[no]{one.name}" if one.type in (bool, bool | None) else one.name
    choices, default = metadata.get("choices") or (), metadata.get("default")
    text = f"--{name}: {metadata['help']}"
    if not all(choice in metadata["help"] for choice in choices):
        text += f" One of {', '.join(choices)}."
    if default is not None and not isinstance(default, bool):
        text += f" Default: {default}."
    return textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="    ")


def parsed(argv: list[str], values: flags.FlagValues = FLAGS) -> list[str]:
    """Parse flags and return the other words; print one line for an invalid flag and exit."""
    try:
        return list(values(argv))
    except flags.Error as error:
        text = " ".join(str(error).split())
        text += "" if text.endswith((".", "?")) else "."
        unknown = isinstance(error, flags.UnrecognizedFlagError)
        old = getattr(error, "flagname", "")
        new = RENAMED.get(old, "")
        if new and new.partition("=")[0] in values:
            text = f"the flag --{old} is now called --{new}."
        for old, new in RENAMED_VALUES.items():
            if text.startswith(f"flag --{old}:"):
                text = f"--{old} is now called --{new}."
        print_error(printable(f"{text} --helpfull lists all flags."))
        sys.exit(2 if unknown else 1)


def _with_underscores(argument: str) -> str:
    """Return `--data_dir=x-y` for `--data-dir=x-y`, and other arguments unchanged."""
    match = FLAG.fullmatch(argument)
    return match[1] + match[2].replace("-", "_") + (match[3] or "") if match else argument


def print_text(text: str) -> None:
    """Print a text; exit with 1 if the reader of a pipe closes it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _exit_closed_pipe()


def _exit_closed_pipe() -> NoReturn:
    """Exit with 1; the interpreter flushes stdout to the null device."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def _with_flag(error: InputError, values: Any) -> str:
    """Return the message of an error with the flag in place of the argument."""
    message, name = str(error).replace("`overwrite`", "--overwrite"), error.argument
    if name is None or name not in values:
        return message
    argument = f"`{name}`"
    if argument in message:
        return message.replace(argument, f"--{name}")
    return f"{message} (--{name})"


def print_error(text: str) -> None:
    """Print an error on stderr; the prefix is red on a terminal, unless NO_COLOR is set."""
    red = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    word = "\033[31merror:\033[0m" if red else "error:"
    print(f"{word} {text}", file=sys.stderr)


def _system_message(error: Exception) -> str:
    """Return the message of a failed system call or allocation."""
    if not isinstance(error, OSError):
        return "Not enough memory. Use smaller images, batches or caches."
    where = "" if error.filename is None else f" of {error.filename}"
    text = printable(f"{error.strerror or error}{where}")
    return f"{text}. Check disk space and permissions. Incomplete outputs were not written."


def _check_backend() -> None:
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise invalid("KERAS_BACKEND", "tensorflow for the commands", backend, "Unset it.")


def _check_numbers(arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        if isinstance(value, int | float) and not abs(value) <= MOST:
            raise invalid(name, f"a number from -{MOST:,} to {MOST:,}", value)
