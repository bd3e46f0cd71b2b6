"""A small ext4 file system in a file, whose power can be cut."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2  # what is neither synced nor written back is lost
IMAGE_BYTES = 8 << 20
CLONE_NEWNS = 0x20000


class NoImage(Exception):
    """This system cannot do it; the text says why."""


class LoopImage:
    """An image that is made, mounted, cut off and mounted again; leaving takes all of it away."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        self._image = self._folder / "image"
        self.root = self._folder / "mounted"
        self._mounted = False

    def __enter__(self) -> LoopImage:
        try:
            self._make()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._mounted:
            subprocess.run(["umount", "--lazy", str(self.root)], check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def cut(self) -> None:
        """The power fails: from now on nothing reaches the disk."""
        import fcntl

        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.root))
        self._mounted = True

    def unmount(self) -> None:
        _run("umount", str(self.root))
        self._mounted = False

    def _make(self) -> None:
        problem = _why_not()
        if problem:
            raise NoImage(problem)
        with open(self._image, "wb") as file:
            file.truncate(IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self.root.mkdir()
        try:
            self.mount()
        except subprocess.CalledProcessError as error:
            raise NoImage(f"an image cannot be mounted here: {error.stderr.strip()}") from None


def mount_apart() -> None:
    """Have mounts of this process's own, which end with it however it ends; where that cannot be, share them."""
    with contextlib.suppress(AttributeError, TypeError, subprocess.CalledProcessError):
        if ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0:
            _run("mount", "--make-rprivate", "/")


def _why_not() -> str | None:
    if sys.platform != "linux":
        return "ext4 is Linux's"
    if os.geteuid() != 0:
        return "only root may mount an image"
    missing = [name for name in ("mkfs.ext4", "mount", "umount") if shutil.which(name) is None]
    if missing:
        return f"there is no {missing[0]}"
    if not Path("/dev/loop-control").exists():
        return "there is no loop device"
    return None


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)
