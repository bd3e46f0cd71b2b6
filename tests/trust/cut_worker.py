"""A resident process that cuts the power of runs: it may fork, and its files and patches are its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import poscuda_fast

HERE = Path(__file__).parent


class CutWorkers:
    """Up to `n` of these processes, at work side by side."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._processes: list[subprocess.Popen[str]] = []
        self._free: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()

    def map(self, scenarios: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """What became of each scenario, in order; its fields are those of one of the scenarios that `serve` knows."""
        scenarios = list(scenarios)
        while len(self._processes) < min(self._n, len(scenarios)):
            self._start()

        def run(scenario: dict[str, Any]) -> dict[str, Any]:
            process = self._free.get()
            try:
                process.stdin.write(json.dumps(scenario) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            finally:
                self._free.put(process)
            assert line, f"the worker died over {scenario}"
            return json.loads(line)

        with ThreadPoolExecutor(self._n) as pool:
            yield from pool.map(run, scenarios)

    def _start(self) -> None:
        folders = (Path(poscuda_fast.__file__).parents[1], HERE.parent, HERE)
        process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        )
        self._processes.append(process)
        self._free.put(process)

    def __enter__(self) -> CutWorkers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for process in self._processes:
            if kind is not None:
                process.terminate()
            with contextlib.suppress(BrokenPipeError):  # it died, which was said
                process.stdin.close()
            process.stdout.close()
            process.wait()


def serve() -> None:
    """One scenario a line on stdin, what became of it a line on stdout, until stdin ends."""
    from cut_trial import Scenario, tried
    from folder_cut_trial import FolderScenario, folder_tried
    from image_trial import ImageScenario, image_tried

    kinds = {"cuts": (ImageScenario, image_tried), "folder_verb": (FolderScenario, folder_tried)}
    for line in sys.stdin:
        request = json.loads(line)
        scenario, run = next((kinds[field] for field in kinds if field in request), (Scenario, tried))
        reply = run(scenario(**request))
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
