"""Labels as users give them -> one class token for each class and one row number for each clip."""

from __future__ import annotations

import contextlib
import dataclasses
import numbers
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set, ValuesView
from typing import Any

import numpy as np
from numpy.typing import NDArray

LABELS_PER_STEP = 1 << 16  # bounds NumPy's copies when it indexes with them
FEWEST_DOUBTED = 20  # clips
MOSTLY = 0.8
_SPEAKER = re.compile(
    r"((p|s|id|spk|spkr|speaker|user|subject|sub)[-_ ]?[0-9]{1,6}|[fm][0-9]{2,4}|[0-9]{3,}|(?=.*[0-9])[0-9a-f]{8,})",
    re.IGNORECASE,
)
BLANKS = " \t\n\v\f\r"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,19}")
_ADVICE = {
    "f": "Convert them first, for example labels.astype(np.int64).",
    "V": "Give one field of them, such as labels['label'].",
    "b": "Convert them first, for example labels.astype(np.int64).",
}
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

    def sizes(self) -> tuple[tuple[str | int, int], ...]:
        """(label, number of clips) of each class: numbers first, then names."""
        counts = np.zeros(len(self.tokens), np.int64)
        for first in range(0, len(self.values), LABELS_PER_STEP):
            some = self.table[self.values[first : first + LABELS_PER_STEP]]
            counts += np.bincount(some, minlength=len(counts))
        return tuple((label_of(token), n) for token, n in zip(self.tokens, counts.tolist(), strict=True))

    def doubt(self) -> str | None:
        """Why these labels may not be what was meant, as a sentence; None if nothing speaks against them.

        Only of data sets that are not tiny.
        """
        n = len(self.values)
        if n < FEWEST_DOUBTED:
            return None
        names = [str(label_of(token)) for token in self.tokens]
        if len(names) == 1:
            return (
                f"All {n:,} clips have one label, {names[0]!r}: a model can learn nothing from the mark of one class."
            )
        if 2 * len(names) > n:
            return (
                f"{n:,} clips have {len(names):,} different labels, such as {names[0]!r}: these look like names or "
                f"numbers of files, and each class needs many clips to protect."
            )
        if sum(map(bool, map(_SPEAKER.fullmatch, names))) > MOSTLY * len(names):
            return (
                f"The labels, such as {names[0]!r}, look like speakers: a model that is trained on other labels, such "
                f"as words, would learn less of these marks."
            )
        return None


def integer_token(label: int) -> bytes:
    """The class token of an integer label."""
    return b"i" + label.to_bytes(8, "big")


def name_token(name: str) -> bytes:
    """The class token of a name; equal for all spellings with the same NFC form."""
    return b"n" + unicodedata.normalize("NFC", name).encode("utf-8")


def token_of(label: str | int) -> bytes:
    """The class token of a label, once it is `plain`."""
    label = plain(label)
    return name_token(label) if isinstance(label, str) else integer_token(label)


def plain(label: str | int) -> str | int:
    """The class that a label names: text without the blanks around it, which is a number if it is written like one.

    So "1", " 1" and 1 are one class wherever they stand; "01" is a name (FORMAT.md, "Secrets").
    """
    if not isinstance(label, str):
        return label
    text = label.strip(BLANKS)
    if _NUMBER.fullmatch(text) and int(text) < 2**64:
        return int(text)
    return text


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
        A label is missing, or neither an integer nor a string (a bool is neither); `classes` is given with names, or is
        not a sequence of names.
    ValueError
        Wrong number or shape of labels; one that is masked; an integer that is negative, 2**64 or more, or beyond
        `classes`; a name that is empty, not valid Unicode or ends in NUL; or `classes` has a name twice.
    """
    values, given = _read(labels)
    if len(values) != n_clips:
        raise ValueError(f"labels has {len(values)} entries for {n_clips} clips; give one label for each clip.")
    if given is not None:
        found = [_checked(label) for label in given]
        if classes is not None:
            found = _of_classes(found, check_classes(classes))
        return _rows(found, values, np.arange(len(found), dtype=np.int32))
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
    return _rows([_checked(names_given[int(label)]) for label in present], values, table)


def _checked(label: str | int) -> str | int:
    """A label that is `plain`; ValueError if it is an empty or impossible name."""
    found = plain(label)
    if found == "":
        raise ValueError("A label is an empty name; give every clip the name of its class.")
    if isinstance(found, str):
        if found.endswith("\0"):  # NumPy's text drops it, so that the same names in an array would be other classes
            raise ValueError("A class name ends in a NUL character; rename the class.")
        try:
            found.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(f"The label {label!r} is not valid Unicode text; rename the class.") from None
    return found


def _of_classes(labels: list[str | int], classes: list[str]) -> list[str | int]:
    """The names that numbers index."""
    for label in labels:
        if isinstance(label, str):
            raise TypeError("labels are names and classes is given too; give names alone, or indexes with classes.")
        if label >= len(classes):
            raise ValueError(f"A label is {label}, but classes has {len(classes)} names.")
    return [_checked(classes[label]) for label in labels if isinstance(label, int)]


def _rows(labels: list[str | int], values: NDArray[Any], table: NDArray[np.int32]) -> ClassRows:
    """Rows for different labels; spellings of one class are one."""
    tokens: dict[bytes, int] = {}
    order = np.array([tokens.setdefault(token_of(label), len(tokens)) for label in labels], np.int32)
    # Sorted, because sidecars store rows: a run may then be resumed with its names in another order.
    ranked = {token: rank for rank, token in enumerate(sorted(tokens))}
    ranks = np.array([ranked[token] for token in tokens], np.int32)
    return ClassRows(tuple(ranked), values, ranks[order][table] if len(labels) else table)


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
        first = seen.setdefault(_folded(name), index)
        if first != index:
            raise ValueError(f"classes names {name!r} twice (entries {first} and {index}); names must be unique.")
    return names


def _folded(name: str) -> str:
    """What tells a class name, whatever it holds; it is checked when it is used."""
    return unicodedata.normalize("NFC", str(plain(name)))


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


def _read(labels: Any) -> tuple[NDArray[Any], list[str | int] | None]:
    """An integer for each label, without coercion; and the labels that these are numbers of, or None for integers."""
    if isinstance(labels, str | bytes):
        raise TypeError(f"labels is the single text {labels!r}; give one label for each clip.")
    if hasattr(labels, "to_pylist"):  # Arrow, in which null is None
        labels = labels.to_pylist()
    if isinstance(labels, Sequence | ValuesView) and not hasattr(labels, "__array__"):
        return _from_sequence(labels if isinstance(labels, list) else list(labels))
    if not hasattr(labels, "__array__"):
        raise TypeError(f"labels is {labels!r}; expected an array or a sequence with one label for each clip.")
    if isinstance(labels, np.ma.MaskedArray) and np.ma.getmaskarray(labels).any():
        first = np.flatnonzero(np.ma.getmaskarray(labels))[0]
        raise ValueError(f"labels[{first}] is masked; leave such clips out, or give them a label.")
    return _from_array(np.asarray(labels))


def _from_array(values: NDArray[Any]) -> tuple[NDArray[Any], list[str | int] | None]:
    if values.shape == (0,):
        return np.empty(0, np.int64), None
    if values.ndim != 1:
        raise ValueError(
            f"labels has shape {values.shape}; expected one dimension, one label for each clip{_flattened(values)}."
        )
    kind = values.dtype.kind
    if kind in "iu":
        return values, None
    if kind == "U":
        return _numbered(values)
    if kind in "OT":
        return _from_sequence(values.tolist())
    if kind == "S":
        return _from_sequence([_decoded(text, n) for n, text in enumerate(values.tolist())])
    raise TypeError(
        f"labels has dtype {values.dtype}; labels are integers from 0 or class names. {_ADVICE.get(kind, _ADVICE['f'])}"
    )


def _flattened(values: NDArray[Any]) -> str:
    """What makes one dimension of two, as the end of a sentence."""
    if values.ndim != 2:
        return ""
    return ": labels.reshape(-1)" if values.shape[1] == 1 else ": labels.argmax(axis=1) of one-hot rows, for example"


def _decoded(text: bytes, number: int) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise ValueError(
            f"labels[{number}] is {text!r}, which is not text in UTF-8; decode the labels first."
        ) from None


def _from_sequence(items: list[Any]) -> tuple[NDArray[Any], list[str | int] | None]:
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
    found = [_plain_item(item, index) for index, item in enumerate(items)]
    whole = [item for item in found if isinstance(item, int)]
    if len(whole) == len(found):
        return np.array(whole, dtype=np.uint64 if max(whole) >= 2**63 else np.int64), None
    return _numbered(found)


def _plain_item(item: Any, index: int) -> str | int:
    """A label of a list as plain text or number."""
    if isinstance(item, np.ndarray) and item.ndim == 0:
        item = item.item()
    if isinstance(item, bytes):
        return _decoded(item, index)
    if isinstance(item, str):
        return str(item)
    if _is_missing(item):
        raise TypeError(f"labels[{index}] is {item!r}, so it is missing; leave such clips out, or give them a label.")
    if isinstance(item, bool | np.bool_) or not isinstance(item, numbers.Integral):
        of_frame = " Give one column, such as frame['label']." if isinstance(item, list | np.ndarray) else ""
        raise TypeError(f"labels[{index}] is {item!r}; labels are integers from 0 or class names.{of_frame}")
    number = int(item)
    if not 0 <= number < 2**64:
        raise ValueError(f"labels[{index}] is {number}; integer labels go from 0 to 2**64 - 1.")
    return number


def _is_missing(item: Any) -> bool:
    """Whether a label is None, NaN, or what pandas puts where there is nothing."""
    if isinstance(item, float | np.floating):
        return bool(np.isnan(item))
    return item is None or type(item).__name__ in ("NAType", "NaTType")


def _numbered(labels: Sequence[str | int] | NDArray[np.str_]) -> tuple[NDArray[Any], list[str | int]]:
    """A number for each label, and the different labels in the order of their numbers."""
    found: dict[str | int, int] = {}
    values = np.empty(len(labels), np.int32)
    for first in range(0, len(labels), LABELS_PER_STEP):
        part = labels[first : first + LABELS_PER_STEP]
        some: list[str | int] = part.tolist() if isinstance(part, np.ndarray) else list(part)
        for label in dict.fromkeys(some):
            found.setdefault(label, len(found))
        values[first : first + len(some)] = np.fromiter(map(found.__getitem__, some), np.int32, len(some))
    return _small(values), list(found)
