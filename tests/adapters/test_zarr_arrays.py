"""Zarr arrays: the samples of `protect` in place and in copies, undo bit for bit, and no shard half written."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import signal
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from audio_folders import SPEECH
from audiofiles import contents, end_of_child, kill_before, start_child, untouched
from recipes import protect_folder

from poscuda_fast import BusyError, DatasetError, Key, Recipe, SidecarError, disk, drop_undo, protect
from poscuda_fast.adapters.zarr_tasks import shard_tasks
from poscuda_fast.arrays import zarr as sharded
from poscuda_fast.arrays.verbs import protect_array, restore_array, verify_array
from poscuda_fast.undo.journal import sidecar_of

PAPER = Recipe.paper(patch=40, taps=9, patches=3)
LAYOUTS: dict[str, dict[str, Any]] = {
    "shards": {"shards": (4, 600), "chunks": (1, 300)},
    "shards that cut clips": {"shards": (3, 256), "chunks": (3, 128)},
    "chunks": {"chunks": (5, 600)},
    "one chunk a clip": {"chunks": (1, 200), "compressors": None},
    "other codecs": {"chunks": (8, 90), "compressors": zarr.codecs.BloscCodec(cname="lz4")},
}
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
recipes = pytest.mark.parametrize("recipe", [Recipe.strong(), PAPER], ids=["strong", "paper"])


def samples(dtype: Any = np.int16, n_clips: int = 11, channels: int | None = None) -> Any:
    rng = np.random.default_rng(5)
    shape = (n_clips, 600) if channels is None else (n_clips, 600, channels)
    made = rng.integers(-20_000, 20_000, shape).astype(np.int16)
    made[3] = 0
    return made if dtype == np.int16 else (made / np.float32(32768)).astype(np.float32)


def store(path: Path, clips: Any, **layout: Any) -> Path:
    for name in ("shards", "chunks"):
        if name in layout and clips.ndim == 3:
            layout[name] = (*layout[name], 2)
    array = zarr.create_array(path, shape=clips.shape, dtype=clips.dtype, attributes={"words": ["yes", "no"]}, **layout)
    array[:] = clips
    return path


def marked(clips: Any, key: Key, recipe: Recipe, lengths: Any = None) -> Any:
    wet = clips.copy()
    protect(wet, LABELS[: len(clips)], key, recipe=recipe, lengths=lengths)
    return wet


def read(path: Path) -> Any:
    return zarr.open_array(path, mode="r")[:]


LABELS = [n % 3 for n in range(40)]
LENGTHS = [600, 0, 17, 599, 300, 600, 41, 600, 600, 128, 5]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several batches a row of shards, and several rows a batch; few rows in memory."""
    monkeypatch.setattr("poscuda_fast.mark.plan.BATCH_BYTES", 3_000)
    monkeypatch.setattr(sharded, "CACHE_BYTES", 1)


@layouts
@recipes
@pytest.mark.parametrize(("dtype", "channels"), [(np.int16, None), (np.float32, 2)])
@pytest.mark.usefixtures("small_batches")
def test_an_array_is_protected_in_place_and_restored(tmp_path, key, layout, recipe, dtype, channels) -> None:
    clips = samples(dtype, channels=channels)
    path = store(tmp_path / "a.zarr", clips, **layout)
    before = contents(path)
    wet = marked(clips, key, recipe, LENGTHS)
    looked = protect_array(path, LABELS[:11], key, recipe=recipe, lengths=LENGTHS, dry_run=True)
    assert looked.state == "untouched"
    assert contents(path) == before

    report = protect_array(path, LABELS[:11], key, recipe=recipe, lengths=LENGTHS)
    assert read(path).tobytes() == wet.tobytes()
    counts = {name: n for name, n in report.to_dict().items() if name not in ("seconds", "state")}
    assert counts == {name: n for name, n in looked.to_dict().items() if name in counts}
    assert (path / "zarr.json").read_bytes() == before["zarr.json"]
    assert dict(zarr.open_array(path, mode="r").attrs) == {"words": ["yes", "no"]}
    assert protect_array(path, LABELS[:11], key, recipe=recipe, lengths=LENGTHS).state == "already protected"
    checked = verify_array(path, key)
    assert checked.ok
    assert checked.protected + checked.unchanged == 10  # one clip has no frames

    moved = path.rename(tmp_path / "b.zarr")
    (tmp_path / "a.zarr.poscuda").rename(tmp_path / "b.zarr.poscuda")
    assert restore_array(moved, key).state == "restored"
    assert read(moved).tobytes() == clips.tobytes()
    assert contents(moved) == before
    assert restore_array(moved, key).state == "already original"


def test_the_bytes_are_those_of_the_folder(tmp_path: Path, key: Key) -> None:
    """Real speech where it lies beside the checkout: as files, and as rows of an array."""
    import soundfile

    names = sorted((SPEECH / "fsdd" / "recordings").glob("?_george_1*.wav")) if SPEECH.is_dir() else []
    found = {path.name: soundfile.read(path, dtype="int16")[0] for path in names}
    found = found or {f"{n % 3}_noise_{n}.wav": clip for n, clip in enumerate(samples(n_clips=9))}
    labels = [int(name[0]) for name in found]
    lengths = [len(clip) for clip in found.values()]
    clips = np.zeros((len(found), max(lengths)), np.int16)
    src = tmp_path / "src"
    src.mkdir()
    for row, (name, clip) in zip(clips, found.items(), strict=True):
        row[: len(clip)] = clip
        soundfile.write(src / name, clip, 8_000, "PCM_16")
    path = store(tmp_path / "a.zarr", clips, shards=(16, clips.shape[1]), chunks=(4, clips.shape[1]))
    by_number = dict(zip(found, labels, strict=True))
    protect_folder(src, tmp_path / "dst", key, recipe=Recipe.strong(), labels_from=by_number)
    protect_array(path, labels, key, recipe=Recipe.strong(), lengths=lengths, sample_rate=8_000)
    for row, length, name in zip(read(path), lengths, found, strict=True):
        assert np.array_equal(row[:length], soundfile.read(tmp_path / "dst" / name, dtype="int16")[0])
    restore_array(path, key)
    assert np.array_equal(read(path), clips)


def copy_with_sidecar(path: Path, copy: Path) -> None:
    shutil.copytree(path, copy)
    if sidecar_of(path).exists():
        shutil.copy(sidecar_of(path), sidecar_of(copy))


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("undoing", [False, True], ids=["protect", "restore"])
def test_a_killed_run_is_finished_and_no_shard_is_ever_torn(tmp_path, key, undoing) -> None:
    """Killed before and after each shard that is put in its place."""
    clips = samples(n_clips=10)
    wet = marked(clips, key, PAPER)
    options = {"recipe": PAPER, "threads": 1}
    path = store(tmp_path / "a.zarr", clips, shards=(4, 400), chunks=(2, 200))
    if undoing:
        protect_array(path, LABELS[:10], key, **options)
    states = set()
    for moment in range(16):
        trial = tmp_path / f"{moment}.zarr"
        copy_with_sidecar(path, trial)

        def work(trial: Path = trial, moment: int = moment) -> None:
            done = 0
            real = sharded.disk.replace

            def replace(place: Path, *arguments: Any, **named: Any) -> None:
                nonlocal done
                if place.suffix != ".json" and done == moment / 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                real(place, *arguments, **named)
                done += 1
                if done == (moment + 1) / 2:
                    os.kill(os.getpid(), signal.SIGKILL)

            sharded.disk.replace = replace
            restore_array(trial, key, threads=1) if undoing else protect_array(trial, LABELS[:10], key, **options)

        ended = end_of_child(start_child(work))
        now = read(trial)
        for row in range(0, 10, 4):
            for first in (0, 400):
                shard = now[row : row + 4, first : first + 400].tobytes()
                old, new = (a[row : row + 4, first : first + 400].tobytes() for a in (clips, wet))
                assert shard in (old, new)
                states.add((ended, shard == new))
        if undoing:
            restore_array(trial, key)
            assert read(trial).tobytes() == clips.tobytes()
        else:
            protect_array(trial, LABELS[:10], key, **options)
            assert read(trial).tobytes() == wet.tobytes()
            restore_array(trial, key)
            assert read(trial).tobytes() == clips.tobytes()
    assert {(-signal.SIGKILL, False), (-signal.SIGKILL, True)} <= states


def test_a_shard_that_cannot_be_written_is_an_error_and_the_run_goes_on(tmp_path, key, monkeypatch) -> None:
    clips = samples()
    path = store(tmp_path / "a.zarr", clips, chunks=(2, 600))
    real = sharded.disk.replace

    def replace(place: Path, *arguments: Any, **named: Any) -> None:
        if place.parent.name == "3":
            raise OSError(28, "No space left on device")
        real(place, *arguments, **named)

    with monkeypatch.context() as patching:
        patching.setattr(sharded.disk, "replace", replace)
        with pytest.raises(OSError, match="No space left"):
            protect_array(path, LABELS[:11], key)
    assert protect_array(path, LABELS[:11], key).state == "protected"
    assert read(path).tobytes() == marked(clips, key, Recipe.strong()).tobytes()


def test_the_sidecar_knows_its_array(tmp_path: Path, key: Key) -> None:
    clips = samples()
    path = store(tmp_path / "a.zarr", clips, chunks=(4, 600))
    protect_array(path, LABELS[:11], key)
    other = store(tmp_path / "other.zarr", clips[::-1], chunks=(4, 600))
    shutil.copy(tmp_path / "a.zarr.poscuda", tmp_path / "other.zarr.poscuda")
    before = contents(tmp_path, hidden=True)
    with pytest.raises(SidecarError, match=r"made for other data|were changed since"):
        restore_array(other, key)
    with pytest.raises(SidecarError, match="made for other labels or lengths"):
        protect_array(path, LABELS[1:12], key)
    with pytest.raises(SidecarError, match="made for another recipe"):
        protect_array(path, LABELS[:11], key, recipe=PAPER)
    with disk.locked(path), pytest.raises(BusyError):
        restore_array(path, key)
    assert contents(tmp_path, hidden=True) == before
    assert drop_undo(path, key).state == "final"
    with pytest.raises(SidecarError, match=r"undo in .* was dropped"):
        restore_array(path, key)


def test_what_cannot_be_kept_exactly_is_refused(tmp_path: Path, key: Key) -> None:
    zarr.create_group(tmp_path / "group").create_array("a", shape=(2, 600), dtype="int16", chunks=(1, 600))
    zarr.create_array(tmp_path / "two", shape=(2, 600), dtype="int16", zarr_format=2)
    store(tmp_path / "lossy", samples(np.float32), chunks=(4, 600))
    text = (tmp_path / "lossy/zarr.json").read_text()
    quantized = '"codecs": [{"name": "numcodecs.quantize", "configuration": {"digits": 3, "dtype": "float32"}},'
    (tmp_path / "lossy/zarr.json").write_text(text.replace('"codecs": [', quantized, 1))
    zarr.create_array(tmp_path / "double", shape=(2, 600), dtype="float64")
    zarr.create_array(tmp_path / "flat", shape=(600,), dtype="int16")
    zarr.create_array(tmp_path / "mute", shape=(2, 600, 0), dtype="int16", chunks=(1, 600, 1))
    store(tmp_path / "cut", samples(), chunks=(4, 600))
    (tmp_path / "cut/zarr.json").write_text('{"zarr_format": 3, "node_type": "array"}')
    before = contents(tmp_path, hidden=True)
    for name, error, sentence in (
        ("group", DatasetError, "is not the folder of a Zarr array of format 3; give the array itself"),
        ("two", DatasetError, "copy arrays of format 2"),
        ("nowhere", DatasetError, "does not exist"),
        ("cut", DatasetError, "is not the folder"),
        ("mute", ValueError, "and so no channels"),
        ("lossy", DatasetError, r"encoded with numcodecs\.quantize, which may not give back"),
        ("double", TypeError, r"use astype\(numpy\.float32\)"),
        ("flat", ValueError, r"has shape \(600,\); expected \(n_clips, n_frames"),
    ):
        with pytest.raises(error, match=sentence):
            protect_array(tmp_path / name, [0, 1], key)
    assert contents(tmp_path, hidden=True) == before
    assert protect_array(tmp_path / "group/a", [0, 1], key).clips == 2


@layouts
def test_tasks_make_a_copy_shard_by_shard(tmp_path: Path, key: Key, key_file: Path, layout) -> None:
    clips = samples()
    src = store(tmp_path / "src.zarr", clips, **layout)
    before = contents(src, hidden=True)
    given = {"lengths": LENGTHS, "classes": ["a", "b", "c"]}
    tasks = shard_tasks(src, tmp_path / "dst.zarr", LABELS[:11], key_file, **given)
    assert bytes(range(32)) not in pickle.dumps(tasks)
    done = [pickle.loads(pickle.dumps(task))() for task in reversed(tasks)]
    assert sum(done) == 11
    wet = clips.copy()
    protect(wet, LABELS[:11], key, lengths=LENGTHS, classes=["a", "b", "c"])
    assert read(tmp_path / "dst.zarr").tobytes() == wet.tobytes()
    assert contents(src, hidden=True) == before
    tasks[0]()
    assert read(tmp_path / "dst.zarr").tobytes() == wet.tobytes()


def test_two_tasks_never_write_one_shard(tmp_path: Path, key_file: Path) -> None:
    import dataclasses

    src = store(tmp_path / "src.zarr", samples(), chunks=(4, 600))
    tasks = shard_tasks(src, tmp_path / "dst.zarr", LABELS[:11], key_file)
    assert [(task.first, len(task.labels)) for task in tasks] == [(0, 4), (4, 4), (8, 3)]
    half = dataclasses.replace(tasks[0], labels=tasks[0].labels[:2], lengths=tasks[0].lengths[:2])
    shifted = dataclasses.replace(tasks[0], first=2)
    for task in (half, shifted):
        with pytest.raises(ValueError, match="are not whole shards of 4 clips, and another task would write the rest"):
            task()


def test_a_copy_by_tasks_overwrites_nothing_and_is_not_marked_twice(tmp_path: Path, key: Key, key_file: Path) -> None:
    clips = samples()
    src, dst = store(tmp_path / "src.zarr", clips, chunks=(4, 600)), tmp_path / "dst.zarr"
    store(tmp_path / "other.zarr", clips[::-1], chunks=(4, 600))  # of the same metadata
    (tmp_path / "link.zarr").symlink_to(src)
    with untouched(tmp_path):
        for where, sentence in (
            (tmp_path / "other.zarr", "exists and is not a copy that was begun here"),
            (src, "itself, or one lies inside the other"),
            (tmp_path / "link.zarr", "itself, or one lies inside the other"),
            (src / "inside.zarr", "itself, or one lies inside the other"),
            (tmp_path, "itself, or one lies inside the other"),
        ):
            with pytest.raises(DatasetError, match=sentence):
                shard_tasks(src, where, LABELS[:11], key_file)
        for labels, error in (
            (LABELS[:10], ValueError),
            ([-1] * 11, ValueError),
            ([1, None] + [1] * 9, TypeError),
        ):
            with pytest.raises(error):
                shard_tasks(src, dst, labels, key_file)
        with pytest.raises(OSError, match="no key file"):
            shard_tasks(src, dst, LABELS[:11], tmp_path / "no.key")
        with pytest.raises(TypeError, match="or a Zarr array in a local folder"):
            shard_tasks(zarr.create_array({}, shape=(2, 9), dtype="int16"), dst, LABELS[:11], key_file)
    for task in shard_tasks(zarr.open_array(src), dst, LABELS[:11], key_file):
        task()
    wet = marked(clips, key, Recipe.strong())
    with untouched(tmp_path):
        for labels, options in (
            (LABELS[1:12], {}),
            (LABELS[:11], {"recipe": PAPER}),
            (LABELS[:11], {"lengths": LENGTHS}),
        ):
            with pytest.raises(DatasetError, match="was made with another key, recipe, sample rate, labels"):
                shard_tasks(src, dst, labels, key_file, **options)
        for again in (protect_array, verify_array, restore_array):
            arguments = (LABELS[:11], key) if again is protect_array else (key,)
            with pytest.raises(DatasetError, match="would mark it twice"):
                again(dst, *arguments)
        with pytest.raises(DatasetError, match=r"would (be marked|mark it) twice"):
            shard_tasks(dst, tmp_path / "c.zarr", LABELS[:11], key_file)
    for task in shard_tasks(src, dst, LABELS[:11], key_file):
        task()
    assert read(dst).tobytes() == wet.tobytes()
    protect_array(src, LABELS[:11], key)
    with untouched(tmp_path), pytest.raises(SidecarError, match=r"would (be marked|mark it) twice"):
        shard_tasks(src, tmp_path / "c.zarr", LABELS[:11], key_file)


def test_a_copy_that_was_hardly_begun_goes_on(tmp_path: Path, key: Key, key_file: Path) -> None:
    """Killed before each file is opened, synced or renamed."""
    clips = samples()
    src = store(tmp_path / "src.zarr", clips, chunks=(4, 600))
    ended, moment = -signal.SIGKILL, 0
    while ended == -signal.SIGKILL:
        dst = tmp_path / f"{moment}.zarr"

        def work(dst: Path = dst, moment: int = moment) -> None:
            kill_before(moment)
            for task in shard_tasks(src, dst, LABELS[:11], key_file):
                task()

        ended = end_of_child(start_child(work))
        for task in shard_tasks(src, dst, LABELS[:11], key_file):
            task()
        assert read(dst).tobytes() == marked(clips, key, Recipe.strong()).tobytes()
        moment += 2
    assert ended == 0
    assert moment > 15


def test_workers_that_write_the_same_shard_do_not_meet(tmp_path: Path, key: Key, key_file: Path, monkeypatch) -> None:
    """A scheduler gives a task out again while a worker that it lost still runs."""
    clips = samples(n_clips=4)
    src = store(tmp_path / "src.zarr", clips, chunks=(4, 600))
    (task,) = shard_tasks(src, tmp_path / "dst.zarr", LABELS[:4], key_file)
    real, names = os.fsync, []

    def late(descriptor: int) -> None:
        names.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        if len(names) == 1:
            task()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", late)
    task()
    assert len({name for name in names if name.endswith(".poscuda-part")}) == 2
    assert read(tmp_path / "dst.zarr").tobytes() == marked(clips, key, Recipe.strong()).tobytes()


def test_only_shards_that_differ_are_written(tmp_path: Path, key: Key) -> None:
    clips = samples()
    path = store(tmp_path / "a.zarr", clips, chunks=(4, 20))
    before = {name: (path / name).stat().st_ino for name in contents(path)}
    protect_array(path, LABELS[:11], key, recipe=Recipe.paper(patch=40, taps=9))
    changed = {name for name, number in before.items() if (path / name).stat().st_ino != number}
    wet = read(path)
    expected = {f"c/{row // 4}/{column // 20}" for row, column in zip(*np.nonzero(wet != clips), strict=True)}
    assert wet.tobytes() == marked(clips, key, Recipe.paper(patch=40, taps=9)).tobytes()
    assert expected <= changed
    assert len(changed) < len(before) / 2


def test_samples_that_equal_the_fill_value_but_for_their_bits_are_kept(tmp_path: Path, key: Key) -> None:
    clips = samples(np.float32)
    clips[:, 400:] = np.array(0x7FC00123, np.uint32).view(np.float32)  # one of many NaNs, as padding
    clips[2, :400] = -0.0
    path = tmp_path / "a.zarr"
    options: dict[str, Any] = {"shape": clips.shape, "dtype": np.float32, "config": {"write_empty_chunks": True}}
    zarr.create_array(path, shards=(4, 600), chunks=(1, 200), fill_value=np.nan, **options)[:] = clips
    assert read(path).tobytes() == clips.tobytes()
    protect_array(path, LABELS[:11], key, lengths=[400] * 11)
    assert read(path).tobytes() == marked(clips, key, Recipe.strong(), [400] * 11).tobytes()
    restore_array(path, key)
    assert read(path).tobytes() == clips.tobytes()


def test_dask_runs_the_tasks(tmp_path: Path, key: Key, key_file: Path) -> None:
    """The recipe."""
    dask = pytest.importorskip("dask", reason="dask is not installed")
    clips = samples()
    src = store(tmp_path / "src.zarr", clips, chunks=(4, 600))
    tasks = shard_tasks(src, tmp_path / "dst.zarr", LABELS[:11], key_file)
    dask.compute(*[dask.delayed(task)() for task in tasks], scheduler="processes", num_workers=2)
    assert read(tmp_path / "dst.zarr").tobytes() == marked(clips, key, Recipe.strong()).tobytes()


@pytest.mark.parametrize(
    ("dtype", "fill"), [("int16", 0), ("int16", 7), ("float32", float("nan")), ("float32", 0.5)], ids=str
)
def test_chunks_that_are_missing_are_the_fill_value_and_missing_again(tmp_path: Path, key: Key, dtype, fill) -> None:
    path = store(tmp_path / "a.zarr", samples(np.dtype(dtype).type, 4), chunks=(1, 600), fill_value=fill)
    (path / "c/2/0").unlink()
    before, clips = contents(path), read(path)
    assert np.array_equal(clips[2], np.full(600, fill, dtype), equal_nan=True)
    protect_array(path, LABELS[:4], key)
    assert np.array_equal(read(path), marked(clips, key, Recipe.strong()), equal_nan=True)
    assert verify_array(path, key).ok
    restore_array(path, key)
    assert contents(path) == before


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o600, 0o666])
def test_chunk_files_keep_their_permissions(tmp_path: Path, key: Key, mode: int) -> None:
    path = store(tmp_path / "a.zarr", samples(n_clips=4), chunks=(2, 600))
    chunks = [file for file in path.rglob("*") if file.is_file()]
    for file in chunks:
        file.chmod(mode)
    protect_array(path, LABELS[:4], key)
    assert {stat.S_IMODE(os.stat(file).st_mode) for file in chunks} == {mode}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_chunk_files_keep_their_owner_or_it_is_said(tmp_path: Path, key: Key, monkeypatch) -> None:
    path = store(tmp_path / "a.zarr", samples(n_clips=4), chunks=(2, 600))
    chunks = [file for file in (path / "c").rglob("*") if file.is_file()]
    for file in chunks:
        os.chown(file, 12345, 12346)
        file.chmod(0o440)
    assert not [note for note in protect_array(path, LABELS[:4], key).notes if "owner" in note]
    for file in chunks:
        status = os.stat(file)
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 12346, 0o440)

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "fchown", refused)
    report = restore_array(path, key)
    assert "2 files or folders did not keep their owner" in report.notes
    assert "2 files or folders did not keep their group" in report.notes
