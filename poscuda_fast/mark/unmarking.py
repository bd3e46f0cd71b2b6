"""Taking the lines of format 2 off samples without a record of their originals (FORMAT.md, "Without the sidecar")."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.errors import SidecarError
from poscuda_fast.kernels import TOP, Engine, Flags, Ints
from poscuda_fast.mark.codings import to_samples
from poscuda_fast.mark.lines import Lines
from poscuda_fast.mark.marks import Marks
from poscuda_fast.mark.patches import Patches, Steps
from poscuda_fast.secrecy import Secret
from poscuda_fast.text import one_line

NAMES_SHOWN = 10


class Unmarking(Secret):
    """Takes lines off where `Marks` would put them on, and counts the samples that may not be the original's.

    Attributes
    ----------
    saturated : int
        Integer samples at full scale that the mark may have pushed beyond it.
    """

    steady = True

    def __init__(self, lines: Lines) -> None:
        self.saturated = 0
        self._lines = lines

    def apply(
        self,
        engine: Engine,
        samples: NDArray[Any],
        firsts: Ints,
        patches: Patches,
        steps: Steps,
        flags: Flags | None = None,
    ) -> int:
        """Unmark patches in place, of which `samples` must consist; other arguments are those of `Marks.apply`.

        Marking float32 samples again gives what was there: of several that do, one that is nearest to the difference.
        """
        del flags
        now = samples.copy()
        self._lines.remove(engine, samples, firsts, patches, steps)
        if samples.dtype.kind != "f":
            self.saturated += _at_full_scale(now, samples)
            return 0
        wrong = self._wrong(engine, samples, now, firsts, patches, steps)
        for toward in (np.float32(np.inf), np.float32(-np.inf)):
            if wrong.any():
                beside = np.where(wrong, np.nextafter(samples, toward), samples)
                mended = wrong & ~self._wrong(engine, beside, now, firsts, patches, steps)
                samples[mended] = beside[mended]
                wrong &= ~mended
        return 0

    def _wrong(
        self, engine: Engine, samples: NDArray[Any], now: NDArray[Any], firsts: Ints, patches: Patches, steps: Steps
    ) -> NDArray[np.bool_]:
        """Which samples marking turns into others than those that are there."""
        again = samples.copy()
        self._lines.apply(engine, again, firsts, patches, steps)
        wrong: NDArray[np.bool_] = again.view(np.int32) != now.view(np.int32)
        return wrong


def _at_full_scale(now: NDArray[Any], undone: NDArray[Any]) -> int:
    """How many integer samples were at full scale before something was subtracted from them."""
    if now.dtype == np.uint8:
        now, undone = (to_samples(one.tobytes(), "PCM_24") for one in (now, undone))
    top = int(TOP[now.dtype])
    found = (now == top - 1) | (now == -top)
    return int(np.count_nonzero(now[found] != undone[found]))


@dataclasses.dataclass(slots=True)
class Doubts:
    """What undoing without a record could not settle.

    Attributes
    ----------
    saturated : int
        See `Unmarking`.
    rounded : bool
        Whether there were float32 samples, whose sums with the mark were rounded.
    unlike : dict
        Names of clips or files that marking what was computed would not give: they were changed after protecting.
    """

    saturated: int = 0
    rounded: bool = False
    unlike: dict[str, None] = dataclasses.field(default_factory=dict)

    def add_unlike(self, names: Iterable[str]) -> None:
        """Name some."""
        self.unlike.update(dict.fromkeys(names))

    def notes(self) -> tuple[str, ...]:
        """For the report."""
        found = []
        if self.saturated:
            found.append(f"{self.saturated:,} samples were saturated and may differ from the original")
        if self.rounded:
            found.append("float samples whose sum with the mark was rounded may differ from the original in last bits")
        if self.unlike:
            found.append(
                f"changed since they were protected, so that the mark was subtracted from something else: "
                f"{len(self.unlike):,} ({shown(self.unlike)})"
            )
        return tuple(found)

    def refuse(self) -> None:
        """SidecarError if a record could not be made of all."""
        if self.unlike:
            raise SidecarError(
                f"{len(self.unlike)} clips or files are not what marking an original gives, so that they were changed "
                f"since they were protected ({shown(self.unlike)}): they cannot be undone in place. Give a new path "
                f"for a copy (dst=PATH), in which the mark is subtracted from what is there. Nothing was written."
            )


def lines_of(marks: Marks) -> Lines:
    """Marks that can be taken off; SidecarError for others."""
    if not isinstance(marks, Lines):
        raise SidecarError(
            "The recipe is of format 1, whose filters cannot be inverted: only the sidecar has the originals. Give its "
            "path (sidecar=PATH), without without_sidecar=True. Nothing was written."
        )
    return marks


def shown(names: Iterable[str]) -> str:
    """The first few names, each on one line."""
    listed = list(map(one_line, names))
    return ", ".join(listed[:NAMES_SHOWN]) + (", ..." if len(listed) > NAMES_SHOWN else "")
