"""Records what a run does to the files of a folder: every write, name and sync, in order.

The run is a child whose system calls its parent sees (ptrace). What is stored through a mapping makes no system call:
the parent looks at the mapped files whenever the child stops.

Operations: ("create", name), ("folder", name), ("remove", name), ("rename", old, new), ("write", name, offset, bytes),
("store", name, offset, bytes) through a mapping, ("touch", name, offset, n) the same bytes stored again, ("resize",
name, size), ("sync", name), ("sync_failed", name), ("sync_folder", name), ("sync_all",),
("sync_all_failed",), ("replace", name, bytes).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from disk import PAGE, Operation
from tracer import CALLS, SAID, Tracer

Done = Callable[[int], list[Operation]]
AT_FDCWD = -100


def say(*operation: Any) -> None:
    """Called inside a recorded run: note an operation that no system call shows."""
    os.write(SAID, json.dumps(operation).encode())


class Recorder(Tracer):
    """Records a child; `mapped` names the files that it stores into through mappings."""

    def __init__(self, root: Path, mapped: Iterable[str] = ()) -> None:
        super().__init__()
        self._root = str(root)
        self._mapped = {name: (root / name).read_bytes() for name in mapped}
        self._known = {str(path.relative_to(root)) for path in root.rglob("*")}
        self._done: Done | None = None
        self.operations: list[Operation] = []

    def of(self, run: Callable[[], object]) -> list[Operation]:
        """What a run does; Untraceable where that cannot be seen."""
        status = self.follow(run)
        assert status == 0, f"the recorded run failed: wait status {status}"
        self._look()
        return self.operations

    def entered(self, number: int, given: list[int]) -> None:
        self._look()
        name = CALLS.get(number)
        self._done = getattr(self, "_" + name)(*given) if name else None

    def left(self, result: int) -> None:
        self._look()
        if self._done is not None and result >= 0:
            self.operations += self._done(result)

    def _look(self) -> None:
        """Note what was stored into the mapped files since the last look."""
        for name, before in self._mapped.items():
            now = Path(self._root, name).read_bytes()
            if now != before:
                for low in range(0, len(now), PAGE):
                    if now[low : low + PAGE] != before[low : low + PAGE]:
                        self.operations.append(("store", name, low, now[low : low + PAGE]))
                self._mapped[name] = now

    # Each call, as it is entered: what it will have done, given its result, or None if that is nothing here.

    def _write(self, descriptor: int, address: int, n_bytes: int, *_: int) -> Done | None:
        content = self._memory(address, n_bytes)
        if descriptor == SAID:
            return lambda _: [tuple(json.loads(content))]
        return self._written(descriptor, self._position(descriptor), content)

    def _pwrite64(self, descriptor: int, address: int, n_bytes: int, offset: int, *_: int) -> Done | None:
        return self._written(descriptor, offset, self._memory(address, n_bytes))

    def _written(self, descriptor: int, offset: int, content: bytes) -> Done | None:
        name = self._opened(descriptor)
        return None if name is None else lambda n: [("write", name, offset, content[:n])]

    def _copy_file_range(self, source: int, _: int, target: int, *__: int) -> Done | None:
        return self._copied(target)

    def _sendfile(self, target: int, *_: int) -> Done | None:
        return self._copied(target)

    def _copied(self, target: int) -> Done | None:
        name = self._opened(target)
        return None if name is None else lambda _: [("write", name, 0, Path(self._root, name).read_bytes())]

    def _openat(self, folder: int, address: int, flags: int, *_: int) -> Done | None:
        name = self._path(folder, address)
        if name is None:
            return None
        if flags & os.O_CREAT and name not in self._known:
            return lambda _: [self._now_known("create", name)]
        return (lambda _: [("resize", name, 0)]) if flags & os.O_TRUNC else None

    def _mkdir(self, address: int, *_: int) -> Done | None:
        return self._mkdirat(AT_FDCWD, address)

    def _mkdirat(self, folder: int, address: int, *_: int) -> Done | None:
        name = self._path(folder, address)
        return None if name is None else lambda _: [self._now_known("folder", name)]

    def _now_known(self, kind: str, name: str) -> Operation:
        self._known.add(name)
        return kind, name

    def _unlink(self, address: int, *_: int) -> Done | None:
        return self._unlinkat(AT_FDCWD, address)

    def _unlinkat(self, folder: int, address: int, *_: int) -> Done | None:
        name = self._path(folder, address)
        if name is None:
            return None

        def done(_: int) -> list[Operation]:
            self._known.discard(name)
            return [("remove", name)]

        return done

    def _rename(self, old: int, new: int, *_: int) -> Done | None:
        return self._renameat(AT_FDCWD, old, AT_FDCWD, new)

    def _renameat2(self, *given: int) -> Done | None:
        return self._renameat(*given)

    def _renameat(self, old_folder: int, old: int, new_folder: int, new: int, *_: int) -> Done | None:
        names = self._path(old_folder, old), self._path(new_folder, new)
        if None in names:
            assert names == (None, None), "a file was moved into the folder or out of it"
            return None

        def done(_: int) -> list[Operation]:
            self._known = self._known - {names[0]} | {names[1]}
            return [("rename", *names)]

        return done

    def _ftruncate(self, descriptor: int, size: int, *_: int) -> Done | None:
        name = self._opened(descriptor)
        return None if name is None else lambda _: [("resize", name, size)]

    def _fdatasync(self, descriptor: int, *_: int) -> Done | None:
        return self._fsync(descriptor)

    def _fsync(self, descriptor: int, *_: int) -> Done | None:
        name = self._opened(descriptor)
        if name is None:
            return None
        return lambda _: [("sync_folder" if Path(self._root, name).is_dir() else "sync", name)]

    def _msync(self, address: int, *_: int) -> Done | None:
        name = self._mapping(address)
        return None if name is None else lambda _: [("sync", name)]

    def _syncfs(self, *_: int) -> Done | None:
        return lambda _: [("sync_all",)]

    # The child's memory and files

    def _memory(self, address: int, n_bytes: int) -> bytes:
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(n_bytes)

    def _name(self, path: str) -> str | None:
        """The name below the root, "" for the root itself."""
        path = os.path.normpath(path)
        if path == self._root:
            return ""
        return path[len(self._root) + 1 :] if path.startswith(self._root + "/") else None

    def _path(self, folder: int, address: int) -> str | None:
        text = b""
        while b"\0" not in text:
            here = address + len(text)
            text += self._memory(here, PAGE - here % PAGE)
        path = os.fsdecode(text.partition(b"\0")[0])
        below = "cwd" if folder & 0xFFFFFFFF == AT_FDCWD & 0xFFFFFFFF else f"fd/{folder}"
        return self._name(os.path.join(os.readlink(f"/proc/{self.pid}/{below}"), path))

    def _opened(self, descriptor: int) -> str | None:
        try:
            return self._name(os.readlink(f"/proc/{self.pid}/fd/{descriptor}"))
        except FileNotFoundError:  # not open: the call will fail
            return None

    def _position(self, descriptor: int) -> int:
        for line in Path(f"/proc/{self.pid}/fdinfo/{descriptor}").read_text().splitlines():
            if line.startswith("pos:"):
                return int(line[4:])
        return 0

    def _mapping(self, address: int) -> str | None:
        for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines():
            low, _, high = line.split(" ", 1)[0].partition("-")
            if int(low, 16) <= address < int(high, 16):
                return self._name(line.split(maxsplit=5)[5])
        return None
