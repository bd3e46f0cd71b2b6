"""A resident process that runs each request in a forked child, which it can kill anywhere.

One JSON request a line on stdin, one JSON reply a line on stdout. It is a process of its own because a fork
of the tests would copy their threads' locks, and because an interpreter for every kill costs half a second.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import resource
import signal
import sqlite3
import sys
import time

import numpy as np

from poscuda_fast import Key, Recipe, drop_undo
from poscuda_fast.arrays import mapped, memory
from poscuda_fast.arrays import verbs as memmap
from poscuda_fast.arrays.layouts import ArrayClips
from poscuda_fast.errors import PoscudaError
from poscuda_fast.mark import plan
from poscuda_fast.mark.patches import Patches
from poscuda_fast.undo import steps
from poscuda_fast.undo.journal import Journal, State, _nonce

KEY = Key(bytes(range(32)))

PTRACE_TRACEME, PTRACE_SYSCALL = 0, 24
PTRACE_SETOPTIONS, PTRACE_GET_SYSCALL_INFO = 0x4200, 0x420E
TRACESYSGOOD, EXITKILL = 1, 0x100000
SYSCALL_ENTRY = 1
# System calls that change what is in a file or how much of it is on the disk: write, pwrite64, msync, fsync,
# fdatasync, ftruncate, unlink, unlinkat, openat (which creates), by the kernel's number for the machine.
CHANGING = {
    "x86_64": {1, 18, 26, 74, 75, 77, 87, 263, 257},
    "aarch64": {64, 68, 227, 82, 83, 46, 35, 56},
}.get(platform.machine(), set())


class Hooks:
    """Names the points before, in and after the steps of the driver, and dies at the chosen one."""

    def __init__(self, die_at: int | None, pipe: int) -> None:
        self.points: list[str] = []
        self._die_at = die_at
        self._pipe = pipe
        for owner, name in (
            (Journal, "begin"),
            (Journal, "append"),
            (Journal, "move"),
            (Journal, "make_final"),
            (ArrayClips, "write"),
            (mapped.MappedArray, "sync"),
        ):
            self._wrap(owner, name)

    def pass_by(self, point: str) -> None:
        self.points.append(point)
        if len(self.points) == self._die_at:
            os.write(self._pipe, json.dumps({"point": point}).encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def _wrap(self, owner: type, name: str) -> None:
        method = getattr(owner, name)

        def hooked(self: object, *args: object, **options: object) -> object:
            step = f"{owner.__name__}.{name}"
            hooks.pass_by(f"before {step}")
            if name == "write":
                hooks._tear(method, self, *args)
            result = method(self, *args, **options)
            hooks.pass_by(f"after {step}")
            return result

        hooks = self
        setattr(owner, name, hooked)

    def _tear(self, write: object, clips: ArrayClips, patches: Patches, dense: np.ndarray) -> None:
        """Store half of a patch, then half of the batch, with a chance to die after each."""
        half = len(patches) // 2
        samples = int(patches.sizes[:half].sum()) * clips.channels
        frames = int(patches.sizes[0]) // 2
        write(
            clips,
            Patches(patches.clips[:1], patches.starts[:1], np.array([frames]), patches.rows[:1]),
            dense[: frames * clips.channels],
        )
        self.pass_by("half a patch stored")
        write(
            clips,
            Patches(patches.clips[:half], patches.starts[:half], patches.sizes[:half], patches.rows[:half]),
            dense[:samples],
        )
        self.pass_by("half a batch stored")


def store_before_commit(journal: Journal, target: steps.Target) -> None:
    """`steps.apply` with its two steps exchanged."""
    if journal.state in (State.NEW, State.UNDONE):
        journal.begin(target.header(), target.secret())
    for payload in journal.payloads():
        target.apply(payload)
    for payload in target.fresh():
        target.apply(payload)
        journal.append(payload)
    target.sync()
    journal.move(State.COMPLETE, target.summary())


def reread_on_resume(journal: Journal, target: steps.Target) -> None:
    """`steps.apply` that trusts the data where it has a journalled original."""
    if journal.state in (State.NEW, State.UNDONE):
        journal.begin(target.header(), target.secret())
    known = journal.n_batches()
    for number, payload in enumerate(target.fresh()):
        if number >= known:
            journal.append(payload)
        target.apply(payload)
    target.sync()
    journal.move(State.COMPLETE, target.summary())


def replace_rows_on_resume(journal: Journal, target: steps.Target) -> None:
    """`steps.apply` that journals every batch anew, as the data are now."""
    if journal.state in (State.NEW, State.UNDONE):
        journal.begin(target.header(), target.secret())
    known = journal.n_batches()
    for number, payload in enumerate(target.fresh()):
        if number < known:
            session = os.urandom(16)
            sealed = journal._cipher(session).encrypt(_nonce(number), payload, journal._context(number, session))
            with journal._transaction() as database:
                database.execute("INSERT OR REPLACE INTO batch VALUES (?, ?, ?)", (number, session, sealed))
        else:
            journal.append(payload)
        target.apply(payload)
    target.sync()
    journal.move(State.COMPLETE, target.summary())


BROKEN = {
    "store before commit": store_before_commit,
    "reread on resume": reread_on_resume,
    "row replaced": replace_rows_on_resume,
}


def run(request: dict) -> str:
    """The state in which the verb leaves the array."""
    if request["verb"] == "drop_undo":
        return drop_undo(request["path"], KEY).state
    arr = np.load(request["path"], mmap_mode="r+")
    if request["verb"] == "restore":
        return memmap.restore_memmap(arr, KEY).state
    labels = request.get("labels", np.arange(len(arr)) % 3)
    return memmap.protect_memmap(arr, labels, KEY, recipe=Recipe.from_dict(request["recipe"])).state


def attempt(request: dict) -> dict:
    """How a run ended: its state or its error."""
    try:
        return {"state": run(request)}
    except (OSError, PoscudaError, sqlite3.Error) as error:
        return {"error": [kind.__name__ for kind in type(error).__mro__], "message": str(error)}


def child(request: dict, pipe: int) -> None:
    """Do what the request asks for, write how it ended into the pipe, and never return."""
    hooks = Hooks(request.get("die_at"), pipe) if request.get("hooks", True) else None
    plan.BATCH_BYTES = request["batch_bytes"]
    if request.get("broken"):
        steps.apply = BROKEN[request["broken"]]
    if request.get("file_limit") is not None:
        # Python ignores SIGXFSZ, so that a write beyond the limit is an error; by default it is a death.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if request["limit_kills"] else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"],) * 2)
    if request.get("die_at_call") is not None:
        if ctypes.CDLL(None).ptrace(PTRACE_TRACEME, 0, None, None) != 0:
            os._exit(1)
        os.kill(os.getpid(), signal.SIGSTOP)
    reply = attempt(request)
    reply["points"] = hooks.points if hooks else []
    os.write(pipe, json.dumps(reply).encode())
    os._exit(0)


def trace_calls(pid: int, die_at: int) -> int | None:
    """Let a stopped child run, and kill it as it enters its n-th changing system call; its wait status.

    None if this system does not let a process trace its child.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    _, status = os.waitpid(pid, 0)
    info = ctypes.create_string_buffer(88)  # struct ptrace_syscall_info
    traced = os.WIFSTOPPED(status) and libc.ptrace(PTRACE_SETOPTIONS, pid, None, TRACESYSGOOD | EXITKILL) == 0
    seen = 0
    while traced and os.WIFSTOPPED(status):
        libc.ptrace(PTRACE_SYSCALL, pid, None, None)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status) or os.WSTOPSIG(status) != signal.SIGTRAP | 0x80:
            continue
        traced = libc.ptrace(PTRACE_GET_SYSCALL_INFO, pid, len(info), info) > 0
        operation, number = info.raw[0], int.from_bytes(info.raw[24:32], sys.byteorder)
        seen += operation == SYSCALL_ENTRY and number in CHANGING
        if seen == die_at or not traced:
            os.kill(pid, signal.SIGKILL)  # a call that was only entered is not done
            _, status = os.waitpid(pid, 0)
    if not traced and os.WIFSTOPPED(status):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return status if traced else None


def serve(request: dict) -> dict:
    """Fork, wait or kill, and say how the child ended."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(readable)
        try:
            child(request, writable)
        finally:  # the child never goes on to the next request
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    os.close(writable)
    with open(readable, "rb") as pipe:
        if request.get("die_at_call") is not None:
            status = trace_calls(pid, request["die_at_call"])
            said = pipe.read()
        else:
            if request.get("die_after") is not None:
                time.sleep(request["die_after"])
                os.kill(pid, signal.SIGKILL)
            said = pipe.read()  # before the child ends: it waits while the pipe is full
            _, status = os.waitpid(pid, 0)
    how = {"signal": os.WTERMSIG(status) if status and os.WIFSIGNALED(status) else 0, "untraceable": status is None}
    return {**how, **(json.loads(said) if said else {})}


def main() -> None:
    """Compile the kernels, then serve until stdin ends."""
    memory.protect(np.ones((1, 1000), np.int16), [0], KEY)
    gc.freeze()  # what was imported need not be looked through in every child
    answer({})
    for line in sys.stdin:
        request = json.loads(line)
        begun = time.perf_counter()
        reply = serve(request)
        answer({**reply, "seconds": time.perf_counter() - begun})


def answer(reply: dict) -> None:
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
