"""The one exception for input that the caller can mend."""


class InputError(ValueError):
    """Bad input: a missing file, a wrong column, an unknown name, sizes that do not fit.

    The commands print it and exit with code 1; any other exception is a defect of ours
    and keeps its traceback.

    Args:
        message: one sentence that states the rule, what was received and the remedy.
        argument: the name of what the remedy is about, if there is one; a command that has a flag
            of that name adds it to the message.
    """

    def __init__(self, message: str, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument
