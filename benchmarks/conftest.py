"""Benchmarks run by `pytest --benchmark-only`; plain `pytest` leaves them out.

Each benchmark is a race: in every round all contenders run one after another, so that a machine that
slows down slows them all, and a figure is the median over the rounds of a ratio within one round.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import installed
import pytest
import stored

COMMAND = "pytest --benchmark-only"
SETTLE_SECONDS = 0.25  # the threads of some libraries spin for a while after their work
_report: dict[str, dict[str, Any]] = {}


def pytest_configure(config: pytest.Config) -> None:
    problem = installed.problem()
    if problem is not None:
        raise pytest.UsageError(problem)
    if config.getoption("--benchmark-only", default=False):
        config.option.reportchars = "fE"  # not two thousand lines on skipped tests


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--benchmark-only", default=False):
        return
    skip = pytest.mark.skip(reason="a benchmark; run pytest --benchmark-only")
    for item in items:
        if "benchmark" in getattr(item, "fixturenames", ()):
            item.add_marker(skip)


@dataclasses.dataclass
class Race:
    """The contenders of one benchmark, and the targets of ours."""

    benchmark: Any
    name: str
    per: int = 1
    seconds: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    ours: str = ""

    def run(
        self,
        contenders: dict[str, Callable[[], Any]],
        *,
        rounds: int,
        prepare: Callable[[], Any] = lambda: None,
    ) -> None:
        """Time all contenders in every round, ours (the first) by pytest-benchmark; `prepare` runs before each."""
        self.ours, *others = contenders
        self.seconds = {name: [] for name in contenders}
        for run in contenders.values():  # to compile, import and allocate
            prepare()
            run()

        def settle() -> None:
            prepare()
            time.sleep(SETTLE_SECONDS)

        def others_first() -> None:
            for name in others:
                settle()
                begun = time.perf_counter()
                contenders[name]()
                self.seconds[name].append(time.perf_counter() - begun)
            settle()

        self.benchmark.pedantic(contenders[self.ours], setup=others_first, rounds=rounds)
        self.seconds[self.ours] = list(self.benchmark.stats.stats.data)

    def ratio(self, over: str | list[str], under: str | list[str]) -> float:
        """Median over the rounds of one time over another; a list is a sum."""
        over, under = ([each] if isinstance(each, str) else each for each in (over, under))
        rounds = range(len(self.seconds[self.ours]))
        return statistics.median(
            sum(self.seconds[name][i] for name in over) / sum(self.seconds[name][i] for name in under) for i in rounds
        )

    def difference(self, over: str, under: str) -> float:
        """Median over the rounds of one time less another, in seconds."""
        pairs = zip(self.seconds[over], self.seconds[under], strict=True)
        return statistics.median(a - b for a, b in pairs)

    def median(self, name: str) -> float:
        """Median time of a contender, in seconds."""
        return statistics.median(self.seconds[name])

    def best(self, names: list[str]) -> str:
        """The fastest of some contenders."""
        return min(names, key=self.median)

    def reach(self, what: str, ratio: float, *, at_most: float | None = None, at_least: float | None = None) -> None:
        """Record a figure with its target."""
        bound = at_most if at_most is not None else at_least
        assert bound is not None
        row = {
            "what": what,
            "figure": round(ratio, 3),
            "asked": f"<= {at_most:g}" if at_most is not None else f">= {at_least:g}",
            "reached": ratio <= bound if at_most is not None else ratio >= bound,
        }
        self.keep()["figures"].append(row)
        self.benchmark.extra_info[what] = row

    def keep(self) -> dict[str, Any]:
        """The entry that will be stored for this race."""
        entry = _report.setdefault(self.name, {"unit": "microseconds each", "medians": {}, "figures": []})
        entry["medians"] = {
            name: round(statistics.median(times) / self.per * 1e6, 4) for name, times in self.seconds.items()
        }
        entry["rounds"] = len(self.seconds.get(self.ours, ()))
        return entry


@pytest.fixture
def race(benchmark: Any, request: pytest.FixtureRequest) -> Race:
    """A race that is stored under the test's name."""
    return Race(benchmark, request.node.name.removeprefix("test_").replace("[", "_").rstrip("]"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print every figure and whether it reaches its target, and store them."""
    if not _report:
        return
    terminalreporter.section("reached?")
    for name, entry in _report.items():
        for row in entry["figures"]:
            verdict = "reached" if row["reached"] else "NOT reached"
            terminalreporter.line(f"{name}: {row['what']}: {row['figure']:g} (asked {row['asked']}) {verdict}")
        stored.store(stored.BENCHMARKS, name, COMMAND, entry)
