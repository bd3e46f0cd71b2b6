"""The tests of `experiments`: all on small synthetic data; skipped as a whole where its packages are missing."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("torch", "torchaudio", "scipy", "soxr", "matplotlib", "lameenc", "av")


missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if missing and os.environ.get("POSCUDA_REQUIRE_EXPERIMENTS") == "1":
    raise ImportError(f"The tests of the experiments need {', '.join(missing)}; run pip install '.[quality]'.")
collect_ignore_glob = ["test_*.py"] if missing else []
# Last, so that an installed poscuda_fast comes before the checkout's; workers that tests start inherit it.
sys.path.append(str(ROOT))


def pytest_report_header() -> str | None:
    if missing:
        return f"tests/trials is skipped: run pip install '.[quality]' for {', '.join(missing)}"
    return None


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tiny tensors are not worth a second thread, and fixed sums repeat to the bit."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def scene() -> object:
    from scenes import RATE, marked

    from experiments.training.conditions import strong

    return marked(strong(1.0, RATE))


@pytest.fixture(scope="session")
def long_scene() -> object:
    """Clips of the least length, and a little, that M5 takes."""
    from scenes import RATE, marked

    from experiments.training.conditions import strong

    return marked(strong(1.0, RATE), 12, 7000)
