"""Was a model trained on data protected with this key? A test that asks the model, with a valid p-value."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from poscuda_fast.arrays.device import is_on_device
from poscuda_fast.arrays.layouts import ArrayClips, ListClips, open_clips
from poscuda_fast.disk import PathLike
from poscuda_fast.kernels import Engine, Ints
from poscuda_fast.key import Key, check_key
from poscuda_fast.mark import packed
from poscuda_fast.mark.labels import ClassRows, encode, label_of, plain, token_of
from poscuda_fast.mark.plan import Plan, plan_of
from poscuda_fast.recipe import Recipe
from poscuda_fast.results import Shown
from poscuda_fast.secrecy import discreet
from poscuda_fast.statement import Statement, refuse_other

CLIPS_PER_BATCH = 256
BATCH_BYTES = 16 << 20  # of one batch that `predict` gets; one clip may be more
BEST = 10  # a mark is a hit if it is in the best tenth
NO_CLASS = -1  # the row of a prediction that is none of the classes tested


@dataclasses.dataclass(frozen=True, slots=True)
class Ownership(Shown):
    """The result of an ownership test; `str` shows it as a short table.

    Attributes
    ----------
    clips, classes, decoys : int
        Clips and classes tested, and decoy keys that each class's mark was compared with.
    hits : int
        Classes whose mark is in the tenth that the model recognises best, of the key's and the decoys' marks.
    p_value : float
        Upper bound on the probability of so many hits or more from a model that does not depend on the key.
    clean_accuracy : float
        Share of unmarked clips that are predicted correctly.
    keyed_accuracy : float
        The same for clips that carry the mark of their class.
    miskeyed_accuracy : float
        The same for clips that carry a mark of another key, each decoy once.
    fingerprint : str
        Fingerprint of the key.
    statement, stated : str or None
        The digest of the statement that the test agrees with, and the date in it.
    """

    clips: int
    classes: int
    decoys: int
    hits: int
    p_value: float
    clean_accuracy: float
    keyed_accuracy: float
    miskeyed_accuracy: float
    fingerprint: str
    statement: str | None = None
    stated: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return dataclasses.asdict(self)

    def rows(self) -> Iterator[tuple[str, str]]:
        """The table, as (name, value)."""
        yield "p value", f"{self.p_value:.3g}"
        yield "hits", f"{self.hits:,} of {self.classes:,} classes"
        yield "clips", f"{self.clips:,}"
        yield "decoys", f"{self.decoys:,}"
        for name in ("clean_accuracy", "keyed_accuracy", "miskeyed_accuracy"):
            yield name.replace("_", " "), f"{getattr(self, name):.1%}"
        yield "key fingerprint", self.fingerprint
        if self.statement is not None:
            yield "statement", f"{self.statement}, of {self.stated}"


@discreet
def ownership_test(
    predict: Callable[[Any], Any],
    clips: Any,
    labels: Any,
    key: Key,
    *,
    recipe: Recipe = Recipe.strong(),
    sample_rate: int | None = None,
    lengths: Any = None,
    classes: Sequence[str] | None = None,
    decoys: int = 39,
    backend: str = "auto",
    threads: int | None = None,
    statement: PathLike | Mapping[str, Any] | Statement | None = None,
) -> Ownership:
    """Test, by its predictions, whether a model was trained on data protected with a key.

    The model is asked about copies of the clips that are protected with the key (keyed) or with decoy keys (mis-keyed),
    and about unmarked copies: n_clips * (decoys + 2) clips in all. The clips themselves are only read.

    Parameters
    ----------
    predict : callable
        The model: takes a batch and returns one prediction for each of its clips, (n,) integers or names as
        in `labels`. A prediction that is none of the classes in `labels` is allowed, and counts as wrong. A batch
        is a contiguous array (n, n_frames) or (n, n_frames, n_channels) of the dtype of `clips`, padding
        included, or a list of arrays if `clips` is one; it is a copy that may be written to. Predictions must
        not depend on earlier batches (torch: ``model.eval()``).
    clips : array or list of arrays, int16 or float32
        Original recordings, as for `protect` but not on a GPU; read-only arrays will do. None may be protected with
        this key: the test would not be valid. They need not be from the training data: similar recordings will do.
    labels : (n_clips,) integers or names
        The class of each clip; with `classes`, indexes into it. The classes that occur here are tested. Use the same
        names or numbers as when the training data was protected.
    key : Key
        The key that the training data was protected with.
    recipe : Recipe
        The recipe that the training data was protected with.
    sample_rate : int, optional
        Sample rate of the clips in Hz, as for `protect`.
    lengths : (n_clips,) integers, optional
        True length of each clip in frames, if the rest is padding.
    classes : sequence of str, optional
        Class names that `labels` and the predictions index.
    decoys : int
        How many other keys to compare with, at least 9. They are derived from `key`: the result is reproducible.
    backend : str
        "auto", "native" (C++), "cpu" (numba), "reference" (NumPy) or "cuda" (numba-cuda), for the marking.
    threads : int, optional
        CPU threads for the marking; all cores by default.
    statement : path, dict or Statement, optional
        What `ownership_statement` stated before the data were released. Key, recipe and sample rate must be those that
        it states, and the classes all that it states; the result has its digest and date.

    Returns
    -------
    Ownership
        A small `p_value` means that the model knows the key's marks. A large one proves nothing: a model can be
        trained on protected data without learning the marks.

    Raises
    ------
    TypeError
        `clips` has a wrong dtype or byte order, is on a GPU, or is not an array; labels are of a wrong kind; `decoys`
        is not an integer; `predict` is not callable, or its predictions are not integers or names as the labels are.
    ValueError
        Wrong shape, no clips, too few decoys, too few or negative labels, impossible lengths, a NaN or infinite sample
        inside a patch of format 1; `statement` states another key, recipe or sample rate, or other classes; or
        `predict` returns another number of predictions than it got clips.
    DatasetError
        `statement` is not one, or was changed since it was made.
    ImportError
        The backend asked for is not installed.

    Notes
    -----
    The test counts classes, not clips. The clips of a class share one mark, so they are not independent. Suppose that
    a model that never saw the key takes any disturbance at some place for class c. If the key happens to put the mark
    of c there, all clips of c agree with the key at once, and a sign test over clips (keyed right, mis-keyed wrong)
    finds overwhelming evidence in a single coincidence.

    For each class, the model is asked about the same clips with the key's mark and with each decoy's. If the model does
    not depend on the key, these D + 1 marks are independent draws from one distribution. Each is then equally likely to
    be recognised best, second best and so on, however the model treats the class or a disturbance. A class is a hit if
    its own mark is in the best tenth; a decoy that does equally well counts as better. The probability of a hit is at
    most q = floor((D + 1) / 10) / (D + 1), which is 0.1 for 39 decoys. The marks of different classes are drawn
    independently, so the number of hits is Binomial(C, q), or less if there are ties; the p-value is the tail of that
    distribution. The test uses the best tenth, not the very best, because a decoy may happen to lie where the mark is.

    The smallest p-value is q**C, 0.001 for three classes.

    The p-value holds for one key and one choice of clips, both fixed before the model is asked: whoever tries many keys
    finds one that fits. A `statement` whose digest was published before the model was trained shows that the key, the
    recipe and the classes were fixed then. The date in it is only what its maker wrote; when the digest was published
    is for you to show.

    Whoever runs `predict` sees marked copies of the clips beside unmarked ones, which gives the marks away. Run the
    model on a machine that you trust, or be ready to give up the key.
    """
    if not callable(predict):
        raise TypeError(f"predict is a {type(predict).__name__}; expected a function from a batch to predictions.")
    if is_on_device(clips):
        raise TypeError(
            "clips is an array on a GPU; expected one in host memory, since copies of it are marked. Give a NumPy "
            "array (torch: clips.cpu().numpy()) and let predict move each batch to the GPU."
        )
    audio = open_clips(clips, lengths, writing=False)
    check_key(key)
    rows = encode(labels, classes, len(audio.lengths))
    n_clips, n_classes = len(audio.lengths), len(rows.tokens)
    if not n_clips:
        raise ValueError("clips is empty; give recordings to ask the model about.")
    n_decoys = _checked(decoys)
    stated = _statement(statement)
    if stated is not None:
        refuse_other(stated, key, recipe, map(label_of, rows.tokens), sample_rate)
    engine = Engine(backend, threads)
    keys = [key, *(Key(key.derive(b"ownership decoy", n.to_bytes(4, "big"), length=32)) for n in range(n_decoys))]
    marks = [plan_of(one, recipe, rows, audio.lengths, sample_rate) for one in keys]
    _refuse_non_finite(audio, marks, engine)

    clean = 0
    right = np.zeros((len(marks), n_classes), np.int64)  # by key and class: clips that are predicted correctly
    for some in _batches(clips, n_clips):
        own = rows.rows_of(some)  # (n,)
        clean += int((_ask(predict, _copy(clips, some), rows, classes) == own).sum())
        for n, mark in enumerate(marks):
            found = _ask(predict, _marked_copy(clips, some, mark, engine), rows, classes)
            right[n] += np.bincount(own[found == own], minlength=n_classes)
    ranks = (right[1:] >= right[0]).sum(axis=0)  # decoys that do as well, by class
    hits = int((ranks < best_tenth(n_decoys)).sum())
    return Ownership(
        clips=n_clips,
        classes=n_classes,
        decoys=n_decoys,
        hits=hits,
        p_value=p_value(hits, n_classes, n_decoys),
        clean_accuracy=clean / n_clips,
        keyed_accuracy=int(right[0].sum()) / n_clips,
        miskeyed_accuracy=int(right[1:].sum()) / (n_clips * n_decoys),
        fingerprint=key.fingerprint,
        statement=None if stated is None else stated.digest,
        stated=None if stated is None else stated.date,
    )


def _statement(given: PathLike | Mapping[str, Any] | Statement | None) -> Statement | None:
    """A statement as it is given; TypeError if it is nothing that one can be read from."""
    if given is None or isinstance(given, Statement):
        return given
    if isinstance(given, Mapping):
        return Statement.from_dict(given)
    if isinstance(given, str | os.PathLike):
        return Statement.load(given)
    raise TypeError(f"statement is a {type(given).__name__}; expected a path, the dict in its file, or a Statement.")


def best_tenth(n_decoys: int) -> int:
    """How many marks, of the key's and the decoys', make up the best tenth."""
    return (n_decoys + 1) // BEST


def p_value(hits: int, n_classes: int, n_decoys: int) -> float:
    """P(Binomial(n_classes, best_tenth / (n_decoys + 1)) >= hits)."""
    marks, best = n_decoys + 1, best_tenth(n_decoys)
    total = int(marks**n_classes)  # the common denominator: the sum is exact in integers
    ways = sum(
        math.comb(n_classes, n) * int(best**n * (marks - best) ** (n_classes - n)) for n in range(hits, n_classes + 1)
    )
    return max(ways / total, sys.float_info.min)  # never 0: it is a bound


def _checked(decoys: object) -> int:
    if isinstance(decoys, bool) or not isinstance(decoys, int | np.integer):
        raise TypeError(f"decoys is {decoys!r}; it must be a whole number, {BEST - 1} or more.")
    if decoys < BEST - 1:
        raise ValueError(f"decoys is {decoys}; it must be {BEST - 1} or more, such as 39.")
    return int(decoys)


def _refuse_non_finite(audio: ArrayClips | ListClips, marks: Sequence[Plan], engine: Engine) -> None:
    """ValueError, before the model is asked anything, if there is a NaN or infinite sample where a mark goes."""
    if audio.dtype.kind != "f" or marks[0].marks.steady:
        return
    for mark in marks:
        for patches in mark.batches(audio.copied_bytes):
            flags = audio.survey(patches, engine)
            packed.refuse_non_finite(flags, patches)


def _batches(clips: Any, n_clips: int) -> Iterator[slice]:
    """The clips in order, one slice for each batch that `predict` gets."""
    longest = max(clip.nbytes for clip in clips) if isinstance(clips, list | tuple) else clips[0].nbytes
    step = max(1, min(CLIPS_PER_BATCH, BATCH_BYTES // max(1, longest)))
    for first in range(0, n_clips, step):
        yield slice(first, min(first + step, n_clips))


def _copy(clips: Any, some: slice) -> Any:
    """A batch in memory of its own: an array, or a list of arrays."""
    if isinstance(clips, list | tuple):
        return [np.array(clip, order="C") for clip in clips[some]]
    return np.array(clips[some], order="C")


def _marked_copy(clips: Any, some: slice, mark: Plan, engine: Engine) -> Any:
    """A batch as from `_copy`, with a mark on every clip."""
    batch = _copy(clips, some)
    patches = mark.of_clips(np.arange(some.start, some.stop))
    here = dataclasses.replace(patches, clips=patches.clips - some.start)
    open_clips(batch, None).mark(here, mark.marks, engine)
    return batch


def _ask(predict: Callable[[Any], Any], batch: Any, rows: ClassRows, classes: Sequence[str] | None) -> Ints:
    """The row of the class predicted for each clip of a batch, (n,); `NO_CLASS` if it is not among those tested."""
    n_clips = len(batch)
    predicted = np.asarray(predict(batch))
    if predicted.shape != (n_clips,):
        raise ValueError(
            f"predict returned an array of shape {predicted.shape} for {n_clips} clips; expected ({n_clips},), one "
            f"class for each clip. If it computes scores, return scores.argmax(axis=1)."
        )
    if predicted.dtype.kind == "O" and all(isinstance(item, str) for item in predicted):
        predicted = predicted.astype(np.str_)
    _refuse_kind(predicted, rows, classes)
    known = {token: row for row, token in enumerate(rows.tokens)}
    values, inverse = np.unique(predicted, return_inverse=True)
    found = np.array([known.get(_token(value, classes), NO_CLASS) for value in values.tolist()], np.int64)
    answers: Ints = found[inverse]
    return answers


def _refuse_kind(predicted: np.ndarray[Any, Any], rows: ClassRows, classes: Sequence[str] | None) -> None:
    """TypeError if predictions are names and the labels integers, or the other way round."""
    kinds = {token[:1] for token in rows.tokens}
    expected = {b"n": "names", b"i": "integers"}[kinds.pop()] if len(kinds) == 1 else "names or integers"
    if classes is not None:
        expected = "integers"
    found = {"U": "names", "i": "integers", "u": "integers"}.get(predicted.dtype.kind)
    if found == "names" and all(isinstance(plain(name), int) for name in set(predicted.tolist())):
        found = "integers"
    if found is None or found not in expected:
        raise TypeError(
            f"predict returned dtype {predicted.dtype}; expected {expected}, since the labels are {expected}."
        )


def _token(prediction: int | str, classes: Sequence[str] | None) -> bytes:
    """The class token of a prediction; empty if it cannot be a class."""
    label = plain(prediction)
    if isinstance(label, str):
        return token_of(label)
    if classes is None:
        return token_of(label) if label >= 0 else b""
    return token_of(classes[label]) if 0 <= label < len(classes) else b""
