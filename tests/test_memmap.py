"""Arrays mapped from files: equal to `protect` in memory, nothing else in the file touched, undone bit for bit."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes import protect, protect_folder, protect_memmap

from poscuda_fast import Key, Recipe, SidecarError, restore_memmap, verify_memmap
from poscuda_fast.mark import plan as plans
from poscuda_fast.mark.plan import make_plan

SMALL = Recipe.paper(patch=40, taps=8, blur=0.3)
STRONG = Recipe.strong()
HEADER_BYTES = 44  # of a plain WAV file


def whole(arr: np.ndarray) -> np.ndarray:
    return arr


@dataclasses.dataclass
class Clips:
    """A file of samples, how it is mapped, and which part of it is protected."""

    path: Path
    dtype: str = "<i2"
    shape: tuple[int, ...] = (9, 300)
    offset: int | None = None  # None: an .npy file
    order: str = "C"
    view: Callable[[np.ndarray], np.ndarray] = whole
    silent: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        rng = np.random.default_rng(17)
        if np.dtype(self.dtype).kind == "i":
            samples = rng.integers(-30_000, 30_000, self.shape).astype(self.dtype)
        else:
            samples = rng.normal(0, 0.2, self.shape).astype(self.dtype)
        samples[list(self.silent)] = 0
        samples = np.asarray(samples, order=self.order)
        if self.offset is None:
            np.save(self.path, samples)
        else:
            self.path.write_bytes(rng.bytes(self.offset) + samples.tobytes("A") + rng.bytes(33))
        self.original = self.path.read_bytes()
        self.start = self.original.index(samples.tobytes("A"))

    @property
    def sidecar(self) -> Path:
        return self.path.with_name(self.path.name + ".poscuda")

    def map(self, mode: str = "r+") -> np.ndarray:
        if self.offset is None:
            return self.view(np.load(self.path, mmap_mode=mode))
        return self.view(np.memmap(self.path, self.dtype, mode, self.offset, self.shape, self.order))

    def protected_bytes(self, key: Key, labels: Any, **options: Any) -> bytes:
        """The file as `protect` on a copy of it in memory leaves it."""
        content = bytearray(self.original)
        copy = np.ndarray(self.shape, self.dtype, content, self.start, order=self.order)
        self.expected_report = protect(self.view(copy), labels, key, **options)
        return bytes(content)

    def is_untouched(self) -> bool:
        """Whether the file is the original one and nothing was put beside it."""
        return self.path.read_bytes() == self.original and not self.sidecar.exists()


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "BATCH_BYTES", 4 * 40 * 2)


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips(tmp_path / "clips.npy")


LABELS = np.arange(9) % 3


def made_with(key: Key) -> str:
    """What is said of a sidecar that was made with another key than was given."""
    return f"was made with the key of fingerprint {key.fingerprint}, and this one has "


def start_of(key: Key, clip: int, frames: int = 300) -> int:
    """Where the patch of a clip begins."""
    plan = make_plan(key, SMALL, LABELS, None, np.full(9, frames, np.int64))
    return int(plan.of_clip(clip).starts[0])


# Protecting, undoing, verifying

LAYOUTS: dict[str, dict[str, Any]] = {
    "npy int16": {},
    "npy float32": {"dtype": "<f4"},
    "npy int16 stereo": {"shape": (9, 300, 2)},
    "npy float32 stereo": {"dtype": "<f4", "shape": (9, 300, 2)},
    "npy int16 Fortran": {"order": "F"},
    "npy float32 Fortran stereo": {"dtype": "<f4", "shape": (9, 300, 2), "order": "F"},
    "raw int16": {"offset": 0},
    "raw int16 behind a header": {"offset": HEADER_BYTES},
    "raw float32 behind a header": {"offset": HEADER_BYTES, "dtype": "<f4"},
    "raw int16 Fortran behind a header": {"offset": HEADER_BYTES, "order": "F"},
    "raw int16 one channel": {"offset": 0, "shape": (9, 300, 1)},
    "clips of a larger array": {"shape": (15, 300), "view": lambda arr: arr[4:13]},
    "every second clip": {"shape": (18, 300), "view": lambda arr: arr[::2]},
    "frames of longer clips": {"shape": (9, 500), "view": lambda arr: arr[:, 150:450]},
    "every second frame": {"shape": (9, 600), "view": lambda arr: arr[:, ::2]},
    "clips reversed": {"view": lambda arr: arr[::-1]},
    "frames reversed, raw": {"offset": HEADER_BYTES, "view": lambda arr: arr[:, ::-1]},
    "a plain array over it": {"view": np.asarray},
    "a view of a view": {"shape": (20, 400), "view": lambda arr: np.asarray(arr[2:])[::-2, 50:350]},
    "channels first": {"shape": (9, 2, 300), "view": lambda arr: arr.transpose(0, 2, 1)},
    "flat file reshaped": {"offset": 0, "shape": (2_700,), "view": lambda arr: arr.reshape(9, 300)},
    "one channel of two": {"shape": (9, 300, 2), "view": lambda arr: arr[:, :, 1]},
}

RUNS: dict[str, dict[str, Any]] = {
    "defaults": {"recipe": Recipe.paper()},
    "small": {},
    "several patches": {"recipe": Recipe.paper(patch=20, taps=7, blur=0.5, patches=5)},
    "every": {"recipe": Recipe.paper(patch=20, taps=8, blur=0.1, every=70)},
    "identity": {"recipe": Recipe.paper(patch=40, taps=9, identity=True)},
    "one frame": {"recipe": Recipe.paper(patch=1, taps=1, blur=0.9)},
    "longer than the clips": {"recipe": Recipe.paper(patch=1_000, blur=0.3)},
    "lengths": {"lengths": [0, 1, 39, 40, 41, 150, 299, 300, 7]},
    "lengths, every": {
        "lengths": [0, 1, 39, 40, 41, 150, 299, 300, 7],
        "recipe": Recipe.paper(patch=20, every=50, blur=0.3),
    },
    "names": {"labels": ["bed", "cat", "café"] * 3},
    "classes": {"classes": ["bed", "cat", "down", "unused"]},
    "one class": {"labels": [2**63] * 9},
    "reference": {"backend": "reference"},
    "one thread": {"threads": 1},
    "format 2": {"recipe": STRONG},
    "format 2, lengths": {"recipe": STRONG, "lengths": [0, 1, 39, 40, 41, 150, 299, 300, 7]},
    "format 2, loud, at 44.1 kHz": {"recipe": Recipe.strong(9.0), "sample_rate": 44_100},
    "format 2 by its ratio": {"recipe": STRONG, "snr": 31.5, "sample_rate": 8_000},
    "format 2, reference": {"recipe": STRONG, "backend": "reference", "threads": 1},
}


def check_round_trip(clips: Clips, key: Key, labels: Any = LABELS, **options: Any) -> None:
    """Protect, again, verify, restore, again: bytes and reports are what they have to be."""
    expected = clips.protected_bytes(key, labels, **options)
    wanted = clips.expected_report
    assert expected != clips.original

    report = protect_memmap(clips.map(), labels, key, **options)
    assert clips.path.read_bytes() == expected
    assert dataclasses.replace(report, seconds=wanted.seconds) == wanted

    again = protect_memmap(clips.map(), labels, key, **options)
    assert again == dataclasses.replace(wanted, state="already protected", seconds=again.seconds)
    assert clips.path.read_bytes() == expected
    found = verify_memmap(clips.map("r"), key)
    assert (found.original, found.neither, found.state, found.ok) == (0, (), "complete", True)
    assert found.protected > 0

    report = restore_memmap(clips.map(), key)
    assert hashlib.sha256(clips.path.read_bytes()).digest() == hashlib.sha256(clips.original).digest()
    assert (report.state, report.patches, report.frames_changed) == ("restored", wanted.patches, wanted.frames_changed)
    again = restore_memmap(clips.map(), key)
    assert again == dataclasses.replace(report, state="already original", seconds=again.seconds)
    assert clips.path.read_bytes() == clips.original
    found = verify_memmap(clips.map("r"), key)
    assert (found.protected, found.neither, found.state, found.ok) == (0, (), "undone", True)
    assert sorted(os.listdir(clips.path.parent)) == [clips.path.name, clips.sidecar.name]


@pytest.mark.parametrize("recipe", [SMALL, STRONG], ids=["paper", "strong"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_goes_there_and_back(tmp_path: Path, key: Key, layout: dict[str, Any], recipe: Recipe) -> None:
    check_round_trip(Clips(tmp_path / "clips.dat.npy", **layout), key, recipe=recipe)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_every_kind_of_run_goes_there_and_back(clips: Clips, key: Key, run: dict[str, Any]) -> None:
    check_round_trip(clips, key, **{"recipe": SMALL, "labels": LABELS, **run})


@pytest.mark.parametrize("layout", ["npy float32 Fortran stereo", "a view of a view", "raw float32 behind a header"])
@pytest.mark.parametrize("run", ["several patches", "lengths", "lengths, every", "longer than the clips"])
def test_layouts_and_runs_together(tmp_path: Path, key: Key, layout: str, run: str) -> None:
    check_round_trip(Clips(tmp_path / "clips.npy", **LAYOUTS[layout]), key, **{"recipe": SMALL, **RUNS[run]})


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_only_bytes_of_patches_change(tmp_path: Path, key: Key, layout: dict[str, Any]) -> None:
    clips = Clips(tmp_path / "clips.npy", **layout)
    recipe = Recipe.paper(patch=20, taps=5, blur=0.4, patches=3)
    protect_memmap(clips.map(), LABELS, key, recipe=recipe)
    marks = bytearray(len(clips.original))
    marked = clips.view(np.ndarray(clips.shape, clips.dtype, marks, clips.start, order=clips.order))
    plan = make_plan(key, recipe, LABELS, None, np.full(9, 300, np.int64))
    for patches in plan.batches(None):
        for clip, start in zip(patches.clips, patches.starts, strict=True):
            marked[clip, start : start + 20].view(f"u{marked.itemsize}")[...] = 2 ** (8 * marked.itemsize) - 1
    inside = np.frombuffer(marks, np.uint8) == 0xFF
    assert inside.sum() == 9 * 3 * 20 * marked[0, 0].nbytes
    before, after = (np.frombuffer(content, np.uint8) for content in (clips.original, clips.path.read_bytes()))
    assert after.size == before.size
    changed = before != after
    assert not changed[~inside].any()
    assert changed[inside].mean() > 0.5


def test_many_clips_take_several_batches(tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = Clips(tmp_path / "clips.npy", shape=(2_000, 60))
    monkeypatch.setattr(plans, "BATCH_BYTES", 1 << 14)
    check_round_trip(clips, key, np.arange(2_000) % 35, recipe=SMALL)


def test_a_mapping_made_in_this_process_is_protected_with_what_was_stored_in_it(tmp_path: Path, key: Key) -> None:
    samples = np.random.default_rng(1).integers(-9_000, 9_000, (9, 300), dtype=np.int16)
    arr = np.memmap(tmp_path / "new.raw", np.int16, "w+", shape=(9, 300))
    arr[:] = samples
    protect(wet := samples.copy(), LABELS, key, recipe=SMALL)
    assert protect_memmap(arr, LABELS, key, recipe=SMALL).state == "protected"
    assert (tmp_path / "new.raw").read_bytes() == wet.tobytes()
    assert restore_memmap(arr, key).state == "restored"
    assert (tmp_path / "new.raw").read_bytes() == samples.tobytes()


def test_another_run_after_an_undo(clips: Clips, key: Key) -> None:
    other = Recipe.paper(patch=33, taps=5, blur=0.2, patches=4)
    labels = (LABELS + 1) % 5
    protect_memmap(clips.map(), LABELS, key, recipe=SMALL)
    restore_memmap(clips.map(), key)
    check_round_trip(clips, key, labels, recipe=other)
    check_round_trip(clips, key, ["a", "b", "c"] * 3, recipe=SMALL, lengths=[200] * 9)


@pytest.mark.parametrize(
    ("view", "what"),
    [
        (lambda arr: arr[2:8], "another shape"),
        (lambda arr: arr[:, ::-1], "another part of the file"),
    ],
)
def test_after_an_undo_another_view_is_protected_once_the_sidecar_is_moved_away(
    clips: Clips, key: Key, view: Callable[[np.ndarray], np.ndarray], what: str
) -> None:
    """The sidecar could not tell whether the data of another view are the originals."""
    protect_memmap(clips.map(), LABELS, key, recipe=SMALL)
    restore_memmap(clips.map(), key)
    part = view(clips.map())
    sealed = clips.sidecar.read_bytes()
    with pytest.raises(SidecarError, match=rf"made for other data \({what}\).*move it away"):
        protect_memmap(part, LABELS[: len(part)], key, recipe=STRONG)
    assert (clips.path.read_bytes(), clips.sidecar.read_bytes()) == (clips.original, sealed)
    clips.sidecar.unlink()
    assert protect_memmap(part, LABELS[: len(part)], key, recipe=STRONG).state == "protected"
    restore_memmap(part, key)
    assert clips.path.read_bytes() == clips.original


def test_after_an_undo_another_key_does_not_take_over(clips: Clips, key: Key) -> None:
    protect_memmap(clips.map(), LABELS, key, recipe=SMALL)
    restore_memmap(clips.map(), key)
    with pytest.raises(SidecarError, match=made_with(key)):
        protect_memmap(clips.map(), LABELS, Key(bytes(32)), recipe=SMALL)
    assert clips.path.read_bytes() == clips.original


# Reports, progress, dry runs


def test_progress_grows_to_the_total(clips: Clips, key: Key) -> None:
    """Restoring, and protecting again, look at everything before the first change."""
    steps: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        steps.append((done, total))

    protect_memmap(clips.map(), LABELS, key, recipe=SMALL, progress=note)
    assert steps == [(160, 360), (320, 360), (360, 360)]
    steps.clear()
    protect_memmap(clips.map(), LABELS, key, recipe=SMALL, progress=note)
    assert steps == [(160, 720), (320, 720), (360, 720)]
    steps.clear()
    restore_memmap(clips.map(), key, progress=note)
    assert steps == [(n, 720) for n in (160, 320, 360, 520, 680, 720)]
    steps.clear()
    protect_memmap(clips.map("r"), LABELS, key, recipe=SMALL, progress=note, dry_run=True)
    assert steps == [(160, 360), (320, 360), (360, 360)]


def test_a_dry_run_counts_and_writes_nothing(clips: Clips, key: Key) -> None:
    clips.protected_bytes(key, LABELS, recipe=SMALL)
    report = protect_memmap(clips.map("r"), LABELS, key, recipe=SMALL, dry_run=True)
    assert report == dataclasses.replace(clips.expected_report, state="untouched", seconds=report.seconds)
    assert clips.is_untouched()


def test_silence_and_short_clips_are_counted(tmp_path: Path, key: Key) -> None:
    clips = Clips(tmp_path / "clips.npy", silent=(1, 4))
    lengths = [300, 300, 10, 0, 300, 39, 40, 300, 300]
    report = protect_memmap(clips.map(), LABELS, key, recipe=SMALL, lengths=lengths)
    assert (report.clips, report.patches, report.silent_patches, report.short_clips) == (9, 8, 2, 3)
    assert report.frames_changed == 4 * 40 + 10 + 39
    found = verify_memmap(clips.map("r"), key)
    assert (found.original, found.protected, found.unchanged, found.neither) == (0, 6, 2, ())
    assert clips.path.read_bytes() == clips.protected_bytes(key, LABELS, recipe=SMALL, lengths=lengths)


def test_silence_alone_is_protected_without_a_change(tmp_path: Path, key: Key) -> None:
    clips = Clips(tmp_path / "clips.npy", silent=tuple(range(9)))
    assert protect_memmap(clips.map(), LABELS, key, recipe=SMALL).silent_patches == 9
    assert clips.path.read_bytes() == clips.original
    assert verify_memmap(clips.map("r"), key).unchanged == 9
    assert restore_memmap(clips.map(), key).state == "restored"
    assert clips.path.read_bytes() == clips.original


def test_clips_without_frames_have_nothing_to_protect(clips: Clips, key: Key) -> None:
    report = protect_memmap(clips.map(), LABELS, key, recipe=SMALL, lengths=[0] * 9)
    assert (report.state, report.clips, report.patches) == ("protected", 9, 0)
    assert verify_memmap(clips.map("r"), key).state == "complete"
    assert restore_memmap(clips.map(), key).state == "restored"
    assert clips.path.read_bytes() == clips.original


def test_nan_and_infinity_outside_patches_stay(tmp_path: Path, key: Key) -> None:
    clips = Clips(tmp_path / "clips.npy", dtype="<f4")
    arr = clips.map()
    arr[4, (start_of(key, 4) + 40) % 300] = np.nan
    arr[5, start_of(key, 5) - 1] = -np.inf
    del arr
    clips.original = clips.path.read_bytes()
    check_round_trip(clips, key, recipe=SMALL)


# Verify


def test_verify_tells_clips_apart(clips: Clips, key: Key) -> None:
    protect_memmap(clips.map(), LABELS, key, recipe=SMALL)
    arr = clips.map()
    original = np.load(io.BytesIO(clips.original))
    arr[[0, 3]] = original[[0, 3]]
    arr[7, start_of(key, 7) + 5] ^= 1
    arr[8, start_of(key, 8) : start_of(key, 8) + 20] = original[8, start_of(key, 8) : start_of(key, 8) + 20]
    content = clips.path.read_bytes()
    found = verify_memmap(clips.map("r"), key)
    assert (found.original, found.protected, found.unchanged, found.neither) == (2, 5, 0, ("7", "8"))
    assert (found.missing, found.unprotected, found.state, found.ok) == ((), (), "complete", False)
    with pytest.raises(SidecarError, match=r"1 files or clips .* were changed.*:\n  clip 7$"):  # clip 8 is half written
        restore_memmap(clips.map(), key)
    assert clips.path.read_bytes() == content
    report = restore_memmap(clips.map(), key, partial=True)
    assert (report.state, report.left_out) == ("partly restored", ("clip 7",))
    found = verify_memmap(clips.map("r"), key)
    assert (found.original, found.neither, found.state) == (8, ("7",), "undoing")
    arr[7, start_of(key, 7) + 5] ^= 1
    assert restore_memmap(clips.map(), key).state == "restored"
    assert clips.path.read_bytes() == clips.original


def test_a_clip_with_one_patch_of_each_kind_is_neither(clips: Clips, key: Key) -> None:
    recipe = Recipe.paper(patch=20, taps=5, blur=0.4, patches=3)
    protect_memmap(clips.map(), LABELS, key, recipe=recipe)
    arr = clips.map()
    plan = make_plan(key, recipe, LABELS, None, np.full(9, 300, np.int64))
    start = int(plan.of_clip(6).starts[1])
    original = np.load(io.BytesIO(clips.original))
    arr[6, start : start + 20] = original[6, start : start + 20]
    found = verify_memmap(clips.map("r"), key)
    assert (found.protected, found.neither, found.ok) == (8, ("6",), False)


def test_verify_compares_nan_by_its_bits(tmp_path: Path, key: Key) -> None:
    clips = Clips(tmp_path / "clips.npy", dtype="<f4")
    protect_memmap(clips.map(), LABELS, key, recipe=SMALL)
    arr = clips.map()
    arr[2, start_of(key, 2)] = np.nan
    arr[3, start_of(key, 3) : start_of(key, 3) + 40] *= -1
    assert verify_memmap(clips.map("r"), key).neither == ("2", "3")


def test_verify_and_restore_need_a_sidecar(clips: Clips, key: Key) -> None:
    for verb in (verify_memmap, restore_memmap):
        with pytest.raises(SidecarError, match=re.escape(f"{clips.sidecar} does not exist: nothing can")):
            verb(clips.map(), key)
        assert clips.is_untouched()


# Where the sidecar is


@pytest.mark.parametrize("kind", [str, Path, lambda path: path.relative_to(Path.cwd())])
def test_the_sidecar_may_be_elsewhere(
    clips: Clips, key: Key, monkeypatch: pytest.MonkeyPatch, kind: Callable[[Path], Any]
) -> None:
    monkeypatch.chdir(clips.path.parent)
    elsewhere = clips.path.parent / "folder with a ?mode=memory&x=%41 name" / "undo.db"
    elsewhere.parent.mkdir()
    expected = clips.protected_bytes(key, LABELS, recipe=SMALL)
    protect_memmap(clips.map(), LABELS, key, recipe=SMALL, sidecar=kind(elsewhere))
    assert elsewhere.is_file()
    assert not clips.sidecar.exists()
    assert clips.path.read_bytes() == expected
    again = protect_memmap(clips.map(), LABELS, key, recipe=SMALL, sidecar=kind(elsewhere))
    assert again.state == "already protected"
    assert verify_memmap(clips.map("r"), key, sidecar=kind(elsewhere)).protected == 9
    with pytest.raises(SidecarError, match="give its path"):
        restore_memmap(clips.map(), key)
    assert clips.path.read_bytes() == expected
    restore_memmap(clips.map(), key, sidecar=kind(elsewhere))
    assert clips.path.read_bytes() == clips.original
    assert os.listdir(elsewhere.parent) == ["undo.db"]


def test_two_views_with_two_sidecars(tmp_path: Path, key: Key) -> None:
    clips = Clips(tmp_path / "clips.npy", shape=(18, 300))
    arr = clips.map()
    parts = [(arr[:9], tmp_path / "first"), (arr[9:], tmp_path / "second")]
    for part, sidecar in parts:
        protect_memmap(part, LABELS, key, recipe=SMALL, sidecar=sidecar)
    wet = np.load(clips.path)
    expected = np.load(io.BytesIO(clips.original))
    protect(expected[:9], LABELS, key, recipe=SMALL)
    protect(expected[9:], LABELS, key, recipe=SMALL)
    assert wet.tobytes() == expected.tobytes()
    for part, sidecar in parts:
        restore_memmap(part, key, sidecar=sidecar)
    assert clips.path.read_bytes() == clips.original


@pytest.mark.parametrize("move", [shutil.move, shutil.copy])
def test_a_file_may_be_moved_or_copied_with_its_sidecar(
    clips: Clips, key: Key, tmp_path: Path, move: Callable[[Path, Path], Any]
) -> None:
    protect_memmap(clips.map(), LABELS, key, recipe=SMALL)
    expected = clips.path.read_bytes()
    folder = tmp_path / "archive"
    folder.mkdir()
    move(clips.path, folder / "renamed.npy")
    move(clips.sidecar, folder / "renamed.npy.poscuda")
    moved = folder / "renamed.npy"
    assert verify_memmap(np.load(moved, mmap_mode="r"), key).protected == 9
    assert protect_memmap(np.load(moved, mmap_mode="r+"), LABELS, key, recipe=SMALL).state == "already protected"
    assert moved.read_bytes() == expected
    restore_memmap(np.load(moved, mmap_mode="r+"), key)
    assert moved.read_bytes() == clips.original
    if move is shutil.copy:
        assert clips.path.read_bytes() == expected


def test_a_file_keeps_its_sidecar_under_a_symbolic_link(clips: Clips, key: Key, tmp_path: Path) -> None:
    folder = tmp_path / "links"
    folder.mkdir()
    link = folder / "other.npy"
    link.symlink_to(clips.path)
    protect_memmap(np.load(link, mmap_mode="r+"), LABELS, key, recipe=SMALL)
    assert clips.sidecar.is_file()
    assert os.listdir(folder) == ["other.npy"]
    assert protect_memmap(clips.map(), LABELS, key, recipe=SMALL).state == "already protected"
    assert restore_memmap(np.load(link, mmap_mode="r+"), key).state == "restored"
    assert clips.path.read_bytes() == clips.original


def test_a_relative_path_means_the_folder_in_which_the_file_was_mapped(
    clips: Clips, key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clips.path.parent)
    arr = np.load(clips.path.name, mmap_mode="r+")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    protect_memmap(arr, LABELS, key, recipe=SMALL)
    assert clips.sidecar.is_file()
    assert os.listdir(".") == []


# Refusals, with nothing written


def refuses(clips: Clips, key: Key, arr: Any, kind: type[Exception], message: str, **options: Any) -> None:
    """Protecting is refused with a message, and leaves the file and its folder as they were."""
    listing = sorted(os.listdir(clips.path.parent))
    with pytest.raises(kind, match=message):
        protect_memmap(arr, options.pop("labels", LABELS), key, **{"recipe": SMALL, **options})
    assert clips.path.read_bytes() == clips.original
    assert sorted(os.listdir(clips.path.parent)) == listing
    assert clips.sidecar.name not in listing


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (np.array, TypeError, r"arr is a ndarray that is not mapped from a file; open it with numpy\.memmap"),
        (np.copy, TypeError, "not mapped from a file"),
        (lambda arr: arr.copy(), TypeError, "arr is a memmap that is not mapped from a file"),
        (lambda arr: arr + np.int16(0), TypeError, "not mapped from a file"),
        (lambda arr: arr[[0, 1, 2, 3, 4, 5, 6, 7, 8]], TypeError, "not mapped from a file"),
        (lambda arr: arr.tolist(), TypeError, "arr is a list; expected an array that is mapped from a file"),
        (lambda arr: None, TypeError, "arr is a NoneType"),
        (lambda arr: arr.view(np.uint16), TypeError, "dtype <u2; scale it to 16 bits"),
        (lambda arr: arr.view(np.float64), TypeError, r"dtype <f8; use astype\(numpy\.float32\)"),
        (lambda arr: arr.view(">i2"), TypeError, "dtype >i2; it is not in this machine's byte order"),
        (lambda arr: arr[0], ValueError, r"shape \(300,\); expected \(n_clips, n_frames\)"),
        (lambda arr: arr[None, None], ValueError, r"shape \(1, 1, 9, 300\)"),
        (
            lambda arr: np.ndarray((9, 300), np.int16, arr, strides=(2, 2)),
            ValueError,
            r"strides \(2, 2\) for shape \(9, 300\): some samples share one address",
        ),
    ],
)
def test_arrays_that_cannot_be_edited_in_their_file(
    clips: Clips, key: Key, make: Callable[[np.ndarray], Any], kind: type[Exception], message: str
) -> None:
    refuses(clips, key, make(clips.map()), kind, message)


def test_a_read_only_mapping_is_refused(clips: Clips, key: Key) -> None:
    refuses(clips, key, clips.map("r"), ValueError, 'mapped with mode="r"; open the array with mode="r\\+"')
    with pytest.raises(ValueError, match='mode="r"'):
        restore_memmap(clips.map("r"), key)


def test_a_private_mapping_is_refused(clips: Clips, key: Key) -> None:
    for verb in (verify_memmap, restore_memmap):
        with pytest.raises(ValueError, match='copy-on-write \\(mode="c"\\)'):
            verb(clips.map("c"), key)
    refuses(clips, key, clips.map("c"), ValueError, 'copy-on-write \\(mode="c"\\).*use mode="r\\+"')


def test_a_view_made_read_only_is_refused(clips: Clips, key: Key) -> None:
    arr = clips.map()
    arr.flags.writeable = False
    refuses(clips, key, arr, ValueError, 'arr is read-only.*open it with mode="r\\+"')


def test_a_pickled_mapping_is_refused(clips: Clips, key: Key) -> None:
    import pickle

    refuses(clips, key, pickle.loads(pickle.dumps(clips.map())), TypeError, "arr is a memmap that is not mapped")


def test_samples_that_are_not_aligned_are_refused(tmp_path: Path, key: Key) -> None:
    clips = Clips(tmp_path / "clips.raw", offset=45)
    refuses(clips, key, clips.map(), ValueError, "arr is not aligned to its 2-byte samples")


@pytest.mark.parametrize("dtype", [">i2", ">f4", "<f8", "<i4", "u1"])
def test_other_dtypes_are_refused(tmp_path: Path, key: Key, dtype: str) -> None:
    clips = Clips(tmp_path / "clips.npy")
    np.save(clips.path, np.ones((9, 300), dtype))
    clips.original = clips.path.read_bytes()
    refuses(clips, key, clips.map(), TypeError, f"arr has dtype {re.escape(np.dtype(dtype).str)}; ")


def test_a_file_without_a_name_is_refused(key: Key) -> None:
    with tempfile.TemporaryFile() as file:
        arr = np.memmap(file, np.int16, "w+", shape=(9, 300))
        with pytest.raises(ValueError, match="mapped from a file without a name; map it by its path"):
            protect_memmap(arr, LABELS, key, recipe=SMALL)
        assert not arr.any()


def test_a_file_deleted_after_it_was_mapped_is_refused(clips: Clips, key: Key) -> None:
    arr = clips.map()
    clips.path.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(str(clips.path))):
        protect_memmap(arr, LABELS, key, recipe=SMALL)
    assert os.listdir(clips.path.parent) == []


def replaced(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    os.replace(copy, path)


def renamed(path: Path) -> None:
    path.rename(path.with_name("renamed"))
    shutil.copy(path.with_name("renamed"), path)


@pytest.mark.parametrize("change", [replaced, renamed])
def test_a_file_replaced_after_it_was_mapped_is_refused(clips: Clips, key: Key, change: Callable[[Path], None]) -> None:
    arr = clips.map()
    change(clips.path)
    refuses(clips, key, arr, ValueError, f"{re.escape(str(clips.path))} was deleted or replaced after it was mapped")
    assert np.asarray(arr).tobytes() == clips.original[clips.start :]


def test_a_file_whose_name_ends_like_that_of_a_deleted_one_is_not_refused(tmp_path: Path, key: Key) -> None:
    check_round_trip(Clips(tmp_path / "take 2 (deleted)", offset=0), key, recipe=SMALL)


@pytest.mark.parametrize("size", [0, 100, 3_000])
def test_a_file_cut_after_it_was_mapped_is_refused(clips: Clips, key: Key, size: int) -> None:
    arr = clips.map()
    os.truncate(clips.path, size)
    clips.original = clips.original[:size]
    refuses(clips, key, arr, ValueError, f"has {size} bytes, fewer than the 5528 that arr maps; it was cut after")


@pytest.mark.parametrize("dtype", ["<f4"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("clip", [0, 8])
def test_a_sample_that_is_not_finite_is_refused(tmp_path: Path, key: Key, dtype: str, value: float, clip: int) -> None:
    clips = Clips(tmp_path / "clips.npy", dtype=dtype)
    arr = clips.map()
    arr[clip, start_of(key, clip) + 39] = value
    clips.original = clips.path.read_bytes()
    refuses(clips, key, arr, ValueError, f"Clip {clip} has a NaN or infinite sample where it would be marked")
    refuses(clips, key, arr, ValueError, f"Clip {clip} has a NaN", dry_run=True)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"labels": [0] * 8}, ValueError, "labels has 8 entries for 9 clips"),
        ({"labels": [0] * 10}, ValueError, "labels has 10 entries for 9 clips"),
        ({"labels": [0.0] * 9}, TypeError, r"labels\[0\] is 0.0"),
        ({"labels": [-1] * 9}, ValueError, r"labels\[0\] is -1"),
        ({"labels": [3] * 9, "classes": ["a"]}, ValueError, "classes has 1 names"),
        ({"lengths": [300] * 8}, ValueError, r"lengths has shape \(8,\) for 9 clips"),
        ({"lengths": [300] * 8 + [301]}, ValueError, r"lengths\[8\] is 301; clip 8 has 300 frames"),
        ({"lengths": [300.0] * 9}, TypeError, "lengths has dtype float64"),
        ({"recipe": {"patch": 40}}, TypeError, "recipe is a dict"),
        ({"backend": "tpu"}, ValueError, "backend is 'tpu'"),
        ({"threads": 0}, ValueError, "threads is 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    clips: Clips, key: Key, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    refuses(clips, key, clips.map(), kind, message, **options)


@pytest.mark.parametrize("wrong", [None, "secret text", b"\x07" * 32])
def test_what_is_not_a_key_is_refused_and_not_shown(clips: Clips, wrong: Any) -> None:
    for verb in (
        lambda: protect_memmap(clips.map(), LABELS, wrong, recipe=SMALL),
        lambda: restore_memmap(clips.map(), wrong),
        *([lambda: verify_memmap(clips.map(), wrong)] if wrong is not None else []),  # None asks the manifest alone
    ):
        with pytest.raises(TypeError, match=r"key is a (NoneType|str|bytes); expected a poscuda_fast.Key") as refusal:
            verb()
        assert "secret" not in str(refusal.value)
        assert "\\x07" not in str(refusal.value)
    assert clips.is_untouched()


def test_no_room_for_the_sidecar_is_refused(clips: Clips, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def nearly_full(folder: Any) -> Any:
        asked.append(Path(folder))
        return shutil._ntuple_diskusage(10**12, 10**12 - 1_000_000, 1_000_000)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    refuses(clips, key, clips.map(), OSError, r"needs about 1,[0-9]{3},[0-9]{3} bytes and 1,000,000 are free")
    elsewhere = clips.path.parent / "undo"
    refuses(clips, key, clips.map(), OSError, re.escape(str(elsewhere)), sidecar=elsewhere)
    assert asked == [clips.path.parent] * 2


def a_link(sidecar: Path) -> None:
    sidecar.with_name("target").touch()
    sidecar.symlink_to(sidecar.with_name("target"))


def a_dangling_link(sidecar: Path) -> None:
    sidecar.symlink_to(sidecar.with_name("nowhere"))


def a_text(sidecar: Path) -> None:
    sidecar.write_text("notes\n" * 1_000)


def a_short_text(sidecar: Path) -> None:
    sidecar.write_text("x")


def an_empty_file(sidecar: Path) -> None:
    sidecar.touch()


def a_database(sidecar: Path) -> None:
    """As versions before 1.0 made them."""
    sidecar.write_bytes(b"SQLite format 3\0" + bytes(4_080))


@pytest.mark.parametrize(
    "make", [a_link, a_dangling_link, Path.mkdir, os.mkfifo, a_text, a_short_text, an_empty_file, a_database]
)
def test_what_is_in_the_place_of_the_sidecar_is_refused_and_kept(
    clips: Clips, key: Key, make: Callable[[Path], None]
) -> None:
    make(clips.sidecar)
    kept = (os.lstat(clips.sidecar), clips.sidecar.read_bytes() if clips.sidecar.is_file() else None)
    listing = sorted(os.listdir(clips.path.parent))
    for verb in (
        lambda: protect_memmap(clips.map(), LABELS, key, recipe=SMALL),
        lambda: restore_memmap(clips.map(), key),
        lambda: verify_memmap(clips.map("r"), key),
    ):
        with pytest.raises(SidecarError, match=re.escape(str(clips.sidecar))):
            verb()
    assert clips.path.read_bytes() == clips.original
    status = os.lstat(clips.sidecar)
    assert (status.st_ino, status.st_mode, status.st_size) == (kept[0].st_ino, kept[0].st_mode, kept[0].st_size)
    assert kept[1] is None or clips.sidecar.read_bytes() == kept[1]
    assert sorted(os.listdir(clips.path.parent)) == listing


def test_the_data_is_not_its_own_sidecar(clips: Clips, key: Key) -> None:
    refuses(clips, key, clips.map(), SidecarError, "would be, or lie inside, .*choose another path", sidecar=clips.path)
    for verb in (restore_memmap, verify_memmap):
        with pytest.raises(SidecarError, match="is not a sidecar of this version"):
            verb(clips.map(), key, sidecar=clips.path)
    assert clips.is_untouched()


def test_the_sidecar_of_a_folder_is_refused(clips: Clips, key: Key, tmp_path: Path) -> None:
    import soundfile

    folder = tmp_path / "audio"
    (folder / "yes").mkdir(parents=True)
    samples = np.random.default_rng(2).integers(-9_000, 9_000, 3_000, dtype=np.int16)
    soundfile.write(folder / "yes" / "a.wav", samples, 8_000, subtype="PCM_16")
    protect_folder(folder, None, key)
    sidecar = tmp_path / "audio.poscuda"
    assert sidecar.is_file()
    for verb in (verify_memmap, restore_memmap):
        with pytest.raises(SidecarError, match="belongs to audio files that were edited in place, not to an array"):
            verb(clips.map(), key, sidecar=sidecar)
    refuses(clips, key, clips.map(), SidecarError, r"was made for other data \(files, an array", sidecar=sidecar)


# Refusals of a sidecar that was made for something else


@pytest.mark.guards("I6", "I9")
def test_a_finished_run_is_not_changed_by_another(clips: Clips, key: Key) -> None:
    protect_memmap(clips.map(), LABELS, key, recipe=SMALL)
    protected, sealed = clips.path.read_bytes(), clips.sidecar.read_bytes()
    other = Key(bytes(32))
    for message, call in {
        made_with(key) + other.fingerprint: lambda: protect_memmap(clips.map(), LABELS, other, recipe=SMALL),
        made_with(key): lambda: restore_memmap(clips.map(), other),
        made_with(key)[:-1]: lambda: verify_memmap(clips.map(), other),
        "other labels or lengths.*restore first and protect again": lambda: protect_memmap(
            clips.map(), LABELS[::-1], key, recipe=SMALL
        ),
        "for other labels or lengths": lambda: protect_memmap(
            clips.map(), LABELS, key, recipe=SMALL, lengths=[300] * 8 + [299]
        ),
        "made for other labels": lambda: protect_memmap(
            clips.map(), LABELS, key, recipe=SMALL, classes=["a", "b", "c"]
        ),
        "made for another recipe": lambda: protect_memmap(clips.map(), LABELS, key, recipe=Recipe.paper()),
        "another recipe": lambda: protect_memmap(
            clips.map(), LABELS, key, recipe=dataclasses.replace(SMALL, blur=0.31)
        ),
        r"shape \(9, 300\) and dtype <i2; this one has \(9, 299\)": lambda: restore_memmap(clips.map()[:, :299], key),
        r"this one has \(8, 300\) and <i2": lambda: verify_memmap(clips.map()[1:], key),
        r"this one has \(9, 300, 1\)": lambda: verify_memmap(clips.map()[:, :, None], key),
        "an array that lies elsewhere in its file": lambda: restore_memmap(clips.map()[::-1], key),
        "lies elsewhere in its file": lambda: verify_memmap(clips.map()[:, ::-1], key),
        r"made for other data \(another part of the file\)": lambda: protect_memmap(
            clips.map()[::-1], LABELS, key, recipe=SMALL
        ),
    }.items():
        with pytest.raises(SidecarError, match=message):
            call()
        assert clips.path.read_bytes() == protected
        assert clips.sidecar.read_bytes() == sealed
    restore_memmap(clips.map(), key)
    assert clips.path.read_bytes() == clips.original


def test_the_order_of_labels_and_spelling_of_names_make_no_other_run(clips: Clips, key: Key) -> None:
    names = ["café", "bed", "cat"] * 3
    protect_memmap(clips.map(), names, key, recipe=SMALL)
    protected = clips.path.read_bytes()
    decomposed = [name.replace("é", "e\u0301") for name in names]
    for labels, classes in ((decomposed, None), ([2, 0, 1] * 3, ["bed", "cat", "café"])):
        report = protect_memmap(clips.map(), labels, key, recipe=SMALL, classes=classes)
        assert report.state == "already protected"
        assert clips.path.read_bytes() == protected


@pytest.mark.guards("I4")
def test_an_edit_outside_the_patches_stays_and_blocks_nothing(clips: Clips, key: Key) -> None:
    """The sidecar of format 1 keeps patches, and does not watch what lies beside them."""
    protect_memmap(clips.map(), LABELS, key, recipe=SMALL)
    arr, original = clips.map(), np.load(io.BytesIO(clips.original))
    start = start_of(key, 3)
    place = start - 1 if start else 40
    arr[3, place] ^= 1
    assert protect_memmap(arr, LABELS, key, recipe=SMALL).state == "already protected"
    found = verify_memmap(arr, key)
    assert (found.protected, found.ok) == (9, True)
    assert restore_memmap(arr, key).state == "restored"
    original[3, place] ^= 1
    assert np.load(clips.path).tobytes() == original.tobytes()


@pytest.mark.guards("I9")
@pytest.mark.parametrize("recipe", [SMALL, STRONG], ids=["paper", "strong"])
def test_one_byte_that_is_of_neither_form_makes_a_changed_clip(clips: Clips, key: Key, recipe: Recipe) -> None:
    protect_memmap(clips.map(), LABELS, key, recipe=recipe)
    arr = clips.map()
    arr[3, start_of(key, 3) + 7] ^= 0x100
    content, sealed = clips.path.read_bytes(), clips.sidecar.read_bytes()
    for call in (
        lambda: protect_memmap(arr, LABELS, key, recipe=recipe),
        lambda: restore_memmap(arr, key),
    ):
        with pytest.raises(SidecarError, match=r"^1 files or clips are missing, .*were changed since .*\n  clip 3$"):
            call()
        assert (clips.path.read_bytes(), clips.sidecar.read_bytes()) == (content, sealed)
    assert verify_memmap(arr, key).neither == ("3",)


@pytest.mark.guards("I9")
def test_the_sidecar_of_another_file_is_refused(clips: Clips, key: Key, tmp_path: Path) -> None:
    protect_memmap(clips.map(), LABELS, key, recipe=SMALL)
    other = tmp_path / "other.npy"
    np.save(other, np.random.default_rng(18).integers(-30_000, 30_000, (9, 300), dtype=np.int16))
    content = other.read_bytes()
    shutil.copy(clips.sidecar, tmp_path / "other.npy.poscuda")
    arr = np.load(other, mmap_mode="r+")
    for call in (
        lambda: protect_memmap(arr, LABELS, key, recipe=SMALL),
        lambda: restore_memmap(arr, key),
    ):
        with pytest.raises(SidecarError, match=r"9 files or clips are missing, .*were changed since"):
            call()
    assert verify_memmap(arr, key).neither == tuple("012345678")
    assert other.read_bytes() == content


def test_another_part_of_the_file_is_refused_where_it_begins_with_silence(tmp_path: Path, key: Key) -> None:
    clips = Clips(tmp_path / "clips.npy", shape=(18, 9_000))
    arr = clips.map()
    arr[:, :2_500] = 0
    clips.original = clips.path.read_bytes()
    labels = [34] * 9  # its patches begin behind the silence
    protect_memmap(arr[:9], labels, key, recipe=SMALL)
    protected = clips.path.read_bytes()
    assert protected != clips.original
    for call in (
        lambda: protect_memmap(arr[9:], labels, key, recipe=SMALL),
        lambda: verify_memmap(arr[9:], key),
        lambda: restore_memmap(arr[9:], key),
    ):
        with pytest.raises(SidecarError, match=r"another part of the file|lies elsewhere in its file"):
            call()
        assert clips.path.read_bytes() == protected


def test_an_interrupted_run_continues_only_as_it_was_begun(clips: Clips, key: Key) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        protect_memmap(clips.map(), LABELS, key, recipe=SMALL, progress=stop)
    torn = clips.path.read_bytes()
    assert torn != clips.original
    for message, call in {
        "other labels": lambda: protect_memmap(clips.map(), LABELS[::-1], key, recipe=SMALL),
        "another recipe": lambda: protect_memmap(clips.map(), LABELS, key, recipe=Recipe.paper()),
        made_with(key): lambda: protect_memmap(clips.map(), LABELS, Key(bytes(32)), recipe=SMALL),
        "other data": lambda: protect_memmap(clips.map()[::-1], LABELS, key, recipe=SMALL),
    }.items():
        with pytest.raises(SidecarError, match=message):
            call()
        assert clips.path.read_bytes() == torn
    found = verify_memmap(clips.map("r"), key)
    assert (found.protected, found.state) == (4, "applying")
    check = clips.protected_bytes(key, LABELS, recipe=SMALL)
    assert protect_memmap(clips.map(), LABELS, key, recipe=SMALL).state == "protected"
    assert clips.path.read_bytes() == check


def test_another_batch_size_continues_a_run(clips: Clips, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = clips.protected_bytes(key, LABELS, recipe=SMALL)
    protect_memmap(clips.map(), LABELS, key, recipe=SMALL)
    monkeypatch.setattr(plans, "BATCH_BYTES", 1 << 20)
    assert restore_memmap(clips.map(), key).state == "restored"
    assert clips.path.read_bytes() == clips.original
    assert protect_memmap(clips.map(), LABELS, key, recipe=SMALL).state == "protected"
    assert clips.path.read_bytes() == expected


@pytest.mark.parametrize("size", [1, 40 * 2 * 2, 1 << 20])
def test_an_interrupted_run_is_resumed_with_another_batch_size(
    clips: Clips, key: Key, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    def stop(done: int, total: int) -> None:
        if done > 3:
            raise KeyboardInterrupt

    expected = clips.protected_bytes(key, LABELS, recipe=SMALL)
    with pytest.raises(KeyboardInterrupt):
        protect_memmap(clips.map(), LABELS, key, recipe=SMALL, progress=stop)
    monkeypatch.setattr(plans, "BATCH_BYTES", size)
    assert protect_memmap(clips.map(), LABELS, key, recipe=SMALL).state == "protected"
    assert clips.path.read_bytes() == expected


@pytest.mark.parametrize("recipe", [SMALL, STRONG], ids=["paper", "strong"])
def test_data_that_were_put_back_are_marked_again(clips: Clips, key: Key, recipe: Recipe) -> None:
    expected = clips.protected_bytes(key, LABELS, recipe=recipe)
    first = protect_memmap(clips.map(), LABELS, key, recipe=recipe)
    clips.path.write_bytes(clips.original)
    again = protect_memmap(clips.map(), LABELS, key, recipe=recipe)
    assert again == dataclasses.replace(first, seconds=again.seconds)
    assert clips.path.read_bytes() == expected
    restore_memmap(clips.map(), key)
    assert clips.path.read_bytes() == clips.original


@pytest.mark.parametrize("recipe", [SMALL, STRONG], ids=["paper", "strong"])
def test_protected_data_that_come_back_after_an_undo_are_recognised(clips: Clips, key: Key, recipe: Recipe) -> None:
    expected = clips.protected_bytes(key, LABELS, recipe=recipe)
    protect_memmap(clips.map(), LABELS, key, recipe=recipe)
    for verb, state in ((restore_memmap, "restored"), (protect_memmap, "protected")):
        restore_memmap(clips.map(), key)
        clips.path.write_bytes(expected)
        found = verify_memmap(clips.map("r"), key)
        assert (found.protected, found.state) == (9, "undone")
        again = {"recipe": recipe, "labels": LABELS} if verb is protect_memmap else {}
        assert verb(clips.map(), key=key, **again).state == state
        assert clips.path.read_bytes() == (clips.original if verb is restore_memmap else expected)


@pytest.mark.parametrize("recipe", [SMALL, STRONG], ids=["paper", "strong"])
def test_what_can_be_protected_is_protected_beside_a_changed_clip(clips: Clips, key: Key, recipe: Recipe) -> None:
    expected = clips.protected_bytes(key, LABELS, recipe=recipe)
    protect_memmap(clips.map(), LABELS, key, recipe=recipe)
    clips.path.write_bytes(clips.original)
    arr = clips.map()
    places = slice(start_of(key, 3), start_of(key, 3) + 40)
    kept = arr[3, places].copy()
    arr[3, places] ^= 0x55
    edited = arr[3].tobytes()
    with pytest.raises(SidecarError, match=r"\n  clip 3$"):
        protect_memmap(clips.map(), LABELS, key, recipe=recipe)
    report = protect_memmap(clips.map(), LABELS, key, recipe=recipe, partial=True)
    assert (report.state, report.left_out) == ("partly protected", ("clip 3",))
    wet = np.load(io.BytesIO(expected))
    assert clips.map()[3].tobytes() == edited
    assert np.delete(clips.map(), 3, 0).tobytes() == np.delete(wet, 3, 0).tobytes()
    assert verify_memmap(clips.map("r"), key).neither == ("3",)
    arr[3, places] = kept
    assert protect_memmap(clips.map(), LABELS, key, recipe=recipe).state == "protected"
    assert clips.path.read_bytes() == expected


# Format 2, of which no frame stays as it was.


def interrupted(clips: Clips, key: Key, batches: int, **options: Any) -> None:
    """A run that is stopped after some batches."""

    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= batches * 160:
            raise Stopped

    with pytest.raises(Stopped):
        protect_memmap(clips.map(), LABELS, key, recipe=STRONG, progress=stop, **options)


@pytest.mark.parametrize("batches", [1, 5, 16])
def test_a_steady_run_that_was_stopped_goes_on_wherever_a_clip_was_cut(clips: Clips, key: Key, batches: int) -> None:
    expected = clips.protected_bytes(key, LABELS, recipe=STRONG)
    interrupted(clips, key, batches)
    assert clips.path.read_bytes() not in (expected, clips.original)
    report = protect_memmap(clips.map(), LABELS, key, recipe=STRONG)
    assert clips.path.read_bytes() == expected
    assert report == dataclasses.replace(clips.expected_report, seconds=report.seconds)
    restore_memmap(clips.map(), key)
    assert clips.path.read_bytes() == clips.original


@pytest.mark.parametrize("batches", [1, 16])
def test_a_steady_run_that_was_stopped_can_be_undone(clips: Clips, key: Key, batches: int) -> None:
    interrupted(clips, key, batches)
    restore_memmap(clips.map(), key)
    assert clips.path.read_bytes() == clips.original


@pytest.mark.parametrize("state", ["complete", "applying"])
def test_samples_that_were_edited_since_are_named_and_kept(clips: Clips, key: Key, state: str) -> None:
    """No original is put back over what somebody wrote meanwhile, and no mark added to it."""
    if state == "complete":
        protect_memmap(clips.map(), LABELS, key, recipe=STRONG)
    else:
        interrupted(clips, key, 16)
    edited = clips.map()
    edited[4, 100] = 12_345
    edited.flush()
    content = clips.path.read_bytes()
    for call in (
        lambda: restore_memmap(clips.map(), key),
        lambda: protect_memmap(clips.map(), LABELS, key, recipe=STRONG),
    ):
        with pytest.raises(SidecarError, match=r"clip 4|\(4\)"):
            call()
        assert clips.path.read_bytes() == content


def test_other_data_in_the_place_of_a_stopped_run_are_refused(clips: Clips, key: Key) -> None:
    interrupted(clips, key, 3)
    np.save(clips.path, np.zeros((9, 300), np.int16))
    content = clips.path.read_bytes()
    for call in (
        lambda: restore_memmap(clips.map(), key),
        lambda: protect_memmap(clips.map(), LABELS, key, recipe=STRONG),
    ):
        with pytest.raises(SidecarError, match="were changed since"):
            call()
        assert clips.path.read_bytes() == content


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"sample_rate": 8_000}, "was made for another sample rate"),
        ({"recipe": Recipe.strong(2.0)}, "was made for another recipe"),
        ({"snr": 31.0}, "was made for another SNR"),
    ],
)
def test_another_rate_recipe_or_ratio_is_another_run(clips: Clips, key: Key, other: dict[str, Any], sentence) -> None:
    protect_memmap(clips.map(), LABELS, key, recipe=STRONG)
    content = clips.path.read_bytes()
    with pytest.raises(SidecarError, match=sentence):
        protect_memmap(clips.map(), LABELS, key, **{"recipe": STRONG, **other})
    assert clips.path.read_bytes() == content
    assert protect_memmap(clips.map(), LABELS, key, recipe=STRONG, sample_rate=16_000).state == "already protected"


def test_the_strength_of_a_ratio_is_recorded_and_kept(clips: Clips, key: Key) -> None:
    """The data are marked in part when a run goes on: the ratio would lead to another strength."""
    wanted = clips.protected_bytes(key, LABELS, recipe=STRONG, snr=25.0)
    interrupted(clips, key, 16, snr=25.0)
    report = protect_memmap(clips.map(), LABELS, key, recipe=STRONG, snr=25.0)
    assert report.recipe == clips.expected_report.recipe != STRONG.to_dict()
    assert clips.path.read_bytes() == wanted
    assert protect_memmap(clips.map(), LABELS, key, recipe=STRONG, snr=25.0).recipe == report.recipe
    restore_memmap(clips.map(), key)
    assert clips.path.read_bytes() == clips.original
