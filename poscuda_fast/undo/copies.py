"""The sidecar of a copy: what it was made of and how, and each output with its digests; no originals.

The source of a copy is its undo. FORMAT.md, "Sidecar", lists the fields.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import disk
from poscuda_fast.errors import DatasetError, SidecarError
from poscuda_fast.key import Key
from poscuda_fast.mark.plan import Plan
from poscuda_fast.recipe import MILLION, Recipe
from poscuda_fast.results import Tally, Verdict, recipe_in_words
from poscuda_fast.undo import record
from poscuda_fast.undo.journal import Journal, Kind, State, manifest_of, pack_json, sidecar_of, unpack_json
from poscuda_fast.undo.manifest import named

COPY = "copy"  # the kind of a run, in its header
FILES, ARRAY = "audio files", "an array"  # what a copy is of
NAMES_SHOWN = 10
CLIPS_PER_RECORD = 1 << 20  # of an array


class Output(NamedTuple):
    """One file of a copy, or its array.

    Attributes
    ----------
    name, source : str
        Paths below the copy and below the source, with "/".
    label : str, int or None
        Its class; None for what is not marked as one clip.
    bytes_before, bytes_after : int
        Sizes of the source and of the output.
    blake3_before, blake3_after : str
        Digests of the source and of the output, in hex.
    snr_db : float or None
        As in a manifest.
    """

    name: str
    source: str
    label: str | int | None
    bytes_before: int
    bytes_after: int
    blake3_before: str
    blake3_after: str
    snr_db: float | None

    def __repr__(self) -> str:
        return f"Output({self.name!r})"

    def verdict(self, found: str | None) -> Verdict:
        """The verdict on what is there now, by its digest; None if there is nothing."""
        if found is None:
            return Verdict.MISSING
        return Verdict.of(original=found == self.blake3_before, protected=found == self.blake3_after)


class Recorded(NamedTuple):
    """The outputs that a sidecar records, by name, and the counts of making them."""

    outputs: dict[str, Output]
    tally: Tally

    @property
    def array(self) -> Output | None:
        """The one output of the copy of an array."""
        return next(iter(self.outputs.values()), None)


def describe(
    what: str, source: Path, key: Key, plan: Plan, snr: float | None, notes: Iterable[str], **fields: Any
) -> dict[str, Any]:
    """The header of a copy of FILES or an ARRAY; `snr` is what the strength was set by, if by that."""
    return {
        **record.describe(COPY, plan, snr, notes),
        "of": what,
        "source": os.fsdecode(source),
        "labels": record.keyed_mac(key, b"labels", plan.digest()),
        "clips": len(plan.lengths),
        **fields,
    }


def is_copy(journal: Journal) -> bool:
    """Whether a sidecar is that of a copy."""
    return journal.header.get("kind") == COPY


def source_of(journal: Journal) -> Path:
    """What a copy was made of."""
    return Path(journal.header["source"])


def recipe_of(journal: Journal) -> Recipe:
    """The recipe that a copy was made with."""
    return Recipe.from_dict(journal.header["recipe"])


def append(journal: Journal, outputs: Sequence[Output], tally: Tally) -> None:
    """Record outputs, which must be durable by now, and the counts of those that were not recorded before."""
    journal.append(Kind.OUTPUTS, pack_json({"counts": tally.to_dict(), "outputs": outputs}))


def read(journal: Journal, only: str | None = None) -> Recorded:
    """What a sidecar records; of an output that was made again, what was found then.

    `only` is the name that a single file has now: it may have been renamed with its sidecar.
    """
    found = Recorded({}, Tally())
    for one in journal.records(Kind.OUTPUTS):
        fields, _ = unpack_json(one.payload)
        if "outputs" in fields:
            found.outputs.update((name, Output(name, *rest)) for name, *rest in fields["outputs"])
            found.tally.add(Tally(**fields["counts"]))
    return Recorded({name: one._replace(name=name) for name, one in named(found.outputs, only)}, found.tally)


def append_clips(journal: Journal, rows: NDArray[Any], lengths: NDArray[Any] | None) -> None:
    """Record the row of the marks of each clip of an array, and its length in frames unless all clips are full."""
    for first in range(0, len(rows), CLIPS_PER_RECORD):
        some = slice(first, first + CLIPS_PER_RECORD)
        parts = [pack_json({"first": first, "full": lengths is None}), rows[some].astype("<u4").tobytes()]
        if lengths is not None:
            parts.append(lengths[some].astype("<u8").tobytes())
        journal.append(Kind.OUTPUTS, b"".join(parts))


def read_clips(journal: Journal, full: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The row of each clip of an array, and its length in frames; `full` is that of a full one."""
    n = int(journal.header["clips"])
    rows, lengths = np.zeros(n, np.int64), np.full(n, full, np.int64)
    for one in journal.records(Kind.OUTPUTS):
        fields, rest = unpack_json(one.payload)
        if "first" in fields:
            some = slice(fields["first"], min(fields["first"] + CLIPS_PER_RECORD, n))
            size = some.stop - some.start
            rows[some] = np.frombuffer(rest, "<u4", size)
            if not fields["full"]:
                lengths[some] = np.frombuffer(rest, "<u8", size, 4 * size)
    return rows, lengths


def go_on(journal: Journal, header: dict[str, Any]) -> None:
    """Record that a finished copy grows, or lies elsewhere now; it is in state APPLYING then."""
    header = {**header, "run": journal.header["run"]}
    journal.append(Kind.MORE, pack_json(header))
    journal.header, journal.state = header, State.APPLYING


def refuse_other(journal: Journal, what: str, target: Path) -> None:
    """SidecarError unless a sidecar, if there is one, is that of a copy of FILES or of an ARRAY."""
    if journal.state is State.NEW:
        return
    if not is_copy(journal):
        raise SidecarError(
            f"The sidecar {journal.path} says that {target} was protected in place; it is not a copy. Choose another "
            f"path for the copy. Nothing was written."
        )
    if journal.header["of"] != what:
        raise SidecarError(
            f"The sidecar {journal.path} is that of a copy of {journal.header['of']}, not of {what}; choose another "
            f"path for the copy. Nothing was written."
        )


def refuse_other_recipe(journal: Journal, recipe: Recipe, snr: float | None, share: int | None) -> None:
    """SidecarError if a copy was begun with another recipe or share, or with its strength set by another SNR."""
    was_marked = record.recorded_share(journal)
    if share != was_marked:
        was, now = ("all clips" if part is None else f"a share of {part / MILLION:g}" for part in (was_marked, share))
        raise SidecarError(
            f"The copy that {journal.path} records marks {was}, and this call asks for {now}. Give the same, or choose "
            f"another path for the copy. Nothing was written."
        )
    recorded, by = recipe_of(journal), journal.header["snr"]
    if snr != by or (snr is None and recipe != recorded):
        was = f"an SNR of {by:g} dB" if by is not None else recipe_in_words(recorded.to_dict())
        now = f"an SNR of {snr:g} dB" if snr is not None else recipe_in_words(recipe.to_dict())
        raise SidecarError(
            f"The copy that {journal.path} records was begun with {was}, and this call asks for {now}. Give the same, "
            f"or choose another path for the copy. Nothing was written."
        )


def refuse_restore(journal: Journal, target: Path) -> NoReturn:
    """DatasetError that says where the originals of a copy are, as far as that can be told without comparing them."""
    source = source_of(journal)
    if os.path.lexists(source):
        where = f"your originals are at {source}; verify compares with them (source=PATH)"
    else:
        where = f"it was made of {source}, which is not there"
    raise DatasetError(
        f"{target} is a copy, which keeps no originals: {where}. Of format 2, the key can subtract the mark into "
        f"another path (without_sidecar=True). Nothing was written."
    )


def refuse_drop(journal: Journal, target: Path) -> None:
    """DatasetError if the undo of a copy is to be dropped: its sidecar keeps none."""
    if is_copy(journal):
        raise DatasetError(
            f"{target} is a copy, and its sidecar keeps no originals to drop: its undo is {source_of(journal)}. "
            f"Nothing was written."
        )


def refuse_in_place(journal: Journal, target: Path) -> None:
    """SidecarError if data that are to be protected in place are a copy, which is protected already."""
    if is_copy(journal):
        raise SidecarError(
            f"{target} is a copy of {source_of(journal)} and is protected already ({journal.path}); it would be marked "
            f"twice. Nothing was written."
        )


def note_of(source: Path, target: Path) -> str:
    """The last note of the report of a copy."""
    return f"{target} may be published; {source} is its undo: keep it"


def refuse_sidecar(sidecar: Path, source: Path, target: Path) -> None:
    """SidecarError if a sidecar that the user names would be, or lie in, something that is read or written."""
    if not sidecar.parent.is_dir():
        raise SidecarError(f"The folder of the sidecar {sidecar} does not exist; make it, or choose another path.")
    for path in (manifest_of(target), manifest_of(source)):
        if sidecar == path:
            raise SidecarError(f"The sidecar {sidecar} would be the manifest of the same data; choose another path.")
    if sidecar == sidecar_of(source) and source != target:
        raise SidecarError(f"{sidecar} is the name of the sidecar of {source} itself; choose another path.")
    for path in (target, source):
        if path == sidecar or path in sidecar.parents:
            raise SidecarError(f"The sidecar {sidecar} would be, or lie inside, {path}; choose another path for it.")


def refuse_place(target: Path, sidecar: Path, *, is_folder: bool) -> None:
    """DatasetError or OSError if a copy, its manifest or its sidecar cannot be made where they are to be."""
    beside, manifest = existing(target.parent), manifest_of(target)
    for folder in {beside, existing(sidecar.parent), *([target] if is_folder and target.is_dir() else [])}:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise DatasetError(f"You may not write in {folder}; change its permissions, or choose another path.")
    record.refuse_mounted(target, sidecar)
    record.refuse_long(manifest, sidecar)
    record.refuse_part_folders(manifest, sidecar)


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists; DatasetError if a file is in the way."""
    while not folder.is_dir():
        if os.path.lexists(folder):
            raise DatasetError(f"{folder} is not a folder; choose another path for the copy.")
        folder = folder.parent
    return folder


def part_of(run: str, number: int) -> str:
    """The hidden name of an output of a run until it is complete; short, however long its own name is."""
    return f".{run[:12]}-{number}{disk.PART_SUFFIX}"


def tidy(folder: Path, run: str) -> None:
    """Remove what a killed call of a run left under hidden names in a folder."""
    begin = part_of(run, 0).partition("-")[0] + "-"
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name.startswith(begin) and entry.name.endswith(disk.PART_SUFFIX):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)


def shown(problems: Sequence[str]) -> str:
    """The first few lines of a list, for a message."""
    more = f"\n  and {len(problems) - NAMES_SHOWN:,} more" if len(problems) > NAMES_SHOWN else ""
    return "".join(f"\n  {problem}" for problem in problems[:NAMES_SHOWN]) + more


def entries(outputs: Iterable[Output]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a manifest says of outputs, in the order of their names."""
    for output in sorted(outputs):
        if output.label is not None:
            fields = output._asdict()
            yield fields.pop("name"), fields
