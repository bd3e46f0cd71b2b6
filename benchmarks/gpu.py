"""The CUDA backend on the GPU of this machine: check its bits, then measure its speed.

    python -m benchmarks.gpu [--store RESULTS.json]

The kernel's time is shown beside two limits, measured at the same time: a kernel that reads and writes the same bytes,
and one that does the same number of float64 multiply-adds.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import Key, Recipe, kernels, protect
from poscuda_fast.kernels import Engine, Marks

REPEATS = 7
PATCHES = 1_000_000
FRAMES = 4000  # of a clip, or fewer if they do not fit
STREAMED = 60_000  # clips of 16,000 frames in a file
SUMS, ROUNDS = 8, 4000  # of the multiply-add kernel: independent sums of a thread, and multiply-adds of each


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, help="write the results to this file, as JSON")
    parser.add_argument("--check-only", action="store_true", help="check the bits, and time nothing")
    parser.add_argument("--cases", type=int, default=200, help="random cases to compare (200)")
    parser.add_argument("--longest", type=int, default=600, help="frames of the longest patch among them (600)")
    options = parser.parse_args(arguments)
    problem = kernels.why_missing("cuda")
    if problem is not None:
        show(problem)
        return 1
    wrong = compare(options.cases, options.longest)
    show(f"{options.cases - wrong} of {options.cases} random cases match the CPU bit for bit.")
    if wrong or options.check_only:
        return 1 if wrong else 0
    rows = [resident(np.int16), resident(np.float32), *streamed()]
    results = {**circumstances(), "cases": options.cases, "rows": rows}
    show_table(results)
    if options.store is not None:
        store(results, options.store)
    return 0


def store(results: dict[str, Any], path: Path) -> None:
    """Write results as JSON."""
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


# Right bits.


def compare(cases: int, longest: int) -> int:
    """How many of `cases` random cases differ from the CPU backend."""
    rng = np.random.default_rng(0)
    return sum(differs(rng, (np.int16, np.int32, np.float32)[case % 3], longest) for case in range(cases))


def differs(rng: np.random.Generator, dtype: type, longest: int) -> bool:
    """Whether one random set of patches comes out differently on the GPU."""
    sizes = rng.integers(1, longest + 1, rng.integers(1, 40))
    stride = int(rng.integers(1, 4))
    starts = (np.cumsum(sizes) - sizes) * stride
    samples = random_samples(rng, dtype, int(sizes.sum()) * stride)
    taps = rng.uniform(0, rng.choice([0.01, 1.0]), (5, rng.integers(1, 120))).astype(np.float32)
    rows = rng.integers(0, 5, len(sizes))
    found = samples.copy()
    wanted = samples.copy()
    over = Engine("cuda").mark_patches(found, starts, sizes, rows, Marks(taps, added=False), stride)
    return over != Engine("cpu").mark_patches(wanted, starts, sizes, rows, Marks(taps, added=False), stride) or bool(
        found.tobytes() != wanted.tobytes()
    )


def random_samples(rng: np.random.Generator, dtype: type, n: int) -> NDArray[Any]:
    """Samples of any value; float32 ones of any size from subnormal to full scale."""
    if dtype is np.float32:
        return (rng.uniform(-1, 1, n) * 2.0 ** rng.integers(-140, 1, n)).astype(np.float32)
    top = 2**15 if dtype is np.int16 else 2**23
    return rng.integers(-top, top, n).astype(dtype)


# Speed.


def resident(dtype: type) -> dict[str, Any]:
    """The default recipe on an array in device memory, beside the two limits."""
    from numba import cuda

    recipe = Recipe.paper()
    rng = np.random.default_rng(1)
    free, _ = cuda.current_context().get_memory_info()
    frames = int(min(FRAMES, 0.8 * free // (PATCHES * np.dtype(dtype).itemsize)))
    thousand = cuda.to_device(random_samples(rng, dtype, 1000 * frames))
    samples = cuda.device_array(PATCHES * frames, dtype)
    for first in range(0, PATCHES, 1000):
        samples[first * frames : (first + 1000) * frames].copy_to_device(thousand)
    starts = np.arange(PATCHES) * frames + rng.integers(0, frames - recipe.patch, PATCHES)
    sizes = np.full(PATCHES, recipe.patch)
    taps = rng.uniform(0, recipe.blur, (35, recipe.taps)).astype(np.float32)
    backend: Any = kernels.load("cuda")
    places = cuda.to_device(np.stack([starts, sizes, rng.integers(0, 35, PATCHES)], axis=1))
    filters, saturated = cuda.to_device(taps), cuda.to_device(np.zeros(1, np.int64))
    touch, multiply = limits()
    sums = cuda.device_array(PATCHES // 1000 * 256, np.float64)
    milliseconds = {
        "kernel": timed(lambda: backend._launch_filter(samples, places, recipe.patch, filters, 1, saturated, 0)),
        "bandwidth": timed(lambda: touch[PATCHES, 32](samples, places)),
        "multiply": timed(lambda: multiply[PATCHES // 1000, 256](sums, 1.0 + 1e-9, 1e-9)),
    }
    # The time of `multiply`, scaled to the number of multiply-adds that the patches need.
    done = PATCHES // 1000 * 256 * SUMS * ROUNDS
    multiply_limit = milliseconds["multiply"] * PATCHES * recipe.patch * recipe.taps / done
    return {
        "what": f"resident, {np.dtype(dtype).name}",
        "patches": PATCHES,
        "frames": frames,
        "milliseconds": milliseconds["kernel"],
        "bandwidth_limit_milliseconds": milliseconds["bandwidth"],
        "multiply_limit_milliseconds": multiply_limit,
    }


def limits() -> tuple[Any, Any]:
    """Two kernels that each do half of the work: move the patches' bytes, and multiply and add in float64."""
    from numba import cuda

    @cuda.jit
    def touch(samples: Any, places: Any) -> None:
        start, size = places[cuda.blockIdx.x, 0], places[cuda.blockIdx.x, 1]
        t = cuda.threadIdx.x
        while t < size:
            samples[start + t] += 1
            t += 32

    @cuda.jit
    def multiply(sums: Any, factor: float, summand: float) -> None:
        place = cuda.grid(1)
        a, b, c, d = place + 0.0, place + 1.0, place + 2.0, place + 3.0
        e, f, g, h = place + 4.0, place + 5.0, place + 6.0, place + 7.0
        for _ in range(ROUNDS):
            a = a * factor + summand
            b = b * factor + summand
            c = c * factor + summand
            d = d * factor + summand
            e = e * factor + summand
            f = f * factor + summand
            g = g * factor + summand
            h = h * factor + summand
        sums[place] = a + b + c + d + e + f + g + h

    return touch, multiply


def timed(launch: Callable[[], object]) -> float:
    """Median milliseconds on the GPU, by its own events."""
    from numba import cuda

    launch()
    times = []
    for _ in range(REPEATS):
        begin, end = cuda.event(), cuda.event()
        begin.record()
        launch()
        end.record()
        end.synchronize()
        times.append(cuda.event_elapsed_time(begin, end))
    return statistics.median(times)


def streamed() -> list[dict[str, Any]]:
    """Clips in a memory-mapped file, on the GPU and on this machine's cores, page cache warm."""
    rows = []
    key = Key(bytes(range(32)))
    with tempfile.TemporaryDirectory() as folder:
        clips = np.memmap(Path(folder) / "clips", np.int16, "w+", shape=(STREAMED, 16_000))
        clips[:] = random_samples(np.random.default_rng(2), np.int16, 16_000)
        labels = np.arange(STREAMED) % 35
        for backend in ("cuda", "cpu"):
            times = []
            for _ in range(REPEATS + 1):
                begun = time.perf_counter()
                protect(clips, labels, key, recipe=Recipe.paper(), backend=backend)
                times.append(1000 * (time.perf_counter() - begun))
            rows.append(
                {
                    "what": f"streamed from a file, int16, {backend}",
                    "patches": STREAMED,
                    "milliseconds": statistics.median(times[1:]),
                }
            )
    return rows


def circumstances() -> dict[str, Any]:
    """Device, date and versions."""
    from numba import cuda

    name = cuda.get_current_device().name
    packages = ("poscuda-fast", "numba", "numba-cuda", "numpy")
    return {
        "device": name.decode() if isinstance(name, bytes) else name,
        "cores": kernels.usable_cores(),
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
        "versions": {package: importlib.metadata.version(package) for package in packages},
    }


# Words.


def show_table(results: dict[str, Any]) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    show(f"{results['device']}, {results['cores']} cores, {results['date']}, {versions}")
    show(f"{'':<32} {'patches':>10} {'ms':>9} {'ns/patch':>9} {'bandwidth':>10} {'float64':>8}  (limits, ms)")
    for row in results["rows"]:
        bounds = [row.get(f"{limit}_limit_milliseconds") for limit in ("bandwidth", "multiply")]
        cells = ["" if bound is None else f"{bound:.3f}" for bound in bounds]
        each = 1e6 * row["milliseconds"] / row["patches"]
        show(
            f"{row['what']:<32} {row['patches']:>10,} {row['milliseconds']:>9.3f} {each:>9.2f} "
            f"{cells[0]:>10} {cells[1]:>8}"
        )


def show(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
