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

import pytest
import ray
from audio_folders import RECIPE, make_folder, protected
from audiofiles import contents

from poscuda_fast import Key
from poscuda_fast.adapters.ray_data import WriteFiles, protect_dataset, write_files
from poscuda_fast.protector import label_of_folder

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::FutureWarning",
    "ignore::UserWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
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


def test_paths_outside_the_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not lie below"):
        WriteFiles(tmp_path / "src", tmp_path / "dst")({"path": ["/etc/passwd"], "bytes": [b""]})
