"""Fixtures shared by all tests; real speech is used where it lies beside the checkout."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import installed
import pytest
from hypothesis import settings

from poscuda_fast import Key
from poscuda_fast.cli import demo
from poscuda_fast.kernels import why_missing

# A shared machine may pause anything for longer than Hypothesis's limit for one example.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

REAL_SPEECH = Path(os.environ.get("POSCUDA_REAL_SPEECH", Path(__file__).parents[1] / ".." / "shared" / "data"))


def pytest_configure() -> None:
    problem = installed.problem()
    if problem is not None:
        raise pytest.UsageError(problem)
    # No child looks for the package in the folder that it is started in; Python 3.10 does not know this.
    os.environ["PYTHONSAFEPATH"] = "1"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
    _prepare_simulator()


def _prepare_simulator() -> None:
    """Numba's simulator of a GPU has a Python thread for each of a block: hand over quickly, and have few of them."""
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        import devices
        from numba import cuda
        from numba.cuda.simulator.kernelapi import FakeCUDAShared

        from poscuda_fast.kernels import cuda as backend
        from poscuda_fast.kernels import cuda_launch, cuda_lines

        cuda.as_cuda_array = devices.as_cuda_array
        FakeCUDAShared.array = devices.shared_array
        cuda_launch.FEWEST_BLOCKS = 1
        backend.THREADS = cuda_lines.THREADS = 4
        sys.setswitchinterval(1e-5)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_cuda") is None:
        return
    problem = why_missing("cuda")
    if problem is not None and os.environ.get("POSCUDA_REQUIRE_CUDA") == "1":
        pytest.fail(problem, pytrace=False)
    if problem is not None:
        pytest.skip(problem)


@pytest.fixture
def key() -> Key:
    """The key of the format's vectors."""
    return Key(bytes(range(32)))


@pytest.fixture
def fsdd() -> Path:
    """The folder of the Free Spoken Digit Dataset's recordings."""
    return _real("fsdd/recordings")


@pytest.fixture
def speech_commands() -> Path:
    """A folder in the layout of Google's Speech Commands."""
    return _real("speech_commands")


def _real(name: str) -> Path:
    folder = REAL_SPEECH / name
    if not folder.is_dir():
        pytest.skip(f"no real speech at {folder}; set POSCUDA_REAL_SPEECH to a folder that has it")
    return folder


@pytest.fixture(scope="session")
def _demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    assert demo.run(folder, lambda line: None)
    return folder


@pytest.fixture
def demo_folder(_demo: Path, tmp_path: Path) -> Path:
    """What `poscuda demo` leaves behind, to be changed at will."""
    return Path(shutil.copytree(_demo, tmp_path / "demo"))
