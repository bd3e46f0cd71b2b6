"""Trainings side by side, in processes of one thread each: faster than one after another on all cores."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch


def in_parallel(work: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], jobs: int) -> Iterator[tuple[Any, Any]]:
    """Each task with what ``work(*task)`` returns, `jobs` at a time, as soon as it is done.

    After an error or an interrupt, no task goes on.
    """
    # Spawned, not forked: a forked child may not use kernels whose threads its parent has started.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with concurrent.futures.ProcessPoolExecutor(jobs, context, initializer=_begin) as pool:
        heard = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: a terminal interrupts all, and one answers
        futures = {pool.submit(_run, work, task): task for task in tasks}
        signal.signal(signal.SIGINT, heard)
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise


def _begin() -> None:
    """Set up a worker: one compute thread, and one that ends the worker when its parent was killed."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _run(work: Callable[..., Any], task: tuple[Any, ...]) -> Any:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # temporary files are removed
    try:
        return work(*task)
    except KeyboardInterrupt:
        _leave()
    finally:
        signal.signal(signal.SIGTERM, _leave)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    _leave()


def _leave(*_: Any) -> None:
    os._exit(1)
