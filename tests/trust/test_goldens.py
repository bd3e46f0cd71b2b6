"""Data that earlier versions left, in every state: they are recovered, verified and undone, for ever."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audiofiles import contents
from ledger import Ledger

from poscuda_fast import (
    Key,
    Recipe,
    SidecarError,
    protect_folder,
    protect_memmap,
    restore_folder,
    restore_memmap,
    verify_folder,
    verify_memmap,
)  # fmt: skip

GOLDENS = Path(__file__).with_name("goldens")
STATES = ["committed", "torn", "complete", "undoing", "undone", "final"]
IN_SIDECAR = {"committed": "applying", "torn": "applying"}


class Golden:
    """One state of one golden, unpacked."""

    def __init__(self, archive: Path, state: str, folder: Path) -> None:
        with zipfile.ZipFile(archive) as packed:
            self.about: dict[str, Any] = json.loads(packed.read("golden.json"))
            packed.extractall(folder, [name for name in packed.namelist() if name.startswith(f"{state}/")])
        self.root = folder / state
        self.is_folder = "folder" in archive.stem
        self.key = Key(bytes.fromhex(self.about["key"]))
        self.key.save(folder / "golden.key")
        self.recipe = Recipe.from_dict(self.about["recipe"])

    @property
    def array(self) -> np.ndarray:
        return np.load(self.root / "clips.npy", mmap_mode="r+")

    def protect(self) -> str:
        if self.is_folder:
            return protect_folder(self.root, None, self.key, recipe=self.recipe).state
        return protect_memmap(self.array, self.about["labels"], self.key, recipe=self.recipe).state

    def restore(self) -> str:
        return (restore_folder(self.root, self.key) if self.is_folder else restore_memmap(self.array, self.key)).state

    def verify(self) -> Any:
        return verify_folder(self.root, self.key) if self.is_folder else verify_memmap(self.array, self.key)

    def is_(self, form: str) -> bool:
        """Whether every file is in its original or protected form."""
        found = {name: hashlib.sha256(data).hexdigest() for name, data in contents(self.root).items()}
        return all(found[name] == digest for name, digest in self.about[form].items())


def test_there_are_goldens_of_all_formats() -> None:
    kinds = {path.stem for path in GOLDENS.iterdir()}
    assert kinds == {f"format-{n}-{kind}" for n in (1, 2) for kind in ("int16", "float32", "folder")}


@pytest.fixture(params=sorted(GOLDENS.glob("*.zip")), ids=lambda path: path.stem)
def archive(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.mark.guards("I6", "I7")
@pytest.mark.parametrize("state", STATES)
def test_a_golden_is_finished_and_undone(archive: Path, state: str, tmp_path: Path, ledger: Ledger) -> None:
    golden = Golden(archive, state, tmp_path)
    if state == "undoing":
        with pytest.raises(SidecarError, match="run restore again"):
            golden.protect()
        assert golden.restore() == "restored"
        assert golden.is_("original")
    expected = "already protected" if state in ("complete", "final") else "protected"
    assert golden.protect() == expected
    assert golden.is_("protected")
    if state == "final":
        with pytest.raises(SidecarError, match="was dropped"):
            golden.restore()
        assert golden.is_("protected")
    else:
        assert golden.verify().protected == len(
            golden.about["original"] if golden.is_folder else golden.about["labels"]
        )
        assert golden.restore() == "restored"
        assert golden.is_("original")
    ledger.count("goldens", tried=1, wrong=0)


@pytest.mark.parametrize("state", ["committed", "torn", "complete", "undoing", "undone"])
def test_a_golden_is_undone_at_once(archive: Path, state: str, tmp_path: Path, ledger: Ledger) -> None:
    golden = Golden(archive, state, tmp_path)
    assert golden.verify().state == IN_SIDECAR.get(state, state)
    assert golden.restore() == ("already original" if state == "undone" else "restored")
    assert golden.is_("original")
    ledger.count("goldens", tried=1, wrong=0)


def test_the_goldens_are_in_the_states_that_they_are_named_for(archive: Path, tmp_path: Path) -> None:
    forms = {}
    for state in STATES:
        golden = Golden(archive, state, tmp_path / state)
        forms[state] = golden.is_("original"), golden.is_("protected")
    half = (False, False)
    whole = {"complete": (False, True), "undone": (True, False), "final": (False, True)}
    assert forms == {"committed": half, "torn": half, "undoing": half, **whole}
