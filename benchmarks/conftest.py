"""Benchmarks run by `pytest --benchmark-only`; plain `pytest` leaves them out. With `--store` the results are kept.

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
from figures import lines, quantity

COMMAND = "pytest --benchmark-only --store"
SETTLE_SECONDS = 0.25  # the threads of some libraries spin for a while after their work
_report: dict[str, dict[str, Any]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--store", action="store_true", help="store the benchmarks' results in benchmarks/results")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    problem = installed.problem()
    if problem is not None:
        raise pytest.UsageError(problem)
    if config.getoption("--benchmark-only", default=False):
        config.option.benchmark_quiet = True  # one table is enough
        reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.reportchars = "fE"  # not two thousand lines on skipped tests


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    benchmarks = [item for item in items if "benchmark" in getattr(item, "fixturenames", ())]
    if config.getoption("--benchmark-only", default=False):
        config.hook.pytest_deselected(items=[item for item in items if item not in benchmarks])
        items[:] = benchmarks
        return
    skip = pytest.mark.skip(reason="a benchmark; run pytest --benchmark-only")
    for item in benchmarks:
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

    def over_limit(self, what: str, ours: str, limit: str | list[str], at_most: float | None = None) -> None:
        """Record how many times the limit's time ours takes; several limits are added up."""
        names = [limit] if isinstance(limit, str) else limit
        other = self.time(sum(self.median(name) for name in names))
        self.reach(what, self.ratio(ours, limit), at_most=at_most, ours=self.time(self.median(ours)), limit=other)

    def over_peer(self, what: str, ours: str, peer: str | list[str], at_least: float | None = None) -> None:
        """Record how many times our time a peer takes."""
        names = [peer] if isinstance(peer, str) else peer
        name = " + ".join(each.split(",")[0] for each in names)
        other = f"{name} {self.time(sum(self.median(each) for each in names))}"
        self.reach(what, self.ratio(peer, ours), at_least=at_least, ours=self.time(self.median(ours)), peer=other)

    def time(self, seconds: float) -> str:
        """A time for each of `per`, with its unit."""
        each = seconds / self.per
        return quantity(each, "s") if each >= 1 else quantity(1e3 * each, "ms") if each >= 1e-3 else micro(each)

    def reach(
        self,
        what: str,
        figure: float,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        ours: str = "",
        peer: str = "",
        limit: str = "",
    ) -> None:
        """Record a figure with its target, if it has one, and the times that it is a ratio of.

        A figure that is no ratio is given as `ours` alone.
        """
        asked = (
            ""
            if at_most is None and at_least is None
            else f"<= {at_most:g}"
            if at_least is None
            else f">= {at_least:g}"
        )
        row = {
            "what": what,
            "figure": round(figure, 3) + 0.0,  # not -0
            "asked": asked,
            "reached": (at_most is None or figure <= at_most) and (at_least is None or figure >= at_least),
            "ours": ours,
            "is_ratio": bool(peer or limit or not ours),
            "against": "peer" if peer else "limit",
            "other": peer or limit,
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


def micro(seconds: float) -> str:
    """A short time, with its unit."""
    return quantity(1e6 * seconds, "us")


@pytest.fixture
def race(benchmark: Any, request: pytest.FixtureRequest) -> Race:
    """A race that is stored under the test's name."""
    return Race(benchmark, request.node.name.removeprefix("test_").replace("[", "_").replace("-", "_").rstrip("]"))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print every figure and whether it reaches its target; store them if that was asked for."""
    if not _report:
        return
    terminalreporter.section("what was reached")
    for line in lines({name: entry for name, entry in _report.items() if entry["figures"]}):
        terminalreporter.line(line)
    if not config.getoption("--store"):
        terminalreporter.line("\nNothing was stored; pytest --benchmark-only --store stores these figures.")
        return
    for name, entry in _report.items():
        stored.store(stored.BENCHMARKS, name, COMMAND, entry)
