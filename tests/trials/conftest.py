"""The tests of `experiments`: all on small synthetic data; skipped as a whole where its packages are missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("torch", "torchaudio", "scipy", "soxr", "matplotlib")


def _load(name: str) -> None:
    """Make a folder of the checkout importable without putting the checkout before what is installed."""
    spec = importlib.util.spec_from_file_location(
        name, ROOT / name / "__init__.py", submodule_search_locations=[str(ROOT / name)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if missing else []
_load("experiments")


def pytest_report_header() -> str | None:
    if missing:
        return f"tests/trials is skipped: install '.[experiments]' for {', '.join(missing)}"
    return None


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tiny tensors are not worth a second thread, and fixed sums repeat to the bit."""
    import torch

    torch.set_num_threads(1)
