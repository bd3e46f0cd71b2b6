"""Sits between the library and the system: every call that changes a file below a folder, seen, stopped or refused.

The calls are those of `os`, as the library makes them, and those of the C library that sync a file system and that give
a name without taking one away; what is stored through a mapping makes no call, and is found by looking at the file.

Each becomes an operation, as disk.py names them: ("create", name), ("folder", name), ("remove", name),
("rename", old, new), ("link", old, new), ("write", name, offset, bytes), ("store", name, offset, bytes) through a
mapping, ("resize", name, size), ("sync", name), ("sync_folder", name), ("sync_all",), ("sync_failed", name),
("sync_all_failed",); and ("open", name), which changes nothing.

A gate is asked about each of them before it is done; see `Gate`.
"""

from __future__ import annotations

import builtins
import io
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disk import SECTOR, Operation

from poscuda_fast import disk as durable
from poscuda_fast.arrays.layouts import ArrayClips
from poscuda_fast.arrays.mapped import MappedArray
from poscuda_fast.mark.patches import Patches

Perform = Callable[..., Any]  # does an operation, or only so many bytes (or patches) of it
WRITES = ("write", "store")


class Cut(BaseException):
    """The process is no more; whatever it would still do is not done."""


class Gate:
    """Decides what becomes of an operation: this one does them all."""

    def __call__(self, wires: Wires, operation: Operation, perform: Perform) -> Any:
        return perform()


class Wires:
    """Patches the calls of this process while it is entered.

    Attributes
    ----------
    operations : list
        What was done.
    steps : int
        How many calls there were that may change something.
    dead : bool
        Nothing more is done: each call raises `Cut`.
    """

    def __init__(self, root: Path, gate: Gate | None = None) -> None:
        self.operations: list[Operation] = []
        self.steps = 0
        self.dead = False
        self._gate = gate or Gate()
        self._root = os.path.realpath(root)
        self._names: dict[int, str] = {}  # of open files
        self._lock = threading.RLock()
        self._patching = pytest.MonkeyPatch()

    def __enter__(self) -> Wires:
        for name in (
            "open", "close", "dup", "write", "pwrite", "ftruncate", "fsync", "replace", "rename", "link", "unlink",
            "mkdir",
        ):  # fmt: skip
            self._patch(os, name)
        self._patch(builtins, "open", self._open_file)
        self._patch(durable, "sync_system", self._sync_system)
        self._patch(durable, "give_name", self._give_name)
        self._patch(durable, "_clone", lambda _real, *_: False)
        self._patch(durable, "_copy_range", lambda _real, *_: False)
        self._patch(durable, "start_writing", lambda *_: None)
        self._patch(MappedArray, "write", self._store)
        return self

    def __exit__(self, *_: object) -> None:
        self._patching.undo()

    def _patch(self, owner: Any, name: str, instead: Callable[..., Any] | None = None) -> None:
        real = getattr(owner, name)
        wired = instead or getattr(self, "_" + name)

        def call(*given: Any, **named: Any) -> Any:
            return wired(real, *given, **named)

        self._patching.setattr(owner, name, call)

    def _step(self, operation: Operation, perform: Perform) -> Any:
        with self._lock:
            if self.dead:
                raise Cut
            self.steps += operation[0] != "open"
            return self._gate(self, operation, perform)

    def _simple(self, operation: Operation, real: Callable[[], Any]) -> Any:
        """A call that is done as a whole."""

        def perform() -> Any:
            result = real()
            self.operations.append(operation)
            return result

        return self._step(operation, perform)

    def _name(self, path: Any, folder: int | None = None) -> str | None:
        """The name below the root, "" for the root itself; None for what lies elsewhere."""
        if isinstance(path, int):
            return self._names.get(path)
        text = os.fsdecode(path)
        if folder is not None and not text.startswith("/"):
            above = self._names.get(folder)
            return None if above is None else f"{above}/{text}".lstrip("/")
        parent, last = os.path.split(os.path.abspath(text))
        full = os.path.join(os.path.realpath(parent), last)
        if full == self._root:
            return ""
        return full[len(self._root) + 1 :] if full.startswith(self._root + "/") else None

    # Each call

    def _open(self, real: Any, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        name = self._name(path, dir_fd)
        if name is None:
            return real(path, flags, mode, dir_fd=dir_fd)
        new = flags & os.O_CREAT and not os.path.lexists(os.path.join(self._root, name))

        def perform() -> int:
            descriptor = real(path, flags, mode, dir_fd=dir_fd)
            self._names[descriptor] = name
            self.operations += [("create", name)] * bool(new)
            assert not flags & os.O_TRUNC, "nothing is ever truncated as it is opened"
            return descriptor

        if not new and self.dead:
            return real(path, flags, mode, dir_fd=dir_fd)
        return self._step(("create" if new else "open", name), perform)

    def _dup(self, real: Any, descriptor: int) -> int:
        copy = real(descriptor)
        if descriptor in self._names:
            self._names[copy] = self._names[descriptor]
        return copy

    def _close(self, real: Any, descriptor: int) -> None:
        self._names.pop(descriptor, None)
        real(descriptor)

    def _write(self, real: Any, descriptor: int, content: Any) -> int:
        name = self._names.get(descriptor)
        if name is None:
            return real(descriptor, content)
        return self._written(name, os.lseek(descriptor, 0, os.SEEK_CUR), content, lambda part: real(descriptor, part))

    def _pwrite(self, real: Any, descriptor: int, content: Any, offset: int) -> int:
        name = self._names.get(descriptor)
        if name is None:
            return real(descriptor, content, offset)
        return self._written(name, offset, content, lambda part: real(descriptor, part, offset))

    def _written(self, name: str, offset: int, content: Any, write: Callable[[Any], int]) -> int:
        view = memoryview(content).cast("B")

        def perform(n_bytes: int | None = None) -> int:
            part = view if n_bytes is None else view[:n_bytes]
            done = write(part)
            self.operations.append(("write", name, offset, bytes(part[:done])))
            return done

        return self._step(("write", name, offset, bytes(view)), perform)

    def _ftruncate(self, real: Any, descriptor: int, size: int) -> None:
        name = self._names.get(descriptor)
        if name is None:
            real(descriptor, size)
        else:
            self._simple(("resize", name, size), lambda: real(descriptor, size))

    def _fsync(self, real: Any, descriptor: int) -> None:
        name = self._names.get(descriptor)
        if name is None:
            real(descriptor)
            return
        kind = "sync_folder" if os.path.isdir(os.path.join(self._root, name)) else "sync"
        self._simple((kind, name), lambda: real(descriptor))

    def _sync_system(self, real: Any, descriptor: int) -> bool:
        return bool(self._simple(("sync_all",), lambda: real(descriptor)))

    def _give_name(self, real: Any, part: Any, name: Any, folder: int | None = None) -> None:
        names = self._name(part, folder), self._name(name, folder)
        if None in names:
            real(part, name, folder)
        else:
            self._simple(("rename", *names), lambda: real(part, name, folder))

    def _replace(self, real: Any, old: Any, new: Any, **folders: int) -> None:
        names = self._name(old, folders.get("src_dir_fd")), self._name(new, folders.get("dst_dir_fd"))
        if None in names:
            real(old, new, **folders)
            return
        self._simple(("rename", *names), lambda: real(old, new, **folders))

    _rename = _replace

    def _link(self, real: Any, old: Any, new: Any, **named: Any) -> None:
        names = self._name(old), self._name(new)
        if None in names:
            real(old, new, **named)
        else:
            self._simple(("link", *names), lambda: real(old, new, **named))

    def _unlink(self, real: Any, path: Any, *, dir_fd: int | None = None) -> None:
        name = self._name(path, dir_fd)
        if name is None or not os.path.lexists(os.path.join(self._root, name)):
            real(path, dir_fd=dir_fd)
        else:
            self._simple(("remove", name), lambda: real(path, dir_fd=dir_fd))

    def _mkdir(self, real: Any, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        name = self._name(path, dir_fd)
        if name is None or os.path.lexists(os.path.join(self._root, name)):
            real(path, mode, dir_fd=dir_fd)
        else:
            self._simple(("folder", name), lambda: real(path, mode, dir_fd=dir_fd))

    def _open_file(self, real: Any, file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
        """A new file that the library writes to: its buffer is emptied through `os.write`."""
        if file in self._names if isinstance(file, int) else False:
            if "+" in mode or "w" in mode:
                return io.BufferedRandom(_Raw(file, self))
            self._names.pop(file)  # it is closed by the file, unseen
        return real(file, mode, *given, **named)

    def _store(self, real: Any, array: MappedArray, patches: Patches, dense: Any) -> None:
        """Patches that are stored through a mapping, in two steps; others are written by calls that are seen."""
        if array._runs(patches) is not None:
            real(array, patches, dense)
            return
        name = self._name(array.path)
        n = len(patches)
        ends = np.cumsum(patches.sizes) * array.channels
        for first, last in ((0, n // 2), (n // 2, n)):
            if first < last:

                def perform(count: int | None = None, first: int = first, last: int = last) -> None:
                    stop = last if count is None else first + count
                    if first < stop:
                        some = patches.some(slice(first, stop))
                        low = int(ends[first - 1]) if first else 0
                        ArrayClips.write(array, some, dense[low : int(ends[stop - 1])])
                        self.operations += stores(str(name), array, some)

                self._step(("store", name, 0, bytes(last - first)), perform)


class _Raw(io.RawIOBase):
    """A descriptor as a file, by the calls that are patched.

    libsndfile may be the caller, and would print what is raised: a process that is no more goes on until its next call.
    """

    def __init__(self, descriptor: int, wires: Wires) -> None:
        self._descriptor = self.name = descriptor
        self._wires = wires
        self.mode = "rb+"

    def fileno(self) -> int:
        return self._descriptor

    def readable(self) -> bool:
        return True

    writable = seekable = readable

    def readinto(self, buffer: Any) -> int:
        content = os.read(self._descriptor, len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def write(self, content: Any) -> int:
        try:
            return os.write(self._descriptor, content)
        except Cut:
            return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return os.lseek(self._descriptor, offset, whence)
        except OSError:  # it was not written to as far as that
            if not self._wires.dead:
                raise
            return 0

    def truncate(self, size: int | None = None) -> int:
        size = self.tell() if size is None else size
        os.ftruncate(self._descriptor, size)
        return size

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._descriptor)


def stores(name: str, array: MappedArray, patches: Patches) -> list[Operation]:
    """What was stored in a file through its mapping, sector by sector, if it was the same as before too."""
    content = array.path.read_bytes()
    touched = np.zeros(len(content), np.uint8)
    twin = np.ndarray(array.shape, array.dtype, touched, array.offset, array.array.strides)
    n_bytes = patches.n_frames * array.channels * array.dtype.itemsize
    ArrayClips(twin, None).write(patches, np.full(n_bytes, 255, np.uint8).view(array.dtype))
    return [
        ("store", name, low, content[low : low + SECTOR])
        for low in range(0, len(content), SECTOR)
        if touched[low : low + SECTOR].any()
    ]


class Points(Gate):
    """Numbers the points before each operation and in the middle of each that writes, and stops at the n-th."""

    def __init__(self, n: int, only: Sequence[str] | None = None) -> None:
        self._n, self._only = n, only
        self.seen = 0

    def __call__(self, wires: Wires, operation: Operation, perform: Perform) -> Any:
        kind = operation[0]
        if kind == "open" or (self._only and kind not in self._only):
            return perform()
        self._pass_by(wires, operation, "before")
        if kind in WRITES and len(operation[3]) > 1:
            self.seen += 1
            if self.seen == self._n:
                half = self.half(operation)
                if half:
                    perform(half)
                self.stop(wires, operation, "half of")
        return perform()

    def _pass_by(self, wires: Wires, operation: Operation, when: str) -> None:
        self.seen += 1
        if self.seen == self._n:
            self.stop(wires, operation, when)

    def half(self, operation: Operation) -> int:
        """How much of a write is done."""
        return len(operation[3]) // 2

    def stop(self, wires: Wires, operation: Operation, when: str) -> None:
        """End the process."""
        raise NotImplementedError


class Killed(Points):
    """SIGKILL at the n-th point; the name of the point is written to a pipe."""

    def __init__(self, n: int, pipe: int, half: Callable[[Operation], int] | None = None) -> None:
        super().__init__(n)
        self._pipe = pipe
        if half is not None:
            self.half = half  # type: ignore[method-assign]

    def stop(self, wires: Wires, operation: Operation, when: str) -> None:
        os.write(self._pipe, f"{when} {operation[0]}".encode())
        os.kill(os.getpid(), signal.SIGKILL)


class Stopped(Gate):
    """`Cut` at the n-th operation, from 0, of which a part may be done."""

    def __init__(self, n: int, part: Callable[[Operation], int]) -> None:
        self._n, self._part = n, part

    def __call__(self, wires: Wires, operation: Operation, perform: Perform) -> Any:
        if operation[0] == "open":
            return perform()
        if self._n == 0:
            part = self._part(operation) if operation[0] in WRITES else 0
            if part:
                perform(part)
            wires.dead = True
            raise Cut
        self._n -= 1
        return perform()


class Failing(Gate):
    """The n-th operation of some kind fails with an errno, or every one from there on; a short write does half.

    Attributes
    ----------
    failed : int
    what : operation
        The first that failed.
    after : list of operations
        What was asked for after the first failure.
    """

    def __init__(self, kind: str | tuple[str, ...], n: int, error: int | None, *, for_good: bool = False) -> None:
        self._kinds = (kind,) if isinstance(kind, str) else kind
        self._n, self._error, self._for_good = n, error, for_good
        self.seen = self.failed = 0
        self.what: Operation = ()
        self.after: list[Operation] = []

    @property
    def kind(self) -> str:
        """The kind of the first that failed."""
        return str(self.what[0])

    def __call__(self, wires: Wires, operation: Operation, perform: Perform) -> Any:
        if self.failed:
            self.after.append(operation)
        if operation[0] in self._kinds:
            self.seen += 1
            if self.seen == self._n or (self._for_good and self.seen > self._n):
                self.failed += 1
                self.what = self.what or operation
                if self._error is None:
                    return perform(max(1, len(operation[3]) // 2))
                if operation[0] in ("sync", "sync_all"):
                    wires.operations.append((f"{operation[0]}_failed", *operation[1:]))
                raise OSError(self._error, os.strerror(self._error))
        return perform()
