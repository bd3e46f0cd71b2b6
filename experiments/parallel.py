"""Trainings side by side, in processes of one thread each: faster than one after another on all cores."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks import stored
from experiments.data.dataset import Dataset
from poscuda_fast.evaluation.pace import in_words


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


def run_missing(cells: Iterable[Any], data: Dataset, results: Path, jobs: int) -> None:
    """Run each cell whose result is not stored yet, and say which are, and how long the others take.

    A cell has a ``name(data)``, a ``cost``, and ``run(results)``, which stores its result and returns a line.
    """
    missing = []
    for cell in cells:
        path = results / f"{cell.name(data)}.json"
        if path.exists() and stored.load(results, path.stem)["digest"] == data.digest:
            print(f"Already stored, skipped: {path}", flush=True)
        else:
            missing.append(cell)
    begun, done, costs = time.perf_counter(), 0.0, sum(cell.cost for cell in missing)
    for (cell, _), line in in_parallel(_run_cell, [(cell, results) for cell in missing], jobs):
        done += cell.cost
        left = (time.perf_counter() - begun) * (costs - done) / done
        print(f"{line}; {100 * done / costs:.0f} % done" + f", {in_words(left)} left" * (done < costs), flush=True)


def _run_cell(cell: Any, results: Path) -> str:
    line: str = cell.run(results)
    return line


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
