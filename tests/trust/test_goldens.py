"""Data that earlier versions left, in every state: they are recovered, verified and undone, for ever."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from audiofiles import write_tree
from crashes import OTHER, VERBS
from ledger import Ledger
from stages import SCENES, Scene

from poscuda_fast import SidecarError

GOLDENS = Path(__file__).with_name("goldens")
STATES = ["protected", "restored", "half protected", "half restored"]
NAMES = [name for name in SCENES if name != "OddWav"]


def opened(name: str, state: str, root: Path) -> Scene:
    """One state of one golden, unpacked."""
    if name == "ZarrArray":
        pytest.importorskip("zarr")
    found: dict[str, dict[str, bytes]] = {}
    with zipfile.ZipFile(GOLDENS / f"{name}.zip") as packed:
        for entry in packed.namelist():
            where, _, file = entry.partition("/")
            if not file.endswith("/"):
                found.setdefault(where, {})[file] = packed.read(entry)
    write_tree(root, found[state])
    return SCENES[name].of(root, found["original form"], found["protected form"])


def test_there_is_a_golden_of_each_kind_of_data() -> None:
    assert {path.stem for path in GOLDENS.iterdir()} == set(NAMES)


@pytest.mark.guards("I6", "I7")
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("first", VERBS)
@pytest.mark.parametrize("name", NAMES)
def test_a_golden_is_finished_and_undone(name: str, first: str, state: str, tmp_path: Path, ledger: Ledger) -> None:
    scene = opened(name, state, tmp_path)
    before = scene.bytes()
    scene.verify()
    assert scene.bytes() == before
    for verb in (first, OTHER[first]):
        scene.run(verb)
        assert scene.wrong_after(verb) is None
    ledger.count("goldens", tried=1, wrong=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_without_its_undo_stays_protected(name: str, tmp_path: Path, ledger: Ledger) -> None:
    scene = opened(name, "final", tmp_path)
    assert scene.protect() == "already protected"
    with pytest.raises(SidecarError, match="was dropped"):
        scene.restore()
    assert scene.wrong_after("protect") is None
    ledger.count("goldens", tried=1, wrong=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_goldens_are_in_the_states_that_they_are_named_for(name: str, tmp_path: Path) -> None:
    for state in STATES:
        scene = opened(name, state, tmp_path / state)
        is_whole = not state.startswith("half")
        forms = [scene.wrong_after(verb) is None for verb in VERBS]
        assert forms == ([state == "protected", state == "restored"] if is_whole else [False, False]), state
