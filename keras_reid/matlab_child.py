"""`python matlab_child.py FILE.mat`: its arrays on stdout, as `numpy.savez` writes them.

A program of its own, which `keras_reid.foreign.read_matlab` starts: the parser of SciPy can crash
on a broken file.
"""

import sys
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np

MOST_BYTES = 2**33


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Arrays of numbers and texts; the fields of structures by "structure/field"."""
    for name, value in values.items():
        if name.startswith("_"):
            continue
        if hasattr(value, "_fieldnames"):
            yield from flat(vars(value), f"{prefix}{name}/")
            continue
        array = np.asarray(value)
        if array.dtype.hasobject:
            array = array.astype(str)
        yield prefix + name, array


def main(file: str) -> None:
    """Reads the file, and writes."""
    from scipy.io import loadmat

    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except ImportError:  # Windows
        pass
    values = loadmat(file, squeeze_me=True, struct_as_record=False)
    content = BytesIO()
    np.savez(content, **dict(flat(values)))  # type: ignore[arg-type]
    sys.stdout.buffer.write(content.getvalue())


if __name__ == "__main__":
    main(sys.argv[1])
