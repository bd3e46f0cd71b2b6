"""What every sidecar records of its run, for an array, for files and for copies."""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from poscuda_fast import disk
from poscuda_fast.errors import BusyError, DatasetError, SidecarError
from poscuda_fast.key import Key
from poscuda_fast.mark.labels import label_of
from poscuda_fast.mark.marks import Marks, draw_marks
from poscuda_fast.mark.plan import Plan
from poscuda_fast.recipe import Recipe
from poscuda_fast.results import Settings
from poscuda_fast.undo.journal import Journal, State, sidecar_of

PART_BYTES = 23  # by which the hidden names of sidecars and manifests are longer than their own, at most
_KINDS = {"array": "an array", "files": "audio files that were edited in place", "copy": "a copy"}


def describe(kind: str, plan: Plan, snr: float | None, notes: Iterable[str]) -> dict[str, Any]:
    """The header fields of every run.

    `snr` is what the recipe's strength was set by, if by that; `notes` are for the report.
    """
    return {
        "kind": kind,
        "fingerprint": plan.settings().fingerprint,
        "recipe": plan.recipe.to_dict(),
        "snr": snr,
        "share": None if plan.tags is None else plan.tags.share,
        "rates": list(plan.rates),
        "rate_assumed": plan.rate_assumed,
        "notes": list(notes),
        "tokens": [token.hex() for token in plan.labels.tokens],
        "counts": plan.counts(),
    }


def marks_of(key: Key, header: Mapping[str, Any]) -> Marks:
    """The marks of a recorded run: a row for each token at each rate in turn."""
    return draw_marks(key, tokens_of(header), Recipe.from_dict(header["recipe"]), header["rates"])


def tokens_of(header: Mapping[str, Any]) -> Sequence[bytes]:
    """The class tokens of a recorded run."""
    return [bytes.fromhex(token) for token in header["tokens"]]


def refuse_unless(journal: Journal, kind: str) -> None:
    """SidecarError if no run was begun, if it is of another kind, or if its undo was dropped."""
    refuse_without_run(journal)
    found = journal.header["kind"]
    if found != kind:
        raise SidecarError(f"The sidecar {journal.path} belongs to {_KINDS[found]}, not to {_KINDS[kind]}.")
    if journal.state is State.FINAL:
        raise SidecarError(
            f"The undo in {journal.path} was dropped: what tells the originals is gone, so the data can be neither "
            f"restored by it nor compared with them. Of format 2, the key can subtract the mark into another path "
            f"(without_sidecar=True). Nothing was written."
        )


def settings_of(journal: Journal) -> Settings:
    """What a report says of a recorded run."""
    header = journal.header
    return Settings(header["fingerprint"], header["recipe"], tuple(header["rates"]), header["rate_assumed"])


def notes_of(journal: Journal) -> tuple[str, ...]:
    """The notes of the report of a recorded run."""
    return tuple(journal.header["notes"])


REBUILT = "rebuilt"  # a header's notes on what was computed from marked data, not recorded before they were marked


def rebuilt_notes(journal: Journal) -> tuple[str, ...]:
    """What may not be the original's where a sidecar was computed from marked data."""
    return tuple(journal.header.get(REBUILT, ()))


def is_unfinished_rebuild(journal: Journal) -> bool:
    """Whether a sidecar was being computed from marked data and is not complete: all data are marked still."""
    return REBUILT in journal.header and journal.state is State.APPLYING and not journal.summary


def refuse_unfinished_rebuild(journal: Journal) -> None:
    """SidecarError if a sidecar records some of the data, which are all marked: others would be taken for new."""
    if is_unfinished_rebuild(journal):
        raise SidecarError(
            f"The sidecar {journal.path} was being made by an undo without a sidecar, which was stopped. Make that "
            f"call again, or delete this sidecar: nothing else was written."
        )


def refuse_unless_without(**given: Any) -> None:
    """ValueError if an argument was given that only an undo without a sidecar takes."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ValueError(
            f"{names[0]} is given, which a sidecar records; only without_sidecar=True takes it. Leave it out."
        )


def refuse_partial(*, partial: bool) -> None:
    """ValueError if an undo without a sidecar is asked to leave out what changed: it cannot tell."""
    if partial:
        raise ValueError(
            "partial=True is given, and so is without_sidecar=True, which undoes everything; leave one of them out."
        )


def refuse_to_rebuild(journal: Journal, data: Path) -> None:
    """SidecarError if data have a sidecar, other than one that an undo without a sidecar made."""
    default, own = sidecar_of(data), Path(os.path.realpath(journal.path.parent), journal.path.name)
    if journal.state is not State.NEW and REBUILT not in journal.header:
        found = f"{data} has a sidecar, {journal.path}, of {_KINDS.get(journal.header['kind'], 'other data')}"
    elif own != default and os.path.lexists(default):
        found = f"{data} has a sidecar, {default}"
    else:
        return
    way = "" if journal.state is State.FINAL else "restore by it, without without_sidecar=True, or "
    raise SidecarError(
        f"{found}: {way}give a new path for a copy (dst=PATH). To undo in place without it, move it away first. "
        f"Nothing was written."
    )


def refuse_unsettled(sidecar: Path, key: Key) -> None:
    """SidecarError if a sidecar that can be read tells of a run that was stopped, so that only a part is marked."""
    if not os.path.lexists(sidecar):
        return
    try:
        with Journal(sidecar, key) as journal:
            stopped = journal.state in (State.APPLYING, State.UNDOING) and not is_unfinished_rebuild(journal)
    except BusyError:
        raise
    except SidecarError:  # damaged, or of another key: it tells nothing
        return
    if stopped:
        raise SidecarError(
            f"The sidecar {sidecar} tells of a run that was stopped, so that only a part of the data is marked; finish "
            f"it, or restore by it, first. Nothing was written."
        )


def recorded_recipe(journal: Journal) -> Recipe | None:
    """The recipe that the data may be marked with already; None if there is no run, or it was undone."""
    if journal.state in (State.NEW, State.UNDONE):
        return None
    return Recipe.from_dict(journal.header["recipe"])


def recorded_share(journal: Journal) -> int | None:
    """The share of the clips that a run marks, in millionths; None if all."""
    share: int | None = journal.header.get("share")
    return share


def refuse_without_run(journal: Journal) -> None:
    """SidecarError if there is no sidecar."""
    if journal.state is State.NEW:
        raise SidecarError(
            f"The sidecar {journal.path} does not exist: nothing can be restored by it, nor compared with its "
            f"original. If it was moved, give its path (sidecar=PATH); if it is lost, key and labels undo format "
            f"2 (without_sidecar=True). If the data are a part of what was protected, name the whole."
        )


def keyed_mac(key: Key, purpose: bytes, message: bytes) -> str:
    """HMAC-SHA256 in hex, under a key of its own for each purpose."""
    return hmac.digest(key.derive(b"sidecar", purpose, length=32), message, "sha256").hex()


def refuse_mounted(data: Path, sidecar: Path) -> None:
    """SidecarError if data are mounted where they are: a sidecar beside them would not go where they go."""
    # A file on an overlay has another device than its folder.
    if data.is_dir() and sidecar == sidecar_of(data) and os.stat(data).st_dev != os.stat(data.parent).st_dev:
        raise SidecarError(
            f"{data} and the folder that it lies in are different file systems, and a sidecar beside it would not go "
            f"where it goes; name another one (sidecar=PATH). Nothing was written."
        )


def refuse_long(*paths: Path) -> None:
    """DatasetError if a file beside data would have too long a name, hidden names of it included."""
    for path in paths:
        most = longest_name(path.parent) - PART_BYTES
        if len(os.fsencode(path.name)) > most:
            raise DatasetError(
                f"{path.name} has {len(os.fsencode(path.name))} bytes, and a name there may have {most}; choose a "
                f"shorter name for the data, or for the sidecar. Nothing was written."
            )


def refuse_closed(*paths: Path) -> None:
    """DatasetError if files cannot be made, or replaced, in the folders of some paths."""
    for folder in {path.parent for path in paths}:
        if not folder.is_dir():
            raise SidecarError(f"The folder {folder} does not exist; make it, or choose another path for the sidecar.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise DatasetError(
                f"You may not write in {folder}, where sidecar and manifest lie; change its permissions, or name "
                f"another sidecar (sidecar=PATH). Nothing was written."
            )


def refuse_part_folders(*paths: Path) -> None:
    """DatasetError if a folder has the name under which one of some files is written before it is complete."""
    for path in paths:
        part = disk.part_of(path)
        if part.is_dir() and not part.is_symlink():
            raise DatasetError(
                f"{part} is a folder, and {path.name} has that name until it is complete; move the folder away. "
                f"Nothing was written."
            )


def longest_name(folder: Path) -> int:
    """The most bytes that a name in a folder may have."""
    while not folder.is_dir():
        folder = folder.parent
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, AttributeError, ValueError):
        return 255


def refuse_protected(data: Path, sidecars: Iterable[Path], key: Key) -> None:
    """SidecarError if data are protected already, also as part of other data: they would be marked twice.

    Files of people who own neither the data nor this process tell nothing: whoever may write beside a shared folder
    could otherwise keep everyone from working in it.
    """
    known = {0, os.geteuid(), os.stat(data).st_uid}
    for sidecar in sidecars:
        if not os.path.lexists(sidecar) or os.lstat(sidecar).st_uid not in known:
            continue
        try:
            with Journal(sidecar, key) as journal:
                state = journal.state
        except SidecarError as error:
            raise type(error)(
                f"{data} contains, or lies in, data that were protected separately. {error} If they are originals "
                f"again, move that sidecar away."
            ) from None
        if state not in (State.NEW, State.UNDONE):
            raise SidecarError(
                f"{data} is protected already by {sidecar}, as a whole or in part (state {state.value}), and would be "
                f"marked twice. {_way_back(state)} Nothing was written."
            )


def _way_back(state: State) -> str:
    if state is State.FINAL:
        return "Its undo was dropped: subtract the mark first, in format 2 (without_sidecar=True), or take originals."
    return "Restore it first."


class Run:
    """A run in place whose originals can be told, read from its sidecar, which must stay open while this is used.

    Attributes
    ----------
    journal : Journal
        The sidecar.
    recipe : Recipe
        What was applied.
    tokens : tuple of bytes
        The class token of each row of the marks.
    labels : list of str or int
        The label of each row.
    n_clips : int
        Number of clips or files.
    """

    def __init__(self, journal: Journal, kind: str) -> None:
        refuse_unless(journal, kind)
        if journal.state is State.UNDONE:
            raise SidecarError(
                f"The run in {journal.path} was undone: the data are the originals again, and nothing is protected. "
                f"Protect them first."
            )
        self.journal = journal
        self.recipe = Recipe.from_dict(journal.header["recipe"])
        self.tokens = tuple(tokens_of(journal.header))
        # Rows are numbered class by class at each sample rate in turn.
        self.labels = [label_of(token) for token in self.tokens] * len(journal.header["rates"])
        self.n_clips = int(journal.header["counts"]["clips"])
