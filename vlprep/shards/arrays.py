"""NumPy arrays into Arrow columns, and Arrow columns as NumPy views.

Shape suffixes: N entries of one row's list, D size of a vector, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlprep.errors import ItemError


def checked_value(field: pa.Field, value: Any) -> Any:
    """One row's value of a column, ready for `column_of`: a copy of its own, in the column's type and shape.

    Raises `ItemError` for data that the column cannot keep (not finite, beyond float16, text that is not Unicode), and
    `ValueError` or `TypeError` for what only a programming error gives: a wrong shape or kind, an integer too large.
    """
    if pa.types.is_list(field.type):
        return _checked_array(field, np.asarray(value))
    if value is None and not field.nullable:
        raise ValueError(f"column {field.name} needs a value")
    try:
        pa.scalar(value, type=field.type)
    except UnicodeEncodeError as error:
        raise ItemError(f"{field.name} is not valid Unicode: {value!r}") from error
    return value


def column_of(field: pa.Field, values: Sequence[Any]) -> pa.Array:
    """The checked values of B rows as one Arrow array."""
    if not pa.types.is_list(field.type):
        return pa.array(values, type=field.type)
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    flat, vector = np.concatenate(values), field.type.value_type
    if pa.types.is_fixed_size_list(vector):
        entries = pa.FixedSizeListArray.from_arrays(
            pa.array(flat.reshape(-1), type=vector.value_type), vector.list_size
        )
    else:
        entries = pa.array(flat, type=vector)
    return pa.ListArray.from_arrays(pa.array(offsets), entries)


def row_views(column: pa.Array) -> Callable[[int], Any]:
    """A function from a row number to its value: a read-only (N,) or (N, D) view of the column, or a Python scalar."""
    if not pa.types.is_list(column.type):
        return lambda row: column[row].as_py()
    offsets: list[int] = column.offsets.to_numpy().tolist()
    entries: NDArray[Any] = flat_entries(column)
    return lambda row: entries[offsets[row] : offsets[row + 1]]


def flat_entries(column: pa.Array) -> NDArray[Any]:
    """All entries of a list column as one view of shape (sum of N,) or (sum of N, D)."""
    entries, vector = column.values, column.type.value_type
    is_vectors = pa.types.is_fixed_size_list(vector)
    flat: NDArray[Any] = (entries.values if is_vectors else entries).to_numpy(zero_copy_only=True)
    return flat.reshape(-1, vector.list_size) if is_vectors else flat


def _checked_array(field: pa.Field, array: NDArray[Any]) -> NDArray[Any]:
    inner = field.type.value_type
    if pa.types.is_fixed_size_list(inner):
        dtype, shape_ok = inner.value_type.to_pandas_dtype(), array.ndim == 2 and array.shape[1] == inner.list_size
        wanted = f"(N, {inner.list_size})"
    else:
        dtype, shape_ok, wanted = inner.to_pandas_dtype(), array.ndim == 1, "(N,)"
    if not shape_ok:
        raise ValueError(f"column {field.name} takes shape {wanted}, got {array.shape}")
    if np.issubdtype(dtype, np.floating):
        return _checked_reals(field.name, array, dtype)
    limits = np.iinfo(dtype)
    if array.size and (array.dtype.kind not in "iu" or array.min() < limits.min or array.max() > limits.max):
        raise ValueError(
            f"column {field.name} takes integers from {limits.min} to {limits.max}, got {array.dtype} beyond"
        )
    return array.astype(dtype)


def _checked_reals(name: str, array: NDArray[Any], dtype: type[np.floating[Any]]) -> NDArray[Any]:
    if array.size:
        low, high = float(array.min()), float(array.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ItemError(f"{name} has values that are not finite")
        largest = max(high, -low)
        if largest > float(np.finfo(dtype).max):
            raise ItemError(f"{name} reaches {largest:g}, beyond {np.dtype(dtype)}; --store-dtype float32 keeps it")
    return array.astype(dtype)
