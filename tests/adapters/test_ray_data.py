"""Ray Data on a local cluster of two workers, one of them killed in the middle: the bytes of one machine."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import ray
from audio_folders import RECIPE, make_folder, protected
from audiofiles import contents, encoded, noise, untouched, wav, write_tree

from poscuda_fast import DatasetError, Key, disk, protect_folder
from poscuda_fast.adapters.ray_data import WriteFiles, protect_dataset, write_files
from poscuda_fast.protector import Protector, label_of_folder

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::FutureWarning",
    "ignore::UserWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    with pytest.MonkeyPatch.context() as patching:
        patching.chdir(tmp_path_factory.mktemp("cluster"))  # where workers look for modules before all else
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def kill_a_worker(killed: list[int], stop: threading.Event) -> None:
    """Wait for a worker that protects, and kill it."""
    while not stop.wait(0.05):
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if line.read_bytes().startswith(b"ray::MapWorker(MapBatches(Protector"):
                    time.sleep(0.5)
                    os.kill(int(line.parent.name), signal.SIGKILL)
                    killed.append(int(line.parent.name))
                    return


@pytest.mark.parametrize("kill", [False, True], ids=["left alone", "one worker killed"])
def test_a_folder_becomes_what_one_machine_makes_of_it(
    cluster, tmp_path: Path, key: Key, key_file: Path, kill: bool
) -> None:
    files = make_folder(tmp_path / "src")
    paths = [str(tmp_path / "src" / name) for name in sorted(files)]
    dataset = ray.data.read_binary_files(paths, include_paths=True, override_num_blocks=8)
    dataset = protect_dataset(
        dataset, key_file, recipe=RECIPE, audio="bytes", label=label_of_folder, batch_size=4, concurrency=2
    )
    killed: list[int] = []
    stop = threading.Event()
    if kill:

        def slow(batch):  # so that there is a middle
            time.sleep(0.3)
            return batch

        dataset = dataset.map_batches(slow, batch_format="numpy", concurrency=1, batch_size=4)
        threading.Thread(target=kill_a_worker, args=(killed, stop), daemon=True).start()
    assert write_files(dataset, tmp_path / "src", tmp_path / "out") == len(files)
    stop.set()
    assert bool(killed) == kill
    assert contents(tmp_path / "out", hidden=True) == protected(tmp_path / "src", key, tmp_path / "dst")


def test_parquet_goes_through(cluster, tmp_path: Path, key: Key, key_file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = make_folder(tmp_path / "src")
    names = sorted(files)
    table = pa.table({"name": names, "audio": [files[n] for n in names], "label": [n.split("/")[0] for n in names]})
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = protect_dataset(ray.data.read_parquet(str(tmp_path / "a.parquet")), key_file, recipe=RECIPE)
    found = {row["name"]: row["audio"] for row in dataset.take_all()}
    assert found == protected(tmp_path / "src", key, tmp_path / "dst")


def test_several_columns_go_through_and_none_is_left_in_silence(cluster, key_file: Path) -> None:
    near, far = ([wav(noise(500, seed=n + k)) for n in range(4)] for k in (0, 9))
    rows = [{"near": one, "far": two, "label": n % 2} for n, (one, two) in enumerate(zip(near, far, strict=True))]
    rows[3]["far"] = b"\x1aE\xdf\xa3" + bytes(99)
    options = {"audio": ["near", "far"], "skip_unusable": True}
    found = protect_dataset(ray.data.from_items(rows), key_file, **options).take_all()
    for name, column in (("near", near), ("far", far[:3])):
        expected = Protector(key_file)({"audio": column, "label": [0, 1, 0, 1][: len(column)]})["audio"]
        assert [row[name] for row in found][: len(column)] == expected
    assert found[3]["far"] == rows[3]["far"]
    with pytest.raises(ray.exceptions.RayTaskError, match="'far' holds audio too"):
        protect_dataset(ray.data.from_items(rows), key_file, audio="near").take_all()


def test_webdataset_shards_go_through(cluster, tmp_path: Path, key: Key, key_file: Path) -> None:
    files = {name: content for name, content in make_folder(tmp_path / "src").items() if name.endswith(".wav")}
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for name in sorted(files)[number::2]:
                sample = name.removesuffix(".wav").replace("/", "_").replace(".", "_")
                for suffix, content in (("cls", name.split("/")[0].encode()), ("wav", files[name])):
                    info = tarfile.TarInfo(f"{sample}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    shards = [str(tmp_path / f"{number}.tar") for number in range(2)]

    def label(batch, number):
        return batch["cls"][number].decode()

    dataset = ray.data.read_webdataset(shards, decoder=None)
    dataset = protect_dataset(dataset, key_file, recipe=RECIPE, audio="wav", label=label)
    found = [row["wav"] for row in dataset.take_all()]
    expected = protected(tmp_path / "src", key, tmp_path / "dst")
    assert sorted(found) == sorted(expected[name] for name in files)


@pytest.mark.parametrize("path", ["/etc/passwd", "../a.wav", "..", "."])
def test_paths_outside_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="does not lie below"):
        WriteFiles(tmp_path / "src", tmp_path / "dst")({"path": [str(tmp_path / "src" / path)], "bytes": [b""]})
    assert not (tmp_path / "dst").exists()


def test_names_that_begin_with_dots_are_names(tmp_path: Path) -> None:
    batch = {"path": [str(tmp_path / "src/..yes/a.wav"), str(tmp_path / "src/.no/...wav")], "bytes": [b"a", b"b"]}
    WriteFiles(tmp_path / "src", tmp_path / "dst")(batch)
    assert contents(tmp_path / "dst", hidden=True) == {"..yes/a.wav": b"a", ".no/...wav": b"b"}


@pytest.mark.parametrize(
    ("src", "dst"), [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a", "link"), ("a", "link/b"), ("link", "a")]
)
def test_originals_are_no_place_to_write_to(tmp_path: Path, src: str, dst: str) -> None:
    write_tree(tmp_path, {"a/b/0.wav": b"original"})
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with untouched(tmp_path):
        with pytest.raises(DatasetError, match="or one lies inside the other; choose a separate folder"):
            WriteFiles(tmp_path / src, tmp_path / dst)
        with pytest.raises(DatasetError, match="or one lies inside the other; choose a separate folder"):
            write_files(None, tmp_path / src, tmp_path / dst)


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    batch = {"path": [str(tmp_path / "src/yes/a.wav"), str(tmp_path / "src/yes/b.wav")], "bytes": [b"a", b"b"]}
    write = WriteFiles(tmp_path / "src", tmp_path / "dst")
    write(batch)
    with untouched(tmp_path):
        assert write(batch)["path"].tolist() == [str(tmp_path / "dst/yes/a.wav"), str(tmp_path / "dst/yes/b.wav")]
        with pytest.raises(FileExistsError, match=r"dst/yes/b\.wav exists with other content"):
            write({**batch, "bytes": [b"a", b"other"]})
    (tmp_path / "dst/yes/c.wav").symlink_to(tmp_path / "dst/yes/nowhere")
    with pytest.raises(FileExistsError, match=r"dst/yes/c\.wav exists"):
        write({"path": [str(tmp_path / "src/yes/c.wav")], "bytes": [b"c"]})


@pytest.mark.parametrize("content", [b"a", b"other"])
def test_a_batch_that_is_written_twice_at_once(tmp_path: Path, monkeypatch, content: bytes) -> None:
    """The second writer comes, and goes, when the first has written its part."""
    appearing = disk.appearing
    target = tmp_path / "dst/a.wav"

    @contextlib.contextmanager
    def second_in_between(path: Path, *, mode: int | None) -> Iterator[BinaryIO]:
        with appearing(path, mode=mode) as file:
            yield file
            with appearing(path, mode=mode) as other:
                other.write(content)

    monkeypatch.setattr(disk, "appearing", second_in_between)
    batch = {"path": [str(tmp_path / "src/a.wav")], "bytes": [b"a"]}
    if content == b"a":
        WriteFiles(tmp_path / "src", tmp_path / "dst")(batch)
    else:
        with pytest.raises(FileExistsError, match="exists with other content"):
            WriteFiles(tmp_path / "src", tmp_path / "dst")(batch)
    assert contents(tmp_path / "dst", hidden=True) == {target.name: content}


def test_what_has_become_flac_is_named_so(tmp_path: Path, key_file: Path) -> None:
    """As `protect_folder` has it, by the same bytes."""
    make_folder(tmp_path / "src")
    encoded(tmp_path / "src/yes/lossy.ogg", noise(9000), "OGG", "VORBIS")
    files = contents(tmp_path / "src")
    names = ["yes/lossy.ogg", "yes/made.flac", "yes/1.wav"]
    batch = {
        "path": np.array([str(tmp_path / "src" / name) for name in names], object),
        "bytes": np.array([files[name] for name in names], object),
    }
    wet = Protector(key_file, recipe=RECIPE, audio="bytes", label=label_of_folder, lossy="flac")(batch)
    WriteFiles(tmp_path / "src", tmp_path / "dst")(wet)
    protect_folder(tmp_path / "src", tmp_path / "expected", Key.load(key_file), recipe=RECIPE, lossy="flac")
    expected = contents(tmp_path / "expected")
    made = ("yes/lossy.flac", "yes/made.flac", "yes/1.wav")
    assert contents(tmp_path / "dst") == {name: expected[name] for name in made}


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ({"bytes": [b""]}, KeyError, "none is 'path'; read files with"),
        ({"path": ["src/a.wav"]}, KeyError, "none is 'bytes'"),
        ({"path": ["src/a.wav"], "bytes": [np.zeros(9)]}, TypeError, "a ndarray in the column 'bytes'"),
    ],
)
def test_batches_of_another_kind_are_refused(tmp_path: Path, monkeypatch, batch, error, message) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        WriteFiles("src", "dst")(batch)
    assert not (tmp_path / "dst").exists()


def test_options_are_checked_before_workers_start(key_file: Path) -> None:
    with pytest.raises(ValueError, match="lossy is 'mp3'"):
        protect_dataset(None, key_file, lossy="mp3")
    with pytest.raises(TypeError, match="give the path of its key file"):
        protect_dataset(None, Key(bytes(32)))
