"""Options of a command: fields of a dataclass, which are its flags on the command line.

The dataclass is all that a command knows, so that a notebook runs one as
`evaluate(EvaluateOptions(run="runs/market1501-bot-1"))`.
"""

import dataclasses
import io
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, NoReturn, get_args

from absl import app, flags, logging

from keras_reid.cli.memory import keep_memory
from keras_reid.errors import InputError, printable
from keras_reid.inference import runs

FLAGS = flags.FLAGS
MOST = 2**32  # of a whole number
FLAG = re.compile(r"(--?)([a-zA-Z][\w-]*)(=.*)?", re.DOTALL)
DEFINERS: dict[Any, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}
Fields = Sequence[dataclasses.Field[Any]]
# Names of flags in version 0.2.0, and those that replaced them.
RENAMED = {
    **runs.RENAMED,
    "check_others": "num_check_distractors",
    "k": "top_k",
    "like": "base_run",
    "sheet": "contact_sheet",
    "soft_margin": "margin=soft",
}


def option(
    meaning: str,
    default: Any = None,
    *,
    choices: Sequence[str] = (),
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """A field of options.

    Args:
        meaning: the help of the flag.
        default: its value if nothing is said.
        choices: the words that it can be.
        least, most: bounds of a number.
    """
    about = {"help": meaning, "default": default, "choices": choices, "bounds": (least, most)}
    return dataclasses.field(default=default, metadata=about)


def define(fields: Fields, values: flags.FlagValues = FLAGS) -> None:
    """Flags of the names and types of the fields."""
    for one in fields:
        about = one.metadata
        kind = get_args(one.type)[0] if isinstance(one.type, UnionType) else one.type
        given = (one.name, about.get("default"))
        if words := about.get("choices"):
            flags.DEFINE_enum(*given, list(words), about["help"], flag_values=values)
        else:
            bounds = about.get("bounds", ()) if kind in (int, float) else ()
            definer = DEFINERS.get(kind, flags.DEFINE_list)
            definer(*given, about["help"], *bounds, flag_values=values)


class Command:
    """A console script of `act(options)`: bad input ends in one sentence and exit code 1.

    Exit codes: 0 for success and help; 1 for bad input, or if the system refused something; 2 for
    an unknown flag, or a word where there are only flags; 130 if interrupted.

    Args:
        act: what the command does.
        options: a dataclass of `option`s.
        shown: names of flags in words, which --help shows; --helpfull shows all.
        settings: further flags; those that are given are the dict `settings` of the options.
        words: whether there may be what is no flag, which then is `words` of the options.
    """

    def __init__(
        self,
        act: Callable[[Any], Any],
        options: type,
        *shown: str,
        settings: Fields = (),
        words: bool = False,
    ) -> None:
        self.act = act
        self.options = options
        self.shown = " ".join(shown).split()
        self.settings = settings
        self.words = words

    @property
    def fields(self) -> list[dataclasses.Field[Any]]:
        """Of all flags."""
        own = [one for one in dataclasses.fields(self.options) if "help" in one.metadata]
        return [*own, *self.settings]

    def main(self, argv: list[str], values: flags.FlagValues = FLAGS) -> None:
        """Acts by what the flags say, and ends the process where it cannot."""
        if isinstance(sys.stdout, io.TextIOWrapper):  # whose code page may lack letters of a name
            sys.stdout.reconfigure(errors="replace")
        given = {one.name: values[one.name].value for one in self.fields}
        if argv[1:] and not self.words:
            _tell_error(f"flags begin with --: received {argv[1:]}")
            sys.exit(2)
        try:
            _check_numbers(given)
            if self.settings:
                said = {one.name: given.pop(one.name) for one in self.settings}
                given["settings"] = {k: value for k, value in said.items() if value is not None}
            if self.words:
                given["words"] = tuple(argv[1:])
            options = self.options(**given)
            _check_backend()
            self.act(options)
        except InputError as error:
            _tell_error(_with_flag(error, values))
            sys.exit(1)
        except BrokenPipeError:
            _exit_closed_pipe()
        except (OSError, MemoryError) as error:
            _tell_error(_of_system(error))
            sys.exit(1)
        except KeyboardInterrupt:
            print("\ninterrupted: the same command goes on where it was", file=sys.stderr)
            sys.exit(130)

    def __call__(self) -> None:
        """Runs as the script that was started."""
        keep_memory()
        define(self.fields)
        # absl shows the help, and the flags, of the script that was started.
        sys.modules["__main__"].__doc__ = sys.modules[self.act.__module__].__doc__
        for name in self.shown:
            FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])
        logging.set_verbosity(logging.WARNING)
        try:
            argv = [sys.argv[0], *map(_with_underscores, sys.argv[1:])]
            app.run(self.main, argv, flags_parser=parsed)
        except BrokenPipeError:  # of the help
            _exit_closed_pipe()


def parsed(argv: list[str], values: flags.FlagValues = FLAGS) -> list[str]:
    """Parse flags and return the other words; print help, or one line for a flag that is wrong."""
    try:
        return list(values(argv))
    except SystemExit:  # absl exits with 1 after help
        sys.stdout.flush()
        sys.exit(0)
    except flags.Error as error:
        text = " ".join(str(error).split())
        text += "" if text.endswith((".", "?")) else "."
        unknown = isinstance(error, flags.UnrecognizedFlagError)
        old = getattr(error, "flagname", "")
        new = RENAMED.get(old, "")
        if new and new.partition("=")[0] in values:
            text = f"the flag --{old} is now called --{new}."
        _tell_error(printable(f"{text} --helpfull lists all flags."))
        sys.exit(2 if unknown else 1)


def _with_underscores(argument: str) -> str:
    """`--data-dir=x-y` as `--data_dir=x-y`; what is no flag as it is."""
    found = FLAG.fullmatch(argument)
    return found[1] + found[2].replace("-", "_") + (found[3] or "") if found else argument


def _exit_closed_pipe() -> NoReturn:
    """Exit with 1; the interpreter flushes stdout to the null device."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def _with_flag(error: InputError, values: Any) -> str:
    """Return the message of an error with the flag in place of the argument."""
    message, name = str(error), error.argument
    if name is None or name not in values:
        return message
    argument = f"`{name}`"
    if argument in message:
        return message.replace(argument, f"--{name}")
    return f"{message} (--{name})"


def _tell_error(text: str) -> None:
    """On stderr; the word is red on a terminal, unless NO_COLOR is set."""
    red = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    word = "\033[31merror:\033[0m" if red else "error:"
    print(f"{word} {text}", file=sys.stderr)


def _of_system(error: Exception) -> str:
    """What the system refused, in one sentence."""
    if not isinstance(error, OSError):
        return "there is not enough memory: give smaller images, batches or caches"
    where = "" if error.filename is None else f" of {error.filename}"
    said = error.strerror or str(error)
    return printable(
        f"the system said '{said}'{where}: make room, or ask for permission; what is not whole "
        "was not written"
    )


def _check_backend() -> None:
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise InputError(
            f"`KERAS_BACKEND` must be tensorflow for the commands, got {backend!r}. Unset it."
        )


def _check_numbers(given: dict[str, Any]) -> None:
    for name, value in given.items():
        if isinstance(value, float) and math.isnan(value):
            raise InputError(f"{name} is a number: received nan; give one", name)
        if isinstance(value, int) and abs(value) > MOST:
            raise InputError(f"{name} is at most {MOST:,}: received {value}; give another", name)
