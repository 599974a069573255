from __future__ import annotations

import collections
import io
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest

from vlprep import safe_pickle
from vlprep.errors import SettingsError


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_come_back(protocol: int) -> None:
    content = {
        "float": np.arange(6, dtype=np.float32).reshape(2, 3),
        "big endian": np.arange(3, dtype=">i4"),
        "fortran": np.asfortranarray(np.eye(3)),
        "scalar": np.float64(1.5),
        "objects": np.array({"boxes": [1, b"raw", "text", None]}, dtype=object),
        "plain": collections.OrderedDict(a=(1, 2.5), b={3}, c=frozenset({4}), d=bytearray(b"x"), e=1j),
    }
    found = safe_pickle.load(io.BytesIO(pickle.dumps(content, protocol)))
    assert found.keys() == content.keys()
    for name in ("float", "big endian", "fortran"):
        np.testing.assert_array_equal(found[name], content[name])
        assert found[name].dtype.kind == content[name].dtype.kind
    assert found["scalar"] == 1.5
    assert found["objects"].item() == content["objects"].item()
    assert found["plain"] == content["plain"]


def test_arrays_of_python_2() -> None:
    """As NumPy 1 wrote them there with protocol 2: raw bytes in a str, modules by their old names."""
    data = (
        b"\x80\x02}q\x01U\x01wq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85q\x05"
        b"U\x01bq\x06\x87q\x07Rq\x08(K\x01K\x02\x85q\tcnumpy\ndtype\nq\nU\x02f4q\x0bK\x00K\x01\x87q\x0cRq\r(K\x03U\x01<q\x0e"
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0fb\x89U\x08\x00\x00\xc0?\x00\x00\xa0\xc0q\x10tq\x11bs."
    )
    np.testing.assert_array_equal(safe_pickle.load(io.BytesIO(data))["w"], np.float32([1.5, -5]))


class _Calls:
    def __init__(self, function: object, *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self._call  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("attack", "named"),
    [
        (_Calls(os.system, "touch pwned"), "system"),
        (_Calls(subprocess.Popen, ["touch", "pwned"]), "subprocess.Popen"),
        (_Calls(eval, "1"), "builtins.eval"),
        (_Calls(getattr, 1, "real"), "builtins.getattr"),
        (np.load, "numpy"),
        (Path("x"), "pathlib"),
    ],
)
def test_anything_else_is_refused_by_name(tmp_path: Path, attack: object, named: str) -> None:
    file = tmp_path / "weights.pkl"
    file.write_bytes(pickle.dumps({"model": attack}))
    with pytest.raises(SettingsError, match=named) as caught:
        safe_pickle.load(file)
    assert str(file) in str(caught.value)
    assert not list(tmp_path.glob("pwned"))


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    whole = pickle.dumps({"w": np.ones(10)}, 2)
    file = tmp_path / "weights.pkl"
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        with pytest.raises(SettingsError, match=r"weights\.pkl"):
            safe_pickle.load(file)


def test_an_open_file_is_read_from_where_it_is() -> None:
    """As importers of `.npy` need it: a header, then a pickle."""
    file = io.BytesIO(b"header" + pickle.dumps([1]))
    file.seek(6)
    assert safe_pickle.load(file) == [1]
