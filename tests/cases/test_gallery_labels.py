"""Labels of a gallery are strings or integers; other values raise instead of becoming persons."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from keras_reid import gallery
from keras_reid.errors import InputError

MODEL = "0123456789abcdef"
WRONG = [b"anna", pd.NA, pd.NaT, True, np.True_, ("a", "b"), ["a"], 1.0, np.float32(2), np.nan, 1j]


@pytest.fixture
def people():
    with gallery.open("memory:") as people:
        people.enrol(np.eye(2), ["1", "b"], ["1", ""], images=["x", "y"], model_fingerprint=MODEL)
        yield people


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize("column", ["identities", "cameras", "images", "digests"])
def test_enrol_label_neither_text_nor_integer_raises(column, value, people):
    columns = {"identities": ["c", "d"], "images": ["v", "w"]}
    for other in ("text", value):  # two tuples make a matrix of an array
        columns[column] = [other, value]
        with pytest.raises(InputError, match=f"`{column}` must be a string or an integer, got "):
            people.enrol(np.eye(2), **columns, model_fingerprint=MODEL)
    assert people.identities() == {"1": 1, "b": 1}


@pytest.mark.parametrize("column", ["identities", "cameras", "images", "digests"])
@pytest.mark.parametrize("value", ["ab", b"ab", 12])
def test_enrol_one_value_for_all_rows_raises(column, value, people):
    columns = {"identities": ["c", "d"], "images": ["v", "w"], column: value}
    with pytest.raises(InputError, match=r"list of one value for each of 2 rows, got "):
        people.enrol(np.eye(2), **columns, model_fingerprint=MODEL)


@pytest.mark.parametrize("value", [*WRONG, None], ids=repr)
def test_remove_and_filter_of_other_values_raise(value, people):
    with pytest.raises(InputError, match="`identity` must be a string or an integer, got "):
        people.remove(value)
    for name in ("cameras", "not_cameras"):
        with pytest.raises(InputError, match=f"`{name}` must be a string or an integer, got "):
            gallery.Filter(**{name: [value]})
    assert people.count() == 2


@pytest.mark.parametrize("value", ["1", b"1", 1, 1.0])
def test_filter_of_one_camera_raises(value):
    with pytest.raises(InputError, match="must be a list of cameras"):
        gallery.Filter(cameras=value)


def test_enrol_columns_of_numpy_and_pandas_are_texts_and_numbers(people):
    table = pd.DataFrame({"name": ["c", "d"], "camera": [3, 4], "time": [5.0, np.nan]})
    paths = [Path("c.jpg"), Path("d.jpg")]
    added = people.enrol(
        np.eye(2), table.name, table.camera, table.time.to_numpy(), paths, model_fingerprint=MODEL
    )
    assert added == 2
    numbers = np.array([7, 1], np.int16)
    assert people.enrol(np.eye(2), numbers, np.array(["5", "6"]), model_fingerprint=MODEL) == 2
    assert people.identities() == {"1": 2, "7": 1, "b": 1, "c": 1, "d": 1}
    where = gallery.Filter(cameras=np.array([3, 5]))
    (hits,) = people.search(np.eye(2)[:1], 6, where)
    assert {(hit.image, hit.camera, hit.time) for hit in hits} == {
        ("c.jpg", "3", 5.0),
        ("7#1", "5", None),
    }
    assert people.remove(np.int64(1)) == 2
