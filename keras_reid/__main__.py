"""Program `keras-reid COMMAND`, also `python -m keras_reid COMMAND`.

A command is imported when it is called, so that the list of commands is printed at once.
"""

import sys
from pkgutil import resolve_name

# The function of each command, and its line in the list of commands.
COMMANDS = {
    "train": ("keras_reid.cli.train:run", "Train a model on a data set and score it."),
    "evaluate": ("keras_reid.cli.evaluate:run", "Score a model, or features of files."),
    "export": ("keras_reid.cli.export:run", "Write a model for servers and other runtimes."),
    "search": ("keras_reid.cli.search:run", "Enrol persons in a gallery and search for them."),
    "cluster": ("keras_reid.cli.cluster:run", "Group images by person."),
    "track": ("keras_reid.cli.track:run", "Follow persons through a video."),
    "embed": ("keras_reid.cli.embed:run", "Write embeddings of any number of images to files."),
    "crop": ("keras_reid.cli.crop:run", "Write crops of the persons in photos."),
    "demo": ("keras_reid.demo.__main__:run", "Serve a search page for a browser."),
}
COMPLETION = "Print a script that completes commands and flags: bash or zsh."
USAGE = """`keras-reid COMMAND --flag=value …`: person re-identification.

commands:
{commands}

`keras-reid COMMAND --help` lists the flags of a command."""


def usage() -> str:
    """Return the list of commands."""
    lines = {name: line for name, (_, line) in COMMANDS.items()} | {"completion": COMPLETION}
    return USAGE.format(commands="\n".join(f"  {name:<11} {line}" for name, line in lines.items()))


def main() -> None:
    """Run the command that the first argument names, with the other arguments."""
    program, *arguments = sys.argv
    name, *rest = arguments or ["--help"]
    if name in COMMANDS:
        sys.argv = [program, *rest]
        resolve_name(COMMANDS[name][0])()
        return
    from keras_reid.cli import completion, options

    if name in ("-h", *(f"--{word}" for word in options.HELP)):
        options.print_text(usage())
    elif name == "completion":
        completion.main(rest, COMMANDS)
    else:
        known = ", ".join([*COMMANDS, "completion"])
        options.print_error(f"The command must be one of {known}, got {name!r}.")
        sys.exit(2)


if __name__ == "__main__":
    main()
