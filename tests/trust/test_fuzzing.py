"""Mutated files at every reader: by a plain mutator always, and by the coverage-guided fuzzer where it is installed."""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Iterator
from pathlib import Path

import fuzz
import numpy as np
import pytest


def mutants(content: list[bytes], rng: np.random.Generator, n: int) -> Iterator[bytes]:
    """Files with bytes changed, cut out, doubled and put elsewhere."""
    for _ in range(n):
        data = bytearray(content[rng.integers(len(content))])
        for _ in range(rng.integers(1, 5)):
            place = int(rng.integers(len(data) + 1))
            size = int(rng.integers(1, 9))
            what = rng.integers(4)
            if what == 0 and data:
                data[place % len(data)] = rng.integers(256)
            elif what == 1:
                del data[place : place + size]
            elif what == 2:
                data[place:place] = data[place : place + size]
            else:
                data[place : place + size] = rng.bytes(size)
        yield bytes(data)


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_mutants_are_met_rightly(tmp_path: Path, reader: str) -> None:
    seed = secrets.randbits(32)
    path = tmp_path / f"input.{reader}"
    path.touch(0o600)
    content = [data for data in fuzz.seeds(reader, tmp_path) if len(data) < 20_000]
    for number, data in enumerate(mutants(content, np.random.default_rng(seed), 400)):
        try:
            fuzz.READERS[reader](path, data)
        except Exception as error:
            error.add_note(f"seed {seed}, mutant {number}: {data[:200]!r}") if hasattr(error, "add_note") else None
            raise


@pytest.mark.trust
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed: .[fuzz] brings it")
@pytest.mark.parametrize("reader", fuzz.RUNS)
def test_the_fuzzer_finds_nothing(reader: str) -> None:
    tried, problem = fuzz.run(reader, 3_000, secrets.randbits(31))
    assert problem == ""
    assert tried >= 3_000
