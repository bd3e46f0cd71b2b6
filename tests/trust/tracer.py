"""A child whose system calls its parent sees (ptrace), on Linux where that is allowed."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from collections.abc import Callable

from array_worker import (
    EXITKILL,
    PTRACE_GET_SYSCALL_INFO,
    PTRACE_SETOPTIONS,
    PTRACE_SYSCALL,
    PTRACE_TRACEME,
    SYSCALL_ENTRY,
    TRACESYSGOOD,
)
from audiofiles import wait_for_threads

NAMES = (
    "openat", "write", "pwrite64", "ftruncate", "unlink", "unlinkat", "rename", "renameat", "renameat2", "mkdir",
    "mkdirat", "fsync", "fdatasync", "msync", "syncfs", "copy_file_range", "sendfile",
)  # fmt: skip
NUMBERS = {
    "x86_64": (257, 1, 18, 77, 87, 263, 82, 264, 316, 83, 258, 74, 75, 26, 306, 326, 40),
    "aarch64": (56, 64, 68, 46, None, 35, None, 38, 276, None, 34, 82, 83, 227, 267, 285, 71),
}.get(platform.machine(), ())
CALLS = {number: name for number, name in zip(NUMBERS, NAMES, strict=False) if number is not None}
HANGING = 60  # seconds after which a child is ended: only a hang takes as long
SAID = 1000  # a descriptor of /dev/null, through which the child tells what no system call shows


class Untraceable(Exception):
    """This system does not let a process trace its child."""


class Tracer:
    """The parent of a traced child, whose first thread stops before and after each system call."""

    def __init__(self) -> None:
        self._ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self._ptrace.restype = ctypes.c_long
        self._ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self.pid = 0

    def entered(self, number: int, given: list[int]) -> None:
        """The child is about to do a call."""

    def left(self, result: int) -> None:
        """The call is done; below 0 it failed."""

    def follow(self, run: Callable[[], object]) -> int:
        """Let a child run to its end, or until it is killed; its wait status."""
        if sys.platform != "linux" or not CALLS:
            raise Untraceable
        wait_for_threads()
        self.pid = os.fork()
        if self.pid == 0:
            self._be_traced(run)
        _, status = os.waitpid(self.pid, 0)
        info = ctypes.create_string_buffer(88)  # struct ptrace_syscall_info
        options = TRACESYSGOOD | EXITKILL
        traced = os.WIFSTOPPED(status) and self._ptrace(PTRACE_SETOPTIONS, self.pid, None, options) == 0
        delivered = 0
        while traced and os.WIFSTOPPED(status):
            self._ptrace(PTRACE_SYSCALL, self.pid, None, delivered)
            _, status = os.waitpid(self.pid, 0)
            delivered = 0
            if not os.WIFSTOPPED(status) or os.WSTOPSIG(status) != signal.SIGTRAP | 0x80:
                if os.WIFSTOPPED(status) and os.WSTOPSIG(status) not in (signal.SIGTRAP, signal.SIGSTOP):
                    delivered = os.WSTOPSIG(status)
                continue
            traced = self._ptrace(PTRACE_GET_SYSCALL_INFO, self.pid, len(info), info) > 0
            words = [int.from_bytes(info.raw[n : n + 8], sys.byteorder, signed=True) for n in range(24, 80, 8)]
            if info.raw[0] == SYSCALL_ENTRY:
                self.entered(words[0], words[1:])
            else:
                self.left(words[0])
        if not traced:
            if os.WIFSTOPPED(status):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            raise Untraceable
        return status

    def _be_traced(self, run: Callable[[], object]) -> None:
        """The child's part; it never goes on with its parent's work."""
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), SAID)
            if self._ptrace(PTRACE_TRACEME, 0, None, None) != 0:
                os._exit(1)
            os.kill(os.getpid(), signal.SIGSTOP)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(HANGING)
            run()
            os._exit(0)
        finally:
            sys.excepthook(*sys.exc_info())
            os._exit(2)
