"""Faults: one file that is changed, missing or unwritable never stops the others, and no state is a dead end."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from audiofiles import contents, noise, wav, write_tree
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from poscuda_fast import DatasetError, Key, SidecarError, protect_folder, restore_folder, verify_folder

KEY = Key(bytes(range(32)))
FILES = {f"{'yes' if n % 2 else 'no'}/{n}.wav": wav(noise(600 + n, seed=n)) for n in range(4)}
NAMES = sorted(FILES)


def protected_form() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        write_tree(Path(folder) / "src", FILES)
        protect_folder(Path(folder) / "src", None, KEY)
        return contents(Path(folder) / "src")


MARKED = protected_form()


class Folder(RuleBasedStateMachine):
    """Four files; each can be harmed and put back, and every verb is called at any time."""

    in_place = True

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.src, self.dst = self.root / "src", self.root / "dst"
        write_tree(self.src, FILES)
        self.harmed: dict[str, bytes] = {}
        self.recorded: set[str] = set()  # what a change can be told from

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @property
    def target(self) -> Path:
        return self.src if self.in_place else self.dst

    def protect(self, *, partial: bool) -> object:
        return protect_folder(self.src, None if self.in_place else self.dst, KEY, partial=partial)

    @rule(partial=st.booleans())
    def protecting(self, partial: bool) -> None:
        before = contents(self.target) if self.target.exists() else {}
        try:
            report = self.protect(partial=partial)
        except (SidecarError, DatasetError):
            assert self.harmed
            assert not partial
            assert before == (contents(self.target) if self.target.exists() else {})
        else:
            self.recorded |= set(NAMES) - set(self.harmed)
            for name in set(NAMES) - set(self.harmed):
                assert (self.target / name).read_bytes() == MARKED[name], report

    @rule(partial=st.booleans())
    def restoring(self, partial: bool) -> None:
        before = contents(self.src)
        try:
            restore_folder(self.target, KEY, partial=partial)
        except (SidecarError, DatasetError):
            assert before == contents(self.src)
            begun = self.src.with_name("src.poscuda").exists()
            assert not (partial and begun and self.in_place)
            assert self.harmed or not self.in_place or not self.src.with_name("src.poscuda").exists()
        else:
            for name in set(NAMES) - set(self.harmed):
                assert (self.src / name).read_bytes() == FILES[name]

    @rule()
    def verifying(self) -> None:
        before = contents(self.root)
        if self.target.with_name(f"{self.target.name}.poscuda").exists():
            found = verify_folder(self.target, KEY)
            assert found.original + found.protected + len(found.unprotected) >= len(self.recorded - set(self.harmed))
        assert contents(self.root) == before

    @rule(name=st.sampled_from(NAMES), how=st.sampled_from(["change", "delete", "link", "folder", "cut"]))
    def harm(self, name: str, how: str) -> None:
        path = self.src / name
        if name in self.harmed or len(self.harmed) > 1 or (how == "change" and name not in self.recorded):
            return
        self.harmed[name] = content = path.read_bytes()
        path.unlink()
        if how == "change":
            path.write_bytes(content[:500] + bytes(200) + content[700:])
        elif how == "cut":
            path.write_bytes(content[:30])
        elif how == "link":
            path.symlink_to("/dev/null")
        elif how == "folder":
            path.mkdir()

    @rule(name=st.sampled_from(NAMES))
    def put_back(self, name: str) -> None:
        if name in self.harmed:
            path = self.src / name
            if path.is_dir():
                path.rmdir()
            elif os.path.lexists(path):
                path.unlink()
            path.write_bytes(self.harmed.pop(name))

    @invariant()
    def every_file_is_one_of_two(self) -> None:
        for name in set(NAMES) - set(self.harmed):
            assert (self.src / name).read_bytes() in ({FILES[name], MARKED[name]} if self.in_place else {FILES[name]})


class Copy(Folder):
    in_place = False


@pytest.mark.parametrize(("frames", "undone_in_part"), [(603, False), (9, False), (9, True)])
def test_a_file_of_another_sample_rate_is_left_out_until_it_is_put_back(
    tmp_path: Path, frames: int, undone_in_part: bool
) -> None:
    write_tree(tmp_path / "src", FILES)
    protect_folder(tmp_path / "src", None, KEY)
    other = wav(noise(frames, seed=3), rate=8000)
    (tmp_path / "src/yes/3.wav").write_bytes(other)
    if undone_in_part:
        restore_folder(tmp_path / "src", KEY, partial=True)
    before = contents(tmp_path)
    with pytest.raises(SidecarError, match=r"3\.wav had 16,000 Hz, and now says 8,000 Hz.*partial=True"):
        protect_folder(tmp_path / "src", None, KEY)
    assert contents(tmp_path) == before
    report = protect_folder(tmp_path / "src", None, KEY, partial=True)
    assert report.left_out == ("yes/3.wav had 16,000 Hz, and now says 8,000 Hz",)
    assert contents(tmp_path / "src") == {**MARKED, "yes/3.wav": other}
    (tmp_path / "src/yes/3.wav").write_bytes(MARKED["yes/3.wav"])
    protect_folder(tmp_path / "src", None, KEY)
    assert verify_folder(tmp_path / "src", KEY).protected == len(FILES)
    restore_folder(tmp_path / "src", KEY)
    assert contents(tmp_path / "src") == FILES


TestInPlace = Folder.TestCase
TestCopy = Copy.TestCase
TestInPlace.settings = TestCopy.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
