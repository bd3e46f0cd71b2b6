"""Finished trainings in a file, so that an evaluation that was stopped goes on where it was.

The file is replaced in one step after each training. It holds accuracies and losses under names that only the key can
make: nobody learns from it what the clips are, or whether two evaluations are of the same ones.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3

from poscuda_fast import disk
from poscuda_fast.errors import DatasetError
from poscuda_fast.evaluation.corpus import Corpus
from poscuda_fast.evaluation.training import Curve
from poscuda_fast.key import Key
from poscuda_fast.undo.record import keyed_mac

KIND, VERSION = "poscuda evaluation, unfinished", 1
PACKAGES = ("numpy", "torch", "torchaudio")
_ARRAYS = ("clean", "protected", "miskeyed", "labels", "lengths", "training", "testing", "file_rates")


def identity(corpus: Corpus, key: Key) -> str:
    """What changes the result of any training, as a keyed MAC: clips and labels, recipe, code, and where it runs."""
    whole = blake3()
    for name in _ARRAYS:
        array = np.ascontiguousarray(getattr(corpus, name))
        whole.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        whole.update(array.reshape(-1).view(np.uint8).data)
    about = {
        "labels": corpus.labels_mac,
        "recipe": corpus.recipe.to_dict(),
        "sample_rate": corpus.sample_rate,
        "seconds": corpus.seconds,
        "code": _code(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "cuda": torch.cuda.is_available(),
    }
    whole.update(json.dumps(about, sort_keys=True).encode())
    return keyed_mac(key, b"evaluation", whole.digest())


def _code() -> str:
    """The digest of the files that train."""
    whole = blake3()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        whole.update(path.read_bytes())
    return whole.hexdigest()


class Finished:
    """The finished trainings of one evaluation; those of others in the same file are kept, and never taken.

    Parameters
    ----------
    path : Path or None
        The file, which need not exist; None stores nothing.
    run : str
        `identity` of the evaluation.
    key : Key
        Names each training.

    Raises
    ------
    DatasetError
        There is a file that is not one of finished trainings; it is left as it is.
    """

    def __init__(self, path: Path | None, run: str, key: Key) -> None:
        self.path, self._run, self._key = path, run, key
        self._stored: dict[str, dict[str, Any]] = {} if path is None else _read(path)

    def curve(self, training: dict[str, Any]) -> Curve | None:
        """The result of a training, told by its model, kind, seed and epochs; None if it is not finished."""
        found = self._stored.get(self._name(training))
        return None if found is None else Curve(found["history"], found["seconds"])

    def add(self, training: dict[str, Any], curve: Curve) -> None:
        """Store the result of a training, durably."""
        if self.path is None:
            return
        fields = {"history": curve.history, "seconds": round(curve.seconds, 1)}
        self._stored[self._name(training)] = {**training, **fields}
        content = {"kind": KIND, "version": VERSION, "trainings": self._stored}
        disk.replace(self.path, (json.dumps(content, indent=1) + "\n").encode(), mode=None)

    def _name(self, training: dict[str, Any]) -> str:
        return keyed_mac(self._key, b"training", json.dumps([self._run, training], sort_keys=True).encode())


def refuse_other(path: Path) -> None:
    """DatasetError if there is a file that is not one of finished trainings."""
    _read(path)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The trainings in a file, by name; none if it does not exist."""
    try:
        written = disk.read_regular(path)
    except FileNotFoundError:
        return {}
    try:
        content = json.loads(written)
        if (content["kind"], content["version"]) != (KIND, VERSION):
            raise ValueError
        stored: dict[str, dict[str, Any]] = content["trainings"]
        for one in stored.values():
            _check(one)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DatasetError(
            f"{path} has the name for finished trainings of poscuda evaluate, and is not a file of them; move it away, "
            f"or choose another name for the result."
        ) from None
    return stored


def _check(one: dict[str, Any]) -> None:
    """ValueError or another error of wrong types unless these are the fields of a training."""
    if not (one["history"] and one["seconds"] >= 0):
        raise ValueError
    if not all(isinstance(value, int | float) for epoch in one["history"] for value in epoch.values()):
        raise ValueError
