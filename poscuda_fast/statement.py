"""A dated statement of what was protected: made before release, and referred to by an ownership test later."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hmac
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from poscuda_fast import disk
from poscuda_fast.arrays.opening import is_array
from poscuda_fast.arrays.originals import open_array
from poscuda_fast.arrays.verbs import verify_array
from poscuda_fast.disk import PathLike
from poscuda_fast.errors import DatasetError
from poscuda_fast.files.originals import open_files
from poscuda_fast.files.paths import Paths
from poscuda_fast.files.verbs import verify_folder
from poscuda_fast.key import Key, check_key
from poscuda_fast.mark.labels import label_of, token_of
from poscuda_fast.recipe import USUAL_RATE, Recipe
from poscuda_fast.results import Shown, Verdict, Verification, recipe_in_words
from poscuda_fast.secrecy import discreet
from poscuda_fast.undo.journal import Journal, State
from poscuda_fast.undo.manifest import Manifest, digest
from poscuda_fast.undo.record import recorded_share, tokens_of

VERSION = 1
NAMES_SHOWN = 10
_KIND, _DIGEST = "poscuda_statement", "digest"
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{64}")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")

Label = str | int


@dataclasses.dataclass(frozen=True, slots=True)
class Statement(Shown):
    """What was protected, with which key, recipe and labels, and when; `str` shows it as a short table.

    It holds no secret, and proves a date only if others have its `digest` since then: publish that, or have it
    time-stamped. FORMAT.md, "Statement", defines every field to the bit.

    Attributes
    ----------
    date : str
        When it was made, in UTC, by the clock of the machine that made it: "2026-11-27T12:00:00Z".
    fingerprint : str
        Fingerprint of the key.
    commitment : str
        64 hex digits that only this key has, and that tell nothing of it.
    recipe : dict
        The fields of the recipe, with the format's number.
    sample_rates : tuple of int
        In format 2, the different sample rates of the clips in Hz; empty in format 1.
    labels : tuple of int or str
        The classes: numbers, then names; or, if they are hidden, 64 hex digits for each.
    labels_hidden : bool
        Whether labels can be told only with the key.
    clips : int
        How many clips protecting changed. Those are listed in `content`.
    content : str
        BLAKE3 of the list of clips, in hex; keyed where only a share is marked.
    """

    date: str
    fingerprint: str
    commitment: str
    recipe: dict[str, Any]
    sample_rates: tuple[int, ...]
    labels: tuple[Label, ...]
    labels_hidden: bool
    clips: int
    content: str

    @property
    def digest(self) -> str:
        """BLAKE3 of all other fields, in hex: what to publish, or to have time-stamped."""
        text = json.dumps(self._fields(), sort_keys=True, separators=(",", ":"))
        return str(blake3(text.encode("ascii")).hexdigest())

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values, `digest` included."""
        return {**self._fields(), _DIGEST: self.digest}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Statement:
        """The statement that `to_dict` described; DatasetError unless it is that to the last character."""
        if not isinstance(fields, Mapping) or _KIND not in fields:
            raise DatasetError("This is not a statement; give one that ownership_statement made.")
        if type(fields[_KIND]) is not int or fields[_KIND] != VERSION:
            raise DatasetError(
                f"The statement has version {fields[_KIND]!r:.40}, and this poscuda-fast reads version {VERSION}; use "
                f"the version that made it."
            )
        rest = {name: value for name, value in fields.items() if name not in (_KIND, _DIGEST)}
        kinds = {"sample_rates": list, "labels": list, "recipe": dict, "clips": int, "labels_hidden": bool}
        known = {field.name: kinds.get(field.name, str) for field in dataclasses.fields(cls)}
        whole = set(rest) == set(known) and all(type(rest[name]) is kind for name, kind in known.items())
        whole = whole and all(type(label) in (int, str) for label in rest["labels"])
        whole = whole and all(type(rate) is int for rate in rest["sample_rates"])
        whole = whole and bool(_DATE.fullmatch(rest["date"]) and _FINGERPRINT.fullmatch(rest["fingerprint"]))
        whole = whole and all(_HEX.fullmatch(rest[name]) for name in ("commitment", "content"))
        whole = whole and type(rest["recipe"].get("format")) is int
        if whole:
            found = cls(**{**rest, "labels": tuple(rest["labels"]), "sample_rates": tuple(rest["sample_rates"])})
            try:
                whole = found.digest == fields.get(_DIGEST)
            except (ValueError, TypeError, RecursionError):  # a recipe that is no JSON
                whole = False
        if not whole:
            raise DatasetError("The statement was changed since it was made, or is damaged; take a copy that was not.")
        return found

    @classmethod
    def load(cls, path: PathLike) -> Statement:
        """The statement in a file that `save` wrote; DatasetError if it is none, or was changed since."""
        content = disk.read_regular(path)
        try:
            return cls.from_dict(json.loads(content, object_pairs_hook=_of_pairs))
        except DatasetError as error:
            raise DatasetError(f"{os.fspath(path)!s}: {error}") from None
        except (ValueError, RecursionError):
            raise DatasetError(f"{os.fspath(path)!s} is not JSON, and so not a statement; give its file.") from None

    def save(self, path: PathLike) -> None:
        """Write the statement to a new file, durably; FileExistsError if there is one, which is not overwritten."""
        path = Path(path)
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"The folder of {path} does not exist; make it, or choose another path.")
        try:
            with disk.appearing(path, mode=None) as file:
                file.write((json.dumps(self.to_dict(), indent=1) + "\n").encode("ascii"))
        except FileExistsError:
            raise FileExistsError(f"{path} exists, and nothing is overwritten; choose another name.") from None

    def rows(self) -> Iterator[tuple[str, str]]:
        """The table, as (name, value)."""
        yield "digest", self.digest
        yield "date", self.date
        yield "clips", f"{self.clips:,}"
        yield "classes", f"{len(self.labels):,}{' (hidden)' * self.labels_hidden}"
        yield "recipe", recipe_in_words(self.recipe)
        yield "key fingerprint", self.fingerprint

    def _fields(self) -> dict[str, Any]:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {_KIND: VERSION, **fields, "sample_rates": list(self.sample_rates), "labels": list(self.labels)}


@discreet
def ownership_statement(
    data: Any, key: Key, *, sidecar: PathLike | None = None, hide_labels: bool = False
) -> Statement:
    """State what is protected, before it is released, for a later ownership test; nothing is written.

    `ownership_test(..., statement=...)` then shows that key, recipe and labels were not chosen after the fact. That
    takes more than the statement: its `digest` must have been published, or time-stamped by somebody else, before.

    Parameters
    ----------
    data : path, np.memmap or zarr.Array
        What was protected in place, or a protected copy: a folder, an audio file, or an array as for `verify_array`.
        It must be as protecting left it, all of what is recorded. Audio that was left unprotected is not stated.
    key : Key
        The key it was protected with.
    sidecar : path, optional
        As given to `protect_folder` or `protect_array`.
    hide_labels : bool
        State for each label only what nobody but the key's owner can tell it by. How many there are is seen.

    Returns
    -------
    Statement
        `save` writes it to a file.

    Raises
    ------
    DatasetError
        Not all that is recorded is protected, files were changed since, or a folder has no manifest, or another than
        the sidecar says. After `drop_undo` that tells only how many files there are, and their classes.
    SidecarError
        There is no sidecar, it is damaged or of another key, or, of an array, its undo was dropped.
    TypeError, ValueError, AudioFileError, BusyError, OSError
        As for `verify_folder` and `verify_array`.

    Notes
    -----
    `content` is the BLAKE3 of a list of lines that end in a line feed, sorted as bytes, one for each clip that
    protecting changed: the JSON array of its name, the BLAKE3 of its protected content in hex, and its label, in ASCII,
    with a blank behind each comma: ``["yes/a.wav", "af13...", "yes"]``. Of audio files the name is the path below the
    folder, with "/", or of a single file its name, and the content all bytes of the file. Of an array the name is the
    clip's number in decimal digits, and the content its samples, padding included, in C order and little-endian. Where
    only a share of the clips is marked, the BLAKE3 is keyed (FORMAT.md, "Statement"): whoever has the data could else
    try which few of them are listed.
    """
    check_key(key)
    is_path = isinstance(data, str | os.PathLike)
    of_files = is_path and not is_array(Path(data))
    found = (verify_folder if of_files else verify_array)(data, key, sidecar=sidecar)
    _refuse_unprotected(found, data if is_path else "the array")
    if of_files:
        recipe, rates, share, clips = _stated_files(data, key, sidecar, found.protected)
    else:
        recipe, rates, share, clips = _stated_array(data, key, sidecar)
    lines = sorted(
        json.dumps([name, content, _shown(label, key, hidden=hide_labels)]) + "\n" for name, content, label in clips
    )
    tokens = sorted({token_of(label) for _, _, label in clips})
    labels = [_shown(label_of(token), key, hidden=hide_labels) for token in tokens]
    if hide_labels:
        labels.sort()
    return Statement(
        date=dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        fingerprint=key.fingerprint,
        commitment=key.commitment,
        recipe=recipe.to_dict(),
        sample_rates=() if recipe.format == 1 else rates,
        labels=tuple(labels),
        labels_hidden=hide_labels,
        clips=len(lines),
        content=_content(lines, key if share is not None else None),
    )


def refuse_other(
    statement: Statement, key: Key, recipe: Recipe, labels: Iterable[Label], sample_rate: int | None
) -> None:
    """ValueError unless a test has the key, the recipe, the labels and a sample rate of the statement."""
    if not hmac.compare_digest(statement.commitment, key.commitment):
        raise ValueError(
            f"key has the fingerprint {key.fingerprint}, and statement was made with another key, of the "
            f"fingerprint {statement.fingerprint}; give that one."
        )
    if statement.recipe != recipe.to_dict():
        raise ValueError(
            f"recipe is {recipe_in_words(recipe.to_dict())}, and statement says {recipe_in_words(statement.recipe)}; "
            f"give that one."
        )
    given = {_shown(label, key, hidden=statement.labels_hidden): label for label in labels}
    missing, other = set(statement.labels) - set(given), set(given) - set(statement.labels)
    if other:
        names = _some(repr(given[label]) for label in other)
        raise ValueError(f"labels has classes that statement does not have: {names}; leave their clips out.")
    if missing:
        names = "" if statement.labels_hidden else f" ({_some(map(repr, missing))})"
        raise ValueError(
            f"labels lacks {len(missing)} of the {len(statement.labels)} classes of statement{names}. All of them are "
            f"tested, so that nobody can choose those that fit; give clips of each."
        )
    rate = USUAL_RATE if sample_rate is None else sample_rate
    if statement.sample_rates and rate not in statement.sample_rates:
        raise ValueError(
            f"sample_rate is {rate}, and statement says {', '.join(map(str, statement.sample_rates))} Hz; give one of "
            f"these."
        )


_Clips = list[tuple[str, str, Label]]  # name, digest, label


def _stated_files(
    data: PathLike, key: Key, sidecar: PathLike | None, n_protected: int
) -> tuple[Recipe, tuple[int, ...], int | None, _Clips]:
    """The recipe, the sample rates, the share, and the clips of audio files that are protected.

    The manifest is not authenticated: all that the sidecar tells of it must be so.
    """
    paths = Paths.of(Path(data), None, sidecar)
    if not paths.manifest.is_file():
        raise DatasetError(f"There is no manifest {paths.manifest}, which has the labels; put it back.")
    manifest = Manifest.read(paths.manifest, paths.only)
    with Journal(paths.sidecar, key) as journal:
        recipe, rates = Recipe.from_dict(journal.header["recipe"]), tuple(journal.header["rates"])
        is_final, n_clips = journal.state is State.FINAL, journal.summary["counts"]["clips"]
        tokens, share = set(tokens_of(journal.header)), recorded_share(journal)
    labels = {name: one["label"] for name, one in manifest.files.items()}
    changed = {name: one for name, one in manifest.files.items() if one["blake3_before"] != one["blake3_after"]}
    if is_final:  # the sidecar has no names any more
        is_other = len(labels) != n_clips or None in labels.values() or set(map(token_of, labels.values())) != tokens
    else:
        with open_files(data, key, sidecar) as run:
            is_other = labels != run.labels_by_name() or len(changed) != n_protected
    other = [name for name, one in changed.items() if digest(paths.root / name) != one["blake3_after"]]
    if is_other or other or manifest.fingerprint != key.fingerprint or manifest.recipe != recipe:
        names = f" ({_some(other)})" if other else ""
        raise DatasetError(
            f"The manifest {paths.manifest} is not that of {paths.target} as it is now{names}; put it back, or protect "
            f"again to have it written."
        )
    return recipe, rates, share, [(name, one["blake3_after"], one["label"]) for name, one in changed.items()]


def _stated_array(data: Any, key: Key, sidecar: PathLike | None) -> tuple[Recipe, tuple[int, ...], int | None, _Clips]:
    """The same of an array."""
    clips: _Clips = []
    with open_array(data, key, sidecar) as run:
        for clip in run.clips():
            if not clip.verdict.as_protected:
                raise DatasetError(f"Clip {clip.number} was changed meanwhile; make the statement again.")
            if clip.verdict is Verdict.PROTECTED:
                samples = np.ascontiguousarray(clip.now, clip.now.dtype.newbyteorder("<"))
                clips.append((str(clip.number), blake3(samples.tobytes()).hexdigest(), clip.label))
        return run.recipe, tuple(run.journal.header["rates"]), recorded_share(run.journal), clips


def _refuse_unprotected(found: Verification, data: Any) -> None:
    """DatasetError unless all that is recorded is protected."""
    if found.recorded_ok and found.protected and found.state in (State.COMPLETE.value, State.FINAL.value):
        return
    raise DatasetError(
        f"{os.fspath(data)!s} is not protected, so that there is nothing to state: {found.protected:,} of its clips or "
        f"files are protected, {found.original:,} original, {len(found.neither):,} neither and "
        f"{len(found.missing):,} missing (state {found.state}). Protect it first."
    )


def _content(lines: Iterable[str], key: Key | None) -> str:
    """The BLAKE3 of the list of clips; keyed if a key is given."""
    text = "".join(lines).encode("ascii")
    if key is None:
        return str(blake3(text).hexdigest())
    return str(blake3(text, key=key.derive(b"statement", b"content", length=32)).hexdigest())


def _of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; DatasetError if it has a name twice, of which one program reads the first, another the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise DatasetError("The statement has a field twice, and so was changed; take a copy that was not.")
    return found


def _some(names: Iterable[str]) -> str:
    """The first few names."""
    found = sorted(names)
    return ", ".join(found[:NAMES_SHOWN]) + (f" and {len(found) - NAMES_SHOWN:,} more" * (len(found) > NAMES_SHOWN))


def _shown(label: Label, key: Key, *, hidden: bool) -> Label:
    """A label as a statement has it: in one spelling, or hidden."""
    token = token_of(label)
    if not hidden:
        return label_of(token)
    return hmac.digest(key.derive(b"statement", b"labels", length=32), token, "sha256").hex()
