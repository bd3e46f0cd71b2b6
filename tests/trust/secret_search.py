"""Looking for secrets in whatever a run puts out, in every form that they might take."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from secret_forms import forms_of

from poscuda_fast import Key, Recipe
from poscuda_fast.mark.filters import Filters
from poscuda_fast.mark.plan import make_plan

RUN = 16  # bytes of an original in a row that nothing but that original has
PURPOSES = (b"wrap", b"tag", b"labels", b"identity")


class Secrets:
    """What nobody may see of a run with `master` on `clips`: see `find`."""

    def __init__(self, master: bytes, clips: Sequence[np.ndarray], labels: Sequence[Any], recipe: Recipe) -> None:
        key = Key(master)
        self._forms: dict[bytes, str] = {}
        self._windows: dict[bytes, str] = {}
        self.add_bytes("the key", master)
        for purpose in PURPOSES:
            self.add_bytes(f"a key derived for {purpose.decode()}", key.derive(b"sidecar", purpose, length=32))
        plan = make_plan(key, recipe, labels, None, np.array([len(clip) for clip in clips]))
        if isinstance(plan.marks, Filters):
            for row in plan.marks.taps:
                self._add_mark(row)
        else:
            for number, pair in enumerate(plan.marks.pairs):
                self._add_numbers("lines", list(pair))
                self._add_lines(plan.marks.mark(number, clips[0].dtype))
        for number, clip in enumerate(clips):
            patches = plan.of_clip(number)
            self._add_numbers("positions", patches.starts.tolist())
            for start, size in zip(patches.starts.tolist(), patches.sizes.tolist(), strict=True):
                self._add_original(clip[start : start + size])

    def add_bytes(self, what: str, secret: bytes) -> None:
        """Key material: as it is, in hexadecimal, in base64, and as Python and JSON show it."""
        for form in forms_of(secret):
            self._forms[form] = what

    def find(self, content: bytes, *, originals: bool = True) -> list[str]:
        """What secrets some content holds; with or without samples of the originals."""
        spaced = re.sub(rb"[\s,\[\]()]+", b" ", content)
        found = {what for form, what in self._forms.items() if form in content or form in spaced}
        if originals:
            here = {content[n : n + RUN] for n in range(len(content) - RUN + 1)}
            found |= {self._windows[window] for window in here & self._windows.keys()}
        else:
            found -= {"an original in text"}
        return sorted(found)

    def _add_mark(self, row: np.ndarray) -> None:
        """A filter: pairs of its numbers as bytes, and each number with its first digits as text."""
        for first in range(0, len(row) - 1, 2):
            for dtype in ("<f4", ">f4", "<f8", ">f8"):
                self._forms[row[first : first + 2].astype(dtype).tobytes()] = "a filter"
        for number in row.tolist():
            text = repr(number)
            if "e" not in text and len(text) >= 9:
                self._forms[text[:9].encode()] = "a filter in text"

    def _add_lines(self, mark: np.ndarray) -> None:
        """A period of two lines: eight of its values in a row, as bytes and as text."""
        for first in range(len(mark) - 7):
            eight = mark[first : first + 8]
            for dtype in ("<i2", ">i2", "<i4", ">i4", "<i8", "<f4", "<f8"):
                self._forms[eight.astype(dtype).tobytes()] = "lines"
            self._forms[" ".join(map(str, eight.tolist())).encode()] = "lines in text"

    def _add_numbers(self, what: str, numbers: list[int]) -> None:
        """Three numbers in a row as text, and two as integers of any kind."""
        for first in range(len(numbers) - 2):
            self._forms[b" " + " ".join(map(str, numbers[first : first + 3])).encode() + b" "] = what
        for first in range(len(numbers) - 1):
            for dtype in ("<i8", ">i8", "<i4", ">i4"):
                self._forms[np.array(numbers[first : first + 2], dtype).tobytes()] = what

    def _add_original(self, patch: np.ndarray) -> None:
        content = np.ascontiguousarray(patch).tobytes()
        for first in range(0, len(content) - RUN + 1, patch.itemsize):
            self._windows[content[first : first + RUN]] = "an original"
        numbers = patch.reshape(-1).tolist()
        for first in range(len(numbers) - 3):
            some = numbers[first : first + 4]
            if len({*map(abs, some)}) == 4:
                self._forms[b" " + " ".join(map(str, some)).encode() + b" "] = "an original in text"
