"""The disk is full, or somebody cuts the file meanwhile: an error or a death, and nothing is lost."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_trial import SMALL, Data
from audiofiles import contents, in_child, noise, wav, write_tree
from ledger import Ledger
from recipes import protect_folder, protect_memmap

from poscuda_fast import Key, restore_folder, restore_memmap, verify_memmap

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    pytest.mark.usefixtures("small_batches", "small_folder_batches"),
]
MEBIBYTE = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={4 * MEBIBYTE}", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("this system has no mount command")
    if done.returncode != 0:
        pytest.skip(f"no small file system may be mounted here: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, leaving: int) -> Path:
    """A file that leaves this many bytes free."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - leaving))
    return ballast


class Stopped:
    """A file that fills the disk once a run has written a part of what it has to."""

    def __init__(self, disk: Path, after: int) -> None:
        self._disk, self._after = disk, after
        self.ballast: Path | None = None

    def __call__(self, done: int, total: int) -> None:
        if self.ballast is None and done >= self._after:
            self.ballast = fill(self._disk, 0)


@pytest.mark.guards("I8")
@pytest.mark.parametrize("after", [1, 100, 300])
def test_an_array_whose_disk_is_full_in_the_middle(small_disk: Path, key: Key, ledger: Ledger, after: int) -> None:
    samples = np.random.default_rng(3).integers(-20_000, 20_000, (600, 300), dtype=np.int16)
    data = Data(small_disk, key, samples, np.arange(600) % 3, SMALL)
    filler = Stopped(small_disk, after)
    with pytest.raises(OSError, match=r"clips\.npy\.poscuda|No space left"):
        data.protect(progress=filler)
    assert not data.changed_outside()
    filler.ballast.unlink()
    right = data.is_right_after_protect()
    ledger.count("full_disks", tried=1, wrong=not right)
    assert right


@pytest.mark.guards("I8")
@pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])
@pytest.mark.parametrize("after", [1, 9, 20])
def test_a_folder_whose_disk_is_full_in_the_middle(
    small_disk: Path, tmp_path: Path, key: Key, ledger: Ledger, copying: bool, after: int
) -> None:
    before = {f"{'ab'[n % 2]}/{n}.wav": wav(noise(10_000 + n, seed=n)) for n in range(30)}
    src = tmp_path / "src" if copying else small_disk / "src"
    write_tree(src, before)
    root = small_disk / "dst" if copying else src
    filler = Stopped(small_disk, after)

    def protect(**options: Any) -> str:
        return protect_folder(src, root if copying else None, key, threads=1, **options).state

    with pytest.raises(OSError, match=r"poscuda|No space left"):
        protect(progress=filler)
    assert [name for name in contents(root, hidden=True) if name.endswith("-part")] == []
    filler.ballast.unlink()
    right = protect() == "protected"
    right = right and restore_folder(root, key).state == "restored"
    found = {name: data for name, data in contents(root).items() if name != "poscuda.json"}
    ledger.count("full_disks", tried=1, wrong=not right or found != before)
    assert right
    assert found == before


def test_a_sparse_array_on_a_full_disk_is_refused_and_kills_nobody(small_disk: Path, key: Key, ledger: Ledger) -> None:
    path = small_disk / "clips.raw"
    with open(path, "wb") as file:
        file.truncate(2 * MEBIBYTE)
    fill(small_disk, 1_300_000)
    arr = np.memmap(path, np.int16, "r+", shape=(1024, 1024))

    def refused() -> None:
        with pytest.raises(OSError, match=r"needs about [\d,]+ bytes and [\d,]+ are free there"):
            protect_memmap(arr, np.zeros(1024, int), key)

    right = in_child(refused) == 0 and sorted(os.listdir(small_disk)) == ["ballast", "clips.raw"]
    ledger.count("full_disks", tried=1, wrong=not right)
    assert right


@pytest.mark.parametrize("verb", ["protect", "restore"])
@pytest.mark.parametrize("left", [1, 4000, 9000])
def test_a_file_that_is_cut_while_it_is_mapped(folder: Path, key: Key, ledger: Ledger, verb: str, left: int) -> None:
    samples = np.random.default_rng(5).integers(-20_000, 20_000, (30, 300), dtype=np.int16)
    data = Data(folder, key, samples, np.arange(30) % 3, SMALL)
    if verb == "restore":
        data.protect()

    def cut(done: int, total: int) -> None:
        if done >= 6:
            os.truncate(data.path, left)

    def run() -> None:
        faulthandler.disable()  # a death is expected
        arr = np.load(data.path, mmap_mode="r+")
        if verb == "protect":
            data.protect(progress=cut)
        else:
            restore_memmap(arr, key, progress=cut)

    ended = in_child(run)
    assert ended in (1, -signal.SIGBUS)  # nobody can store where no file is
    remains = data.path.read_bytes()
    assert len(remains) == left
    outside = np.frombuffer(remains, np.uint8)[data.is_outside[:left]]
    assert np.array_equal(outside, np.frombuffer(data.original[:left], np.uint8)[data.is_outside[:left]])
    # Whoever cut it puts the end of the original back: the sidecar then knows the rest.
    with open(data.path, "ab") as file:
        file.write(data.original[left:])
    right = data.is_right_after_protect() if verb == "protect" else data.is_right_after_restore()
    ledger.count("full_disks", tried=1, wrong=not right)
    assert right


def test_a_file_that_was_cut_is_refused(folder: Path, key: Key, ledger: Ledger) -> None:
    samples = np.random.default_rng(5).integers(-20_000, 20_000, (30, 300), dtype=np.int16)
    data = Data(folder, key, samples, np.arange(30) % 3, SMALL)
    arr = np.load(data.path, mmap_mode="r+")
    data.protect()
    os.truncate(data.path, 5000)
    for verb in (
        lambda: protect_memmap(arr, data.labels, key, recipe=SMALL),
        lambda: restore_memmap(arr, key),
        lambda: verify_memmap(arr, key),
    ):
        with pytest.raises(ValueError, match="it was cut after it was mapped"):
            verb()
    assert data.path.read_bytes() == data.protected[:5000]
    ledger.count("full_disks", tried=1, wrong=0)
