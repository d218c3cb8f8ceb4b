"""The one exception for input that the caller can mend."""

import unicodedata


class InputError(ValueError):
    """Bad input: a missing file, a wrong column, an unknown name, sizes that do not fit.

    The commands print it and exit with code 1; any other exception is a defect of ours
    and keeps its traceback.

    Args:
        message: one sentence that states the rule, what was received and the remedy.
        argument: the name of what the remedy is about, if there is one; a command that has a flag
            of that name adds it to the message.
    """

    # AutoGraph replaces other exceptions in a `tf.function` by a StagingError with a traceback.
    ag_pass_through = True

    def __init__(self, message: str, argument: str | None = None) -> None:
        super().__init__(printable(message))
        self.argument = argument


def printable(text: str) -> str:
    r"""Text that does nothing to a terminal: control characters are written as `\x1b`.

    So are halves of pairs, by which Python stands in for bytes of a file name that are no UTF-8.
    """
    return "".join(c if _harmless(c) else ascii(c)[1:-1] for c in text)


def _harmless(character: str) -> bool:
    return character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")


def first_line(error: Exception) -> str:
    """Of what an exception of others says, at most 160 characters."""
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else repr(error)


def counted(count: int, singular: str) -> str:
    """Return the number and the noun in its form: `1 image`, `2,000 images`, `0 identities`."""
    plural = singular[:-1] + "ies" if singular.endswith("y") else singular + "s"
    return f"{count:,} {singular if count == 1 else plural}"
