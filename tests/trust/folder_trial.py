"""A folder of audio files that is protected, killed and restored, again and again."""

from __future__ import annotations

import functools
import mmap
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import audiofiles
from audiofiles import contents, in_child, noise, wav, write_tree
from recipes import protect_folder

from poscuda_fast import Key, disk, drop_undo, restore_folder
from poscuda_fast.files import wav as wavedit
from poscuda_fast.undo.journal import Journal, State

STEPS = [
    (Journal, "begin"),
    (Journal, "append"),
    (Journal, "move"),
    (Journal, "make_final"),
    (disk, "write_part"),
    (disk, "write_all"),
    (disk, "copy_part"),
    (disk, "sync_files"),
    (wavedit, "store"),
    (os, "replace"),
]


def dataset(root: Path) -> dict[str, bytes]:
    """Small WAV files, one that is large beside `pieces.PIECE_BYTES`, one encoded, and one that is no audio."""
    made = {f"{'yes' if n % 2 else 'no'}/{n}.wav": wav(noise(600 + n, seed=n)) for n in range(4)}
    made["no/large.wav"] = wav(noise(4000, 2))
    made["about.txt"] = b"about"
    write_tree(root, made)
    audiofiles.encoded(root / "yes/5.flac", noise(700), "FLAC", "PCM_16")
    return contents(root)


POINT = mmap.mmap(-1, 80)  # shared with the children: the name of the point that one died at


def die_at(n: int, steps: list[tuple[Any, str]] = STEPS) -> None:
    """From now on, count the points before, in and after each step, and die at the n-th."""
    count = 0

    def pass_by(point: str) -> None:
        nonlocal count
        count += 1
        if count == n:
            POINT[:] = point.encode().ljust(len(POINT))
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(owner: Any, name: str) -> None:
        step = getattr(owner, name)
        named = f"{owner.__name__.rpartition('.')[2]}.{name}"

        @functools.wraps(step)
        def hooked(*args: Any, **options: Any) -> Any:
            pass_by(f"before {named}")
            if name == "write_all":
                descriptor, content = args
                half = len(content) // 2
                step(descriptor, content[:half])
                pass_by(f"half of {named}")
                args = descriptor, content[half:]
            result = step(*args, **options)
            pass_by(f"after {named}")
            return result

        setattr(owner, name, hooked)

    for owner, name in steps:
        hook(owner, name)


def kills(call: Callable[[], object], *before: Callable[[], object]) -> Iterator[int]:
    """Run `call` in a process that dies at its first point, at its second, .. until it lives to the end."""

    def run(n: int) -> None:
        for prepare in before:
            prepare()
        die_at(n)
        call()

    n = 0
    while True:
        n += 1
        ended = in_child(functools.partial(run, n))
        assert ended in (0, -signal.SIGKILL)
        if ended == 0:
            return
        yield n


def last_point() -> str:
    """The name of the point at which the last process died."""
    return POINT[:].decode().rstrip()


def is_sound(root: Path, before: dict[str, bytes], after: dict[str, bytes], *, copying: bool) -> bool:
    """Whether no file that can be seen is harmed: in a copy each is protected, in place torn inside patches at most."""
    found = {name: content for name, content in contents(root).items() if name != "poscuda.json"}
    if copying:
        return all(content == after[name] for name, content in found.items())
    return set(found) == set(before) and all(
        _is_between(content, before[name], after[name], torn=name.endswith(".wav")) for name, content in found.items()
    )


def _is_between(content: bytes, before: bytes, after: bytes, *, torn: bool) -> bool:
    """Whether a file is one of two, or, if it may be torn, of their length with each byte from one of them."""
    if not torn:
        return content in (before, after)
    return len(content) == len(before) and all(c in (b, a) for c, b, a in zip(content, before, after, strict=True))


class Trial:
    """Fresh files below a folder, again and again, and the call that protects them."""

    def __init__(self, folder: Path, key: Key, before: dict[str, bytes], *, copying: bool, threads: int = 1) -> None:
        self.folder, self.key, self.before, self.copying, self.threads = folder, key, before, copying, threads
        self.begin("first")

    def begin(self, name: object) -> None:
        self.src = self.root = self.folder / f"{name}"
        write_tree(self.src, self.before)
        if self.copying:
            self.root = self.folder / f"copy {name}"

    def protect(self) -> str:
        dst = self.root if self.copying else None
        return protect_folder(self.src, dst, self.key, threads=self.threads).state

    def restore(self) -> None:
        """Undo whatever is journalled."""
        sidecar = self.root / ".poscuda"
        if sidecar.exists() and sidecar.stat().st_size:
            assert restore_folder(self.root, self.key).state in ("restored", "already original")

    def found(self) -> dict[str, bytes]:
        return {name: content for name, content in contents(self.root).items() if name != "poscuda.json"}

    def tree(self) -> list[tuple[Path, dict[str, bytes]]]:
        """Everything there is now."""
        return [(root, contents(root, hidden=True)) for root in dict.fromkeys((self.src, self.root)) if root.exists()]

    def put(self, tree: list[tuple[Path, dict[str, bytes]]]) -> None:
        """Bring back what `tree` found."""
        for root in (self.src, self.root):
            shutil.rmtree(root, ignore_errors=True)
        for root, found in tree:
            root.mkdir()
            write_tree(root, found)

    def is_right_after_protect(self, after: dict[str, bytes]) -> bool:
        """Whether protecting again finishes, and undo still brings everything back."""
        if self.protect() not in ("protected", "already protected") or contents(self.root) != after:
            return False
        if any(name.endswith("-part") for name in contents(self.root, hidden=True)):
            return False
        return restore_folder(self.root, self.key).state == "restored" and self.found() == self.before

    def is_right_after_restore(self, after: dict[str, bytes]) -> bool:
        """Whether restoring again finishes, and the files can be protected once more."""
        if restore_folder(self.root, self.key).state not in ("restored", "already original"):
            return False
        found = self.found()
        if found != {name: self.before[name] for name in (found if self.copying else self.before)}:
            return False
        if self.copying:  # a restored copy is not made again, and an unfinished one has some files only
            return True
        return self.protect() == "protected" and contents(self.root) == after

    def is_right_after_drop(self, after: dict[str, bytes]) -> bool:
        """Whether the undo is whole or gone, dropping it again finishes, and what is protected stays so."""
        torn = self.tree()
        with Journal(self.root / ".poscuda", self.key) as journal:
            was_final = journal.state is State.FINAL
        if not was_final and (self.restore(), self.found()) != (None, self.before):
            return False
        self.put(torn)
        drop_undo(self.root, self.key)
        return contents(self.root) == after and self.protect() == "already protected"

    def bytes_lost(self) -> int:
        """How many bytes of the originals an undo of what is there now does not bring back; it is done."""
        self.restore()
        found = self.found()
        looked_for = found if self.copying else self.before  # an unfinished copy has some files only
        return sum(_differing(found.get(name, b""), self.before[name]) for name in looked_for)


def _differing(one: bytes, other: bytes) -> int:
    """How many bytes differ, a missing one included."""
    return sum(a != b for a, b in zip(one, other, strict=False)) + abs(len(one) - len(other))
