"""The one exception for input that the caller can mend."""


class InputError(ValueError):
    """Bad input: a missing file, a wrong column, an unknown name, sizes that do not fit.

    The message is one sentence that states the rule, what was received and the remedy.
    The commands print it and exit with code 1; any other exception is a defect of ours
    and keeps its traceback.
    """
