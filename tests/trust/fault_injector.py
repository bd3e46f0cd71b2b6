"""A child in which chosen system calls fail: the n-th of a kind that concerns a folder, or all from there on."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tracer import CALLS, Tracer, Untraceable

PTRACE_PEEKUSER, PTRACE_POKEUSER = 3, 6
PTRACE_GETREGSET, PTRACE_SETREGSET = 0x4204, 0x4205
NT_PRSTATUS, NT_ARM_SYSTEM_CALL = 1, 0x404
RDX, RAX, ORIG_RAX = 12 * 8, 10 * 8, 15 * 8  # in x86_64's struct user
SHORT = "short"
OF_DESCRIPTOR = {"write", "pwrite64", "ftruncate", "fsync", "fdatasync", "syncfs"}


class FaultInjector(Tracer):
    """Lets the n-th `call` on something below `root` fail with an errno, or write half of what it should (`SHORT`).

    With `for_good` every later one fails too. `seen` counts the calls, `failed` those that failed, and `after` has the
    names of the calls that came behind the first failure.
    """

    def __init__(self, root: Path, call: str, n: int, how: int | str, *, for_good: bool) -> None:
        super().__init__()
        self._root = f"{root}/"
        self._call, self._n, self._how, self._for_good = call, n, how, for_good
        self._failing = False
        self.seen = self.failed = 0
        self.after: list[str] = []

    def of(self, run: Callable[[], object]) -> int:
        """Run in the child; its wait status. Untraceable where this system does not let that be done."""
        if platform.machine() not in ("x86_64", "aarch64"):
            raise Untraceable
        return self.follow(run)

    def entered(self, number: int, given: list[int]) -> None:
        self._failing = False
        name = CALLS.get(number)
        if name is None or not self._concerns(name, given):
            return
        if self.failed:
            self.after.append(name)
        if name != self._call:
            return
        self.seen += 1
        if self.seen == self._n or (self._for_good and self.seen > self._n):
            self.failed += 1
            if self._how == SHORT:
                self._shorten(given[2])
            else:
                self._failing = True
                self._skip()

    def left(self, result: int) -> None:
        if self._failing:
            self._return(-int(self._how))
            self._failing = False

    def _concerns(self, name: str, given: list[int]) -> bool:
        if name in OF_DESCRIPTOR:
            try:
                return f"{os.readlink(f'/proc/{self.pid}/fd/{given[0]}')}/".startswith(self._root)
            except OSError:
                return False
        if name == "openat":
            return self._text(given[1]).startswith(self._root)
        return name == "msync"

    def _text(self, address: int) -> str:
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(300).split(b"\0", 1)[0].decode("utf-8", "replace")

    def _skip(self) -> None:
        """Let the kernel find no call where one was asked for."""
        if platform.machine() == "x86_64":
            self._ptrace(PTRACE_POKEUSER, self.pid, ORIG_RAX, ctypes.c_void_p(-1))
        else:
            self._registers(PTRACE_SETREGSET, NT_ARM_SYSTEM_CALL, ctypes.c_int(-1))

    def _return(self, result: int) -> None:
        if platform.machine() == "x86_64":
            self._ptrace(PTRACE_POKEUSER, self.pid, RAX, ctypes.c_void_p(result))
        else:
            self._set_register(0, result)

    def _shorten(self, n_bytes: int) -> None:
        half = max(1, n_bytes // 2)
        if platform.machine() == "x86_64":
            self._ptrace(PTRACE_POKEUSER, self.pid, RDX, ctypes.c_void_p(half))
        else:
            self._set_register(2, half)

    def _set_register(self, number: int, value: int) -> None:
        """One of aarch64's general registers."""
        registers = (ctypes.c_uint64 * 34)()
        self._registers(PTRACE_GETREGSET, NT_PRSTATUS, registers)
        registers[number] = value % 2**64
        self._registers(PTRACE_SETREGSET, NT_PRSTATUS, registers)

    def _registers(self, request: int, which: int, content: Any) -> None:
        class Vector(ctypes.Structure):
            _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

        vector = Vector(ctypes.cast(ctypes.byref(content), ctypes.c_void_p), ctypes.sizeof(content))
        self._ptrace(request, self.pid, which, ctypes.byref(vector))
