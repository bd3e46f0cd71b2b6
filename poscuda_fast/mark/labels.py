"""Labels as users give them -> one class token for each class and one row number for each clip."""

from __future__ import annotations

import contextlib
import dataclasses
import numbers
import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

LABELS_PER_STEP = 1 << 16  # bounds NumPy's copies when it indexes with them
DENSE_LABELS = 1 << 20  # integer labels below this are ranked by a table instead of a sort


@dataclasses.dataclass(frozen=True, slots=True)
class ClassRows:
    """The class of each clip; rows are computed on request, so that any number of clips fits in memory.

    Attributes
    ----------
    tokens : tuple of bytes
        The class token of each row (FORMAT.md, "Secrets"), sorted: equal for equal sets of classes.
    values : (n_clips,) integers
        Integer labels as given (an array is not copied) if all are below `DENSE_LABELS`, otherwise an index for each
        distinct label or name.
    table : (highest value + 1,) int32
        The row of each value.
    """

    tokens: tuple[bytes, ...]
    values: NDArray[Any]
    table: NDArray[np.int32]

    def rows_of(self, clips: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of each of `clips`; `tokens[row]` is its class token."""
        rows: NDArray[np.int64] = self.table[self.values[clips]].astype(np.int64)
        return rows


def integer_token(label: int) -> bytes:
    """The class token of an integer label."""
    return b"i" + label.to_bytes(8, "big")


def name_token(name: str) -> bytes:
    """The class token of a named label; equal for all spellings with the same NFC form."""
    return b"n" + unicodedata.normalize("NFC", name).encode("utf-8")


def label_of(token: bytes) -> str | int:
    """The label that a class token stands for; a name in its NFC form."""
    return token[1:].decode("utf-8") if token[:1] == b"n" else int.from_bytes(token[1:], "big")


def encode(labels: Any, classes: Sequence[str] | None, n_clips: int) -> ClassRows:
    """Check `labels` against `n_clips` and turn them into tokens and rows.

    Parameters
    ----------
    labels : array or sequence, (n_clips,)
        Integers from 0, or names; with `classes`, indexes into it.
    classes : sequence of str or None
        The class names that integer labels index.

    Raises
    ------
    TypeError
        A label is neither an integer nor a string (a bool is neither), both kinds are mixed, `classes` is given with
        names, or `classes` is not a sequence of names.
    ValueError
        Wrong number or shape of labels; an integer that is negative, 2**64 or more, or beyond `classes`; a name that is
        empty, not valid Unicode or ends in NUL; or `classes` has a name twice.
    """
    values, names = _read(labels)
    if len(values) != n_clips:
        raise ValueError(f"labels has {len(values)} entries for {n_clips} clips; give one label for each clip.")
    if names is not None:
        if classes is not None:
            raise TypeError("labels are names and classes is given too; give names alone, or indexes with classes.")
        return _named(names, values, np.arange(len(names), dtype=np.int32))
    if values.size and int(values.min()) < 0:
        first = int(np.flatnonzero(values < 0)[0])
        raise ValueError(f"labels[{first}] is {values[first]}; integer labels start at 0.")
    present, values, table = _rank(values)
    if classes is None:
        return ClassRows(tuple(integer_token(int(label)) for label in present), values, table)
    names_given = check_classes(classes)
    if present.size and int(present[-1]) >= len(names_given):
        first = int(np.flatnonzero(table[values] == len(present) - 1)[0])
        raise ValueError(f"labels[{first}] is {present[-1]}, but classes has {len(names_given)} names.")
    return _named([names_given[int(label)] for label in present], values, table)


def _named(names: list[str], values: NDArray[Any], table: NDArray[np.int32]) -> ClassRows:
    """Rows for names; spellings with the same NFC form are one class."""
    tokens: dict[bytes, int] = {}
    order = np.empty(len(names), np.int32)
    for index, name in enumerate(names):
        if not name:
            raise ValueError("A label is an empty name; give every clip the name of its class.")
        try:
            token = name_token(name)
        except UnicodeEncodeError:
            raise ValueError(f"The label {name!r} is not valid Unicode text; rename the class.") from None
        order[index] = tokens.setdefault(token, len(tokens))
    # Sorted, because sidecars store rows: a run may then be resumed with its names in another order.
    ranked = {token: rank for rank, token in enumerate(sorted(tokens))}
    ranks = np.array([ranked[token] for token in tokens], np.int32)
    return ClassRows(tuple(ranked), values, ranks[order][table] if len(names) else table)


def check_classes(classes: Sequence[str]) -> list[str]:
    """Class names as a list; TypeError or ValueError unless they are an ordered sequence of different names."""
    if isinstance(classes, str | bytes):
        raise TypeError(f"classes is the single text {classes!r}; give a sequence of class names.")
    if isinstance(classes, Mapping | Set) or not isinstance(classes, Iterable):
        raise TypeError(
            f"classes is a {type(classes).__name__}; give a sequence of class names, in the order that labels index."
        )
    names = list(classes)
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise TypeError(f"classes[{index}] is {name!r}; class names are strings.")
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        first = seen.setdefault(unicodedata.normalize("NFC", name), index)
        if first != index:
            raise ValueError(f"classes names {name!r} twice (entries {first} and {index}); names must be unique.")
    return names


def _rank(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int32]]:
    """The distinct values, sorted; an integer for each clip; and for each such integer the index of its value."""
    if values.size and int(values.max()) >= DENSE_LABELS:
        present, inverse = np.unique(values, return_inverse=True)
        return present, _small(inverse), np.arange(len(present), dtype=np.int32)
    seen = np.zeros(int(values.max()) + 1 if values.size else 0, np.bool_)
    for first in range(0, len(values), LABELS_PER_STEP):
        seen[values[first : first + LABELS_PER_STEP]] = True
    return np.flatnonzero(seen), values, (np.cumsum(seen) - 1).astype(np.int32)


def _small(indexes: NDArray[Any]) -> NDArray[Any]:
    """Indexes in the smallest type that holds them."""
    return indexes.astype(np.min_scalar_type(int(indexes.max(initial=0))))


def _read(labels: Any) -> tuple[NDArray[Any], list[str] | None]:
    """An integer for each label, without coercion; and the names that these are numbers of, or None for integers."""
    if isinstance(labels, str | bytes):
        raise TypeError(f"labels is the single text {labels!r}; give one label for each clip.")
    if not (hasattr(labels, "__array__") or isinstance(labels, Sequence)):
        raise TypeError(f"labels is {labels!r}; expected an array or a sequence with one label for each clip.")
    if not hasattr(labels, "__array__"):
        return _from_sequence(labels if isinstance(labels, list) else list(labels))
    values = np.asarray(labels)
    if values.shape == (0,):
        return np.empty(0, np.int64), None
    if values.dtype.kind == "O":
        return _from_sequence(values.tolist())
    if values.ndim != 1:
        raise ValueError(f"labels has shape {values.shape}; expected one dimension, one label for each clip.")
    if values.dtype.kind == "U":
        return _numbered(values)
    if values.dtype.kind not in "iu":
        raise TypeError(
            f"labels has dtype {values.dtype}; labels are integers from 0 or class names. "
            f"Convert them first, for example labels.astype(np.int64)."
        )
    return values, None


def _from_sequence(items: list[Any]) -> tuple[NDArray[Any], list[str] | None]:
    """NumPy would turn [1, "a"] into text and [True, 2] into numbers: the kinds are checked first."""
    if not items:
        return np.empty(0, np.int64), None
    kinds = set(map(type, items))
    if kinds == {str}:
        return _numbered(items)
    if kinds == {int}:
        with contextlib.suppress(OverflowError):  # one that is beyond int64
            values = np.array(items, np.int64)
            if values.min() >= 0:
                return values, None
    named = isinstance(items[0], str)
    for index, item in enumerate(items):
        is_name = isinstance(item, str)
        if isinstance(item, bool | np.bool_) or not (is_name or isinstance(item, numbers.Integral)):
            raise TypeError(f"labels[{index}] is {item!r}; labels are integers from 0 or class names.")
        if is_name != named:
            raise TypeError(f"labels[{index}] is {item!r} and labels[0] is {items[0]!r}; do not mix numbers and names.")
        if not is_name and not 0 <= item < 2**64:
            raise ValueError(f"labels[{index}] is {item}; integer labels go from 0 to 2**64 - 1.")
    if named:
        return _numbered(items)
    return np.array(items, dtype=np.uint64 if max(items) >= 2**63 else np.int64), None


def _numbered(names: list[str] | NDArray[np.str_]) -> tuple[NDArray[Any], list[str]]:
    """A number for each name, and the different names in the order of their numbers."""
    found: dict[str, int] = {}
    values = np.empty(len(names), np.int32)
    for first in range(0, len(names), LABELS_PER_STEP):
        part = names[first : first + LABELS_PER_STEP]
        some: list[str] = part if isinstance(part, list) else part.tolist()
        for name in dict.fromkeys(some):
            found.setdefault(name, len(found))
        values[first : first + len(some)] = np.fromiter(map(found.__getitem__, some), np.int32, len(some))
    # NumPy's text drops trailing NULs, so that the same names in an array would be other classes.
    if any(name.endswith("\0") for name in found):
        raise ValueError("A class name ends in a NUL character; rename the class.")
    return _small(values), list(map(str, found))
