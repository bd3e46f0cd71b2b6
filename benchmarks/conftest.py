"""Benchmarks run by `pytest --benchmark-only`; plain `pytest` leaves them out."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--benchmark-only", default=False):
        config.option.reportchars = "fE"  # not two thousand lines on the tests that are left out


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--benchmark-only", default=False):
        return
    skip = pytest.mark.skip(reason="a benchmark; run pytest --benchmark-only")
    for item in items:
        if "benchmark" in getattr(item, "fixturenames", ()):
            item.add_marker(skip)
