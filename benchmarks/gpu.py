"""The CUDA backend on the GPU of this machine: check its bits, then measure its speed.

    python -m benchmarks.gpu [--store [RESULTS.json]]

Times the whole public call, on clips in device memory with integer labels: beside torch's and CuPy's way of doing the
same, class by class, to which the clips come sorted by class; and beside touching every sample. The bare kernels are
shown beside what limits them, measured at the same time: the bytes that they move, and their float64 multiply-adds.
Host memory is measured too: "auto" never sends it to a GPU, since the processor is faster there.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import importlib
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
from poscuda_fast.arrays.device import DeviceClips
from poscuda_fast.kernels import ClipRows, Engine
from poscuda_fast.mark.lines import draw_lines
from poscuda_fast.mark.plan import make_plan

REPEATS = 7
CLIPS, FRAMES, CLASSES = 200_000, 16_000, 35  # or as many clips as half of the memory holds
STREAMED = 60_000  # clips of 16,000 frames in a file
SUMS, ROUNDS = 8, 4000  # of the multiply-add kernel: independent sums of a thread, and multiply-adds of each
RECIPES = {"default": Recipe.strong(), "paper's recipe": Recipe.paper()}
KEY = Key(bytes(range(32)))
RESULTS = Path(__file__).parent / "results" / "gpu.json"
TORCH_STEP = 2000  # clips that a peer widens at a time

DTYPES = (np.int16, np.int32, np.float32, np.uint8)
LIMITS = ("bandwidth", "float64")

# What is asked: the time of one row over that of another, at most so much.
GOALS = [
    ("default, whole call / touching", "protect, default, int16", "touch every sample, int16", 1.3),
    ("paper's recipe, whole call / torch", "protect, paper's recipe, int16", "torch, paper's recipe, int16", 0.7),
    ("paper's kernel / larger limit", "kernel, paper's recipe, int16", "limit, paper's recipe, int16", 1.5),
]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--store", type=Path, nargs="?", const=RESULTS, help="write the results as JSON (benchmarks/results/gpu.json)"
    )
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
    rows = [*resident(np.int16), *resident(np.float32), *streamed()]
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
    """How many of `cases` random cases differ from the CPU backend: filters and lines, flat and as whole clips."""
    rng = np.random.default_rng(0)
    checks = differs_filtered, differs_added, differs_protected
    return sum(checks[case % 3](rng, DTYPES[case // 3 % len(DTYPES)], longest) for case in range(cases))


def differs_filtered(rng: np.random.Generator, dtype: Any, longest: int) -> bool:
    """Whether one random set of filtered patches comes out differently on the GPU."""
    if dtype is np.uint8:
        dtype = np.int16
    samples, starts, sizes, stride = random_patches(rng, dtype, longest)
    taps = rng.uniform(0, rng.choice([0.01, 1.0]), (5, rng.integers(1, 120))).astype(np.float32)
    rows = rng.integers(0, 5, len(sizes))
    return differs(samples, lambda engine, wet: engine.filter_patches(wet, starts, sizes, rows, taps, stride))


def differs_added(rng: np.random.Generator, dtype: Any, longest: int) -> bool:
    """Whether one random set of patches with lines comes out differently on the GPU."""
    samples, starts, sizes, stride = random_patches(rng, dtype, longest)
    tokens = [bytes([n]) for n in range(5)]
    lines = draw_lines(KEY, tokens, Recipe.strong(float(rng.choice([1.0, 40.0]))), [8000, 44_100])
    table = lines.table(np.dtype(dtype), 1)
    rows, phases = rng.integers(0, 10, len(sizes)), rng.integers(0, 10_000, len(sizes))
    return differs(samples, lambda engine, wet: engine.add_lines(wet, starts, sizes, phases, rows, table, stride))


def differs(samples: NDArray[Any], mark: Callable[[Engine, NDArray[Any]], int]) -> bool:
    found, wanted = samples.copy(), samples.copy()
    return mark(Engine("cuda"), found) != mark(Engine("cpu"), wanted) or found.tobytes() != wanted.tobytes()


def differs_protected(rng: np.random.Generator, dtype: Any, longest: int) -> bool:
    """Whether the public call on some clips in device memory differs from that on the processor."""
    dtype = np.float32 if dtype is np.float32 else np.int16
    shape = (int(rng.integers(1, 9)), int(rng.integers(64, 64 + 4 * longest)), int(rng.integers(1, 3)))
    clips = random_samples(rng, dtype, int(np.prod(shape))).reshape(shape)
    clips = clips // 2 if dtype is np.int16 else clips
    recipe = rng.choice(
        np.array([
            Recipe.strong(), Recipe.paper(patch=int(rng.integers(1, 300)), blur=0.5, patches=int(rng.integers(1, 5))),
            Recipe.paper(patch=9, taps=int(rng.integers(1, 100)), every=int(rng.integers(9, 100))),
        ], object)
    )  # fmt: skip
    labels, lengths = rng.integers(0, 5, len(clips)), rng.integers(0, shape[1] + 1, len(clips))
    options: dict[str, Any] = {"recipe": recipe, "lengths": lengths if rng.random() < 0.5 else None}
    on_device = to_device(clips)
    found = protect(on_device, labels, KEY, **options)
    wanted = protect(clips, labels, KEY, backend="cpu", **options)
    same = {**found.to_dict(), "seconds": 0} == {**wanted.to_dict(), "seconds": 0}
    return not same or on_device.copy_to_host().tobytes() != clips.tobytes()


def to_device(array: NDArray[Any]) -> Any:
    """A device array of some content."""
    from numba import cuda

    return cuda.to_device(array)


def random_patches(
    rng: np.random.Generator, dtype: Any, longest: int
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64], int]:
    """Samples, and the starts, sizes and stride of some patches in them."""
    sizes = rng.integers(1, longest + 1, rng.integers(1, 40))
    stride = int(rng.integers(1, 4))
    starts = (np.cumsum(sizes) - sizes) * stride
    return random_samples(rng, dtype, int(sizes.sum()) * stride), starts, sizes, stride


def random_samples(rng: np.random.Generator, dtype: Any, n: int) -> NDArray[Any]:
    """Samples of any value; float32 ones of any size from subnormal to full scale; bytes are packed 24 bits."""
    if dtype is np.float32:
        return (rng.uniform(-1, 1, n) * 2.0 ** rng.integers(-140, 1, n)).astype(np.float32)
    if dtype is np.uint8:
        return rng.integers(0, 256, 3 * n, np.uint8)
    top = 2**15 if dtype is np.int16 else 2**23
    return rng.integers(-top, top, n).astype(dtype)


# Speed.


def resident(dtype: Any) -> list[dict[str, Any]]:
    """Clips in device memory, sorted by class: the public call, its peers, and what limits them."""
    from numba import cuda

    free, _ = cuda.current_context().get_memory_info()
    n_clips = int(min(CLIPS, free // 2 // (2 * FRAMES * np.dtype(dtype).itemsize)))
    before, clips = (cuda.device_array((n_clips, FRAMES), dtype) for _ in range(2))
    block = speech(dtype, 1000)
    for first in range(0, n_clips, len(block)):
        part = before[first : first + len(block)]
        part.copy_to_device(block[: len(part)])
    labels = np.sort(np.arange(n_clips) % CLASSES)
    kind = np.dtype(dtype).name

    def measured(what: str, run: Callable[[], object], **more: Any) -> dict[str, Any]:
        return {"what": f"{what}, {kind}", "clips": n_clips, "milliseconds": timed(run, fresh), **more}

    def fresh() -> None:
        clips.copy_to_device(before)

    touch, touch_patches, multiply = limits()
    words = clips.reshape(clips.size).view(np.uint64)
    rows = [measured("touch every sample", lambda: touch[-(-words.size // 1024), 256](words))]
    for name, recipe in RECIPES.items():
        rows.append(measured(f"protect, {name}", functools.partial(protect, clips, labels, KEY, recipe=recipe)))
        launch = prepared(clips, labels, recipe)
        rows.append(measured(f"kernel, {name}", launch))
        for peer, ways in PEERS.items():
            prepare = available(peer, ways)
            if prepare is not None:
                run = prepare[name](clips, labels)
                rows.append(measured(f"{peer}, {name}", run))
    plan = make_plan(KEY, Recipe.paper(), labels, None, np.full(n_clips, FRAMES))
    patches = plan.of_clips(np.arange(n_clips))
    starts = cuda.to_device(patches.clips * FRAMES + patches.starts)
    sums = cuda.device_array(1000 * 256, np.float64)
    size, taps = Recipe.paper().patch, Recipe.paper().taps
    flat = clips.reshape(clips.size)
    bandwidth = timed(lambda: touch_patches[n_clips, 32](flat, starts, size), fresh)
    # The time of `multiply`, scaled to the number of multiply-adds that the patches need.
    fma = timed(lambda: multiply[1000, 256](sums, 1.0 + 1e-9, 1e-9)) * n_clips * size * taps / (256e3 * SUMS * ROUNDS)
    rows.append({
        "what": f"limit, paper's recipe, {kind}", "clips": n_clips, "milliseconds": max(bandwidth, fma),
        "bandwidth_milliseconds": bandwidth, "float64_milliseconds": fma,
    })  # fmt: skip
    return rows


def speech(dtype: Any, n: int) -> NDArray[Any]:
    """Noise at the level of speech."""
    samples = np.random.default_rng(1).normal(0, 3000, (n, FRAMES))
    return samples.astype(np.int16) if dtype is np.int16 else (samples / 32768).astype(np.float32)


def prepared(clips: Any, labels: NDArray[Any], recipe: Recipe) -> Callable[[], None]:
    """The bare kernel on all clips, with everything it needs on the device."""
    from poscuda_fast.kernels import cuda_filters, cuda_lines

    audio: Any = DeviceClips(clips, None)
    plan: Any = make_plan(KEY, recipe, labels, None, audio.lengths)
    rows = ClipRows(plan.rows_of_all(), np.array([FRAMES]), FRAMES, 1)
    view = clips.reshape(clips.size)
    if plan.marks.steady:
        launch, _ = cuda_lines.prepare_clips(view, view, rows, plan.marks.table(audio.dtype, 1))
    else:
        launch, _ = cuda_filters.prepare_clips(view, rows, plan.scattering, plan.marks.taps)
    return launch


def limits() -> tuple[Any, Any, Any]:
    """Kernels that do part of the work: move all bytes, or those of patches, or multiply and add in float64."""
    from numba import cuda

    @cuda.jit
    def touch(words: Any) -> None:
        first = cuda.blockIdx.x * 1024 + cuda.threadIdx.x
        for k in range(4):
            place = np.uint64(first + 256 * k)
            if place < words.size:
                words[place] ^= np.uint64(0x0001000100010001)

    @cuda.jit
    def touch_patches(samples: Any, starts: Any, size: int) -> None:
        start, t = starts[cuda.blockIdx.x], cuda.threadIdx.x
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

    return touch, touch_patches, multiply


def timed(run: Callable[[], object], fresh: Callable[[], object] = lambda: None) -> float:
    """Median milliseconds from the call until the GPU is done."""
    from numba import cuda

    times = []
    for _ in range(REPEATS + 2):  # the first ones compile and warm up
        fresh()
        cuda.synchronize()
        begun = time.perf_counter()
        run()
        cuda.synchronize()
        times.append(1000 * (time.perf_counter() - begun))
    return statistics.median(times[2:])


# What users would write otherwise: class by class, on clips that are sorted by class for them.


def by_class(labels: NDArray[Any], recipe: Recipe) -> list[tuple[slice, Any, int]]:
    """For each class some clips at a time; its lines along a clip or its filter; and where its patch begins."""
    plan: Any = make_plan(KEY, recipe, labels, None, np.full(len(labels), FRAMES))
    patches = plan.of_clips(np.arange(len(labels)))
    found: list[tuple[slice, Any, int]] = []
    for row in range(CLASSES):
        own = np.flatnonzero(patches.rows == row)
        mark = (
            np.resize(plan.marks.mark(row, np.dtype(np.int16)), FRAMES) if plan.marks.steady else plan.marks.taps[row]
        )
        first, end, start = int(own[0]), int(own[-1]) + 1, int(patches.starts[own[0]])
        parts = [slice(begin, min(begin + TORCH_STEP, end)) for begin in range(first, end, TORCH_STEP)]
        found += [(part, mark, start) for part in parts]
    return found


def torch_add(clips: Any, labels: NDArray[Any]) -> Callable[[], None]:
    import torch

    samples = torch.as_tensor(clips, device="cuda")
    scale = 1 if samples.dtype == torch.int16 else 32768
    wide = torch.int32 if scale == 1 else torch.float32
    work = [
        (part, torch.from_numpy(mark / scale).to("cuda", wide)) for part, mark, _ in by_class(labels, Recipe.strong())
    ]

    def run() -> None:
        for part, mark in work:
            if scale == 1:
                samples[part] = (samples[part] + mark).clamp_(-32768, 32767)
            else:
                samples[part] += mark

    return run


def torch_filter(clips: Any, labels: NDArray[Any]) -> Callable[[], None]:
    import torch

    samples = torch.as_tensor(clips, device="cuda")
    recipe = Recipe.paper()
    centre = (recipe.taps - 1) // 2
    work = [
        (part, torch.from_numpy(taps[::-1].astype(np.float64))[None, None].cuda(), start)
        for part, taps, start in by_class(labels, recipe)
    ]

    def run() -> None:
        for part, weight, start in work:
            patch = samples[part, start : start + recipe.patch]
            padded = torch.nn.functional.pad(patch[:, None].double(), (recipe.taps - 1 - centre, centre))
            wet = torch.nn.functional.conv1d(padded, weight)[:, 0]
            patch.copy_(wet.round_().clamp_(-32768, 32767) if samples.dtype == torch.int16 else wet)

    return run


def cupy_add(clips: Any, labels: NDArray[Any]) -> Callable[[], None]:
    import cupy

    samples = cupy.asarray(clips)
    scale = 1 if samples.dtype == np.int16 else 32768
    wide = np.int32 if scale == 1 else np.float32
    work = [(part, cupy.asarray((mark / scale).astype(wide))) for part, mark, _ in by_class(labels, Recipe.strong())]

    def run() -> None:
        for part, mark in work:
            if scale == 1:
                samples[part] = cupy.clip(samples[part] + mark, -32768, 32767)
            else:
                samples[part] += mark

    return run


def cupy_filter(clips: Any, labels: NDArray[Any]) -> Callable[[], None]:
    import cupy
    from cupyx.scipy.ndimage import convolve1d

    samples = cupy.asarray(clips)
    recipe = Recipe.paper()
    work = [(part, cupy.asarray(taps.astype(np.float64)), start) for part, taps, start in by_class(labels, recipe)]

    def run() -> None:
        for part, taps, start in work:
            patch = samples[part, start : start + recipe.patch]
            wet = convolve1d(patch.astype(np.float64), taps, axis=1, mode="constant", origin=-1)
            patch[...] = cupy.clip(cupy.rint(wet), -32768, 32767) if samples.dtype == np.int16 else wet

    return run


PEERS = {
    "torch": {"default": torch_add, "paper's recipe": torch_filter},
    "cupy": {"default": cupy_add, "paper's recipe": cupy_filter},
}


def available(peer: str, ways: dict[str, Any]) -> dict[str, Any] | None:
    """A peer's ways, if its package is installed here and reaches the GPU."""
    try:
        package = importlib.import_module(peer)
        ok = package.cuda.is_available()
    except ImportError:
        return None
    return ways if ok else None


# Host memory.


def streamed() -> list[dict[str, Any]]:
    """Clips in a memory-mapped file, by way of the GPU and on this machine's cores, page cache warm."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        clips = np.memmap(Path(folder) / "clips", np.int16, "w+", shape=(STREAMED, FRAMES))
        clips[:] = speech(np.int16, 1)[0]
        labels = np.arange(STREAMED) % CLASSES
        for name, recipe in RECIPES.items():
            for backend in ("cuda", "auto"):
                run = functools.partial(protect, clips, labels, KEY, recipe=recipe, backend=backend)
                what = f"host memory, {name}, {'GPU' if backend == 'cuda' else 'processor'}"
                rows.append({"what": what, "clips": STREAMED, "milliseconds": timed(run)})
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
    show(f"{'':<46} {'clips':>9} {'ms':>10} {'ns/clip':>9}")
    times = {row["what"]: row["milliseconds"] for row in results["rows"]}
    for row in results["rows"]:
        each = 1e6 * row["milliseconds"] / row["clips"]
        show(f"{row['what']:<46} {row['clips']:>9,} {row['milliseconds']:>10.3f} {each:>9.2f}")
        parts = [f"{limit} {row[f'{limit}_milliseconds']:.3f} ms" for limit in LIMITS if f"{limit}_milliseconds" in row]
        if parts:
            show(f"  of {', '.join(parts)}")
    for what, ours, other, asked in GOALS:
        if ours in times and other in times:
            ratio = times[ours] / times[other]
            show(f"{what:<46} {ratio:.2f}, asked {asked}: {'reached' if ratio <= asked else 'not reached'}")


def show(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
