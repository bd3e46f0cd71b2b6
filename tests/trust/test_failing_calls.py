"""A call fails or is interrupted anywhere: that is said once, and the next call finishes the job."""

from __future__ import annotations

import errno
import itertools
import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from array_trial import Data, Worker

from poscuda_fast import verify_memmap
from poscuda_fast.arrays import mapped
from poscuda_fast.undo.journal import Journal

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a worker forks the processes that are killed"),
    pytest.mark.usefixtures("small_batches"),
]


@pytest.mark.parametrize("verb", ["protect", "restore"])
def test_a_failed_sync_is_raised_once_and_everything_is_stored_again(
    data: Data, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    before, after, state = data.original, data.protected, "applying"
    if verb == "restore":
        data.protect()
        before, after, state = data.protected, data.original, "undoing"
    call = getattr(data, verb)
    tries = []

    def fail(_: Any) -> None:
        tries.append(None)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patching:
        patching.setattr(mapped.MappedArray, "sync", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            call()
    assert len(tries) == 1
    assert verify_memmap(np.load(data.path, mmap_mode="r"), data.key).state == state
    data.write(before)  # after a failed sync the kernel may drop what was stored
    call()
    assert data.path.read_bytes() == after


@pytest.mark.parametrize(("name", "steps"), [("begin", 1), ("append", 4), ("move", 1)])
def test_an_error_in_any_commit_is_raised_and_the_next_call_finishes(
    data: Data, monkeypatch: pytest.MonkeyPatch, name: str, steps: int
) -> None:
    method = getattr(Journal, name)
    for n in range(1, steps + 2):
        seen = []

        def fail(*args: Any, seen: list[None] = seen, n: int = n) -> None:
            seen.append(None)
            if len(seen) == n:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            method(*args)

        data.reset()
        with monkeypatch.context() as patching:
            patching.setattr(Journal, name, fail)
            if n > steps:
                assert data.protect() == "protected"
                break
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                data.protect()
        assert len(seen) == n  # nothing is tried again
        assert data.is_right_after_protect()


def limits(worker: Worker, data: Data, *, kills: bool) -> Iterator[dict[str, Any]]:
    """Run with files limited to more and more bytes, for as long as that stops the run."""
    for limit in itertools.count(0, 1024):
        data.reset()
        reply = worker.run(data.path, "protect", file_limit=limit, limit_kills=kills)
        if "state" in reply:
            assert limit > 4096
            return
        assert data.path.stat().st_size == len(data.original)
        yield reply
        assert data.is_right_after_protect(), f"limit {limit}"


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system does not limit the size of files")
def test_killed_in_the_middle_of_any_write_to_the_sidecar(worker: Worker, data: Data) -> None:
    for reply in limits(worker, data, kills=True):
        assert reply["signal"] == signal.SIGXFSZ


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system does not limit the size of files")
def test_a_sidecar_that_cannot_grow_is_an_os_error_and_the_next_call_finishes(worker: Worker, data: Data) -> None:
    replies = list(limits(worker, data, kills=False))
    assert [reply["message"] for reply in replies if "OSError" not in reply["error"]] == []
    assert all("clips.npy.poscuda" in reply["message"] for reply in replies)


def test_an_error_in_the_progress_callback_stops_a_run_that_can_be_finished(data: Data) -> None:
    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.protect(progress=stop)
    assert data.path.read_bytes() not in (data.original, data.protected)
    assert data.is_right_after_protect()
