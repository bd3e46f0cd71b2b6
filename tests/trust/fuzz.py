"""A coverage-guided fuzzer on everything that reads what others wrote.

    python -m tests.trust.fuzz [--runs N] [--seed S] [--no-store]

For each reader libFuzzer, through atheris, makes N inputs out of valid and broken ones, led by the lines that they
reach. An input is met rightly if it gives a documented error or a result that holds for the file, within two seconds
and 256 MiB more, and leaves the file as it is. The counts are stored in tests/trust/results/fuzzed.json.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from poscuda_fast.text import how_to_install

HERE = Path(__file__).parent
RUNS = {"wav": 60_000, "npy": 30_000, "csv": 30_000, "key": 30_000, "manifest": 30_000, "sidecar": 10_000}
SEED = 2026
INSTRUMENTED = ("arrays.mapped", "files.containers", "files.label_sources", "key", "undo.journal", "undo.manifest")


def main() -> None:
    """Run every reader's fuzzer in a process of its own, and store what they met."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--runs", type=int, help="inputs for each reader, instead of its usual number")
    options.add_argument("--seed", type=int, default=SEED)
    options.add_argument("--no-store", action="store_true")
    options.add_argument("--reader", choices=RUNS, help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if importlib.util.find_spec("atheris") is None:
        sys.exit(f"The fuzzer needs atheris, which is not installed; {how_to_install('fuzz')}.")
    if given.reader:
        fuzz(given.reader, given.folder, given.runs, given.seed)
        return
    tried, problems = {}, []
    for reader, usual in RUNS.items():
        tried[reader], problem = run(reader, given.runs or usual, given.seed)
        sys.stdout.write(f"{reader}: {tried[reader]:,} inputs{', ' + problem if problem else ''}\n")
        problems += [problem] if problem else []
    if problems:
        sys.exit("\n".join(problems))
    if not given.no_store:
        from importlib import metadata

        from benchmarks import stored

        fields = {
            "guided": f"atheris {metadata.version('atheris')}",
            "seed": given.seed,
            "tried": sum(tried.values()),
            "wrong": len(problems),
            "readers": tried,
        }
        command = f"python -m tests.trust.fuzz --seed {given.seed}"
        stored.store(Path(__file__).parent / "results", "fuzzed", command, fields)


def run(reader: str, runs: int, seed: int) -> tuple[int, str]:
    """How many inputs a reader met, and what went wrong."""
    import poscuda_fast  # here, as the fuzzing process instruments it when it is imported

    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        package = Path(poscuda_fast.__file__).parents[1]  # where it is without the finder of an editable installation
        paths = [HERE, HERE.parent, package]
        options = ["--reader", reader, "--folder", folder, "--runs", str(runs), "--seed", str(seed)]
        done = subprocess.run(
            [sys.executable, __file__, *options],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    stat = re.search(r"stat::number_of_executed_units: *(\d+)", done.stderr)
    problem = "" if done.returncode == 0 and stat else f"{reader}: exit code {done.returncode}\n{done.stderr[-2000:]}"
    if not problem and " cov: " not in done.stderr:
        problem = f"{reader}: the fuzzer was not led by coverage"
    return int(stat[1]) if stat else 0, problem


def fuzz(reader: str, folder: Path, runs: int, seed: int) -> None:
    """Fuzz one reader in this process, which it ends."""
    import atheris

    # The finder of an editable installation would hand out modules that atheris cannot instrument.
    sys.meta_path[:] = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
    with atheris.instrument_imports(include=["poscuda_fast"]):
        for module in INSTRUMENTED:
            importlib.import_module(f"poscuda_fast.{module}")

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(seeds(reader, folder)):
        (corpus / str(number)).write_bytes(content)
    read = READERS[reader]
    path = folder / f"input.{reader}"
    path.touch(0o600)

    def meet(data: bytes) -> None:
        read(path, data)

    megabytes = 256 + resident_megabytes()
    limits = ["-timeout=2", f"-rss_limit_mb={megabytes}", "-max_len=20000", f"-artifact_prefix={folder}/"]
    arguments = [sys.argv[0], f"-runs={runs}", f"-seed={seed}", "-print_final_stats=1", *limits, str(corpus)]
    atheris.Setup(arguments, meet)
    atheris.Fuzz()


def resident_megabytes() -> int:
    """What this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") >> 20


def seeds(reader: str, folder: Path) -> Iterator[bytes]:
    """What a reader's fuzzer begins with: valid files and broken ones."""
    import numpy as np
    from audiofiles import noise, npy, npy_header, rf64, wav
    from hostile import BAD_NPYS, BAD_WAVS
    from test_containers import BAD_OTHERS, OTHERS
    from test_key import KEY_LINE, WRONG

    from poscuda_fast import Key, Recipe, protect_memmap
    from poscuda_fast.undo.manifest import Manifest

    if reader == "wav":
        yield from (wav(noise(20)), wav(noise(20, 2, "PCM_24"), "PCM_24", extensible=True), rf64(noise(9)))
        yield from (content for content, _ in BAD_WAVS.values() if len(content) < 5_000)
        yield from (content for content, *_ in (*OTHERS.values(), *BAD_OTHERS.values()))
    elif reader == "npy":
        yield npy(npy_header(), bytes(12))
        yield from (content for content, _ in BAD_NPYS.values() if len(content) < 5_000)
    elif reader == "csv":
        yield b"path,label\na/1.wav,yes\nb/2.wav,no\n"
        yield b'path,label\n"a,b/1.wav","y""s"\n\n../x,no\n/x,no\na,\n'
    elif reader == "key":
        yield f"# a note\n# fingerprint 847db78bd7fbd1a2\n{KEY_LINE}\n".encode()
        yield from (content.encode() if isinstance(content, str) else content for content, _ in WRONG.values())
    elif reader == "manifest":
        entry = {"label": "a", "bytes_before": 1, "bytes_after": 1, "blake3_before": "a" * 64, "blake3_after": "b" * 64,
                 "snr_db": 2.5}  # fmt: skip
        Manifest("0" * 16, Recipe.strong(), {"a/1.wav": entry}).write(folder / "manifest")
        yield (folder / "manifest").read_bytes()
    elif reader == "sidecar":
        path = folder / "clips.npy"
        np.save(path, noise(2 * 300).reshape(2, 300))
        protect_memmap(np.load(path, mmap_mode="r+"), [0, 1], Key(bytes(range(32))), recipe=Recipe.paper(patch=40))
        yield (folder / "clips.npy.poscuda").read_bytes()


# One function a reader: anything but a documented refusal, or a result that does not hold, is an error of ours


def read_wav(path: Path, data: bytes) -> None:
    from poscuda_fast import AudioFileError
    from poscuda_fast.files import containers

    try:
        layout = containers.parse(data, len(data), "a.wav")
    except AudioFileError as error:
        hold(str(error).startswith("a.wav cannot be used: ") and str(error).endswith("."))
    else:
        if layout is None:
            return
        hold(layout.frames >= 0 and layout.offset > 0)
        hold(layout.offset + layout.frames * layout.frame_bytes <= len(data))


def read_npy(path: Path, data: bytes) -> None:
    from poscuda_fast import AudioFileError
    from poscuda_fast.arrays import mapped

    path.write_bytes(data)
    try:
        with open(path, "rb") as file:
            layout = mapped.read_npy(file, "a.npy")
    except AudioFileError:
        pass
    else:
        n_bytes = layout.dtype.itemsize
        for n in layout.shape:
            n_bytes *= n
        hold(layout.offset + n_bytes == len(data))
    hold(path.read_bytes() == data)


def read_csv(path: Path, data: bytes) -> None:
    from poscuda_fast import DatasetError
    from poscuda_fast.files import label_sources

    path.write_bytes(data)
    try:
        labels = label_sources._read_csv(path)
    except DatasetError:
        pass
    else:
        hold(all(label and "\0" not in label and ".." not in Path(name).parts for name, label in labels.items()))
        hold(not any(name.startswith("/") for name in labels))


def read_key(path: Path, data: bytes) -> None:
    from poscuda_fast import KeyFileError, key

    try:
        found = key._parse(path, data)
    except KeyFileError as error:
        bodies = re.findall(rb"[A-Za-z0-9_-]{20,}", data)
        hold(not any(body.decode() in str(error) for body in bodies))
    else:
        hold(isinstance(found, key.Key))


def read_manifest(path: Path, data: bytes) -> None:
    from poscuda_fast import DatasetError
    from poscuda_fast.undo.manifest import Manifest

    path.write_bytes(data)
    try:
        found = Manifest.read(path)
    except DatasetError:
        pass
    else:
        hold(not any(name.startswith("/") or ".." in Path(name).parts for name in found.files))


def read_sidecar(path: Path, data: bytes) -> None:
    from poscuda_fast import Key, SidecarError
    from poscuda_fast.undo.journal import Journal

    path.write_bytes(data)
    try:
        with Journal(path, Key(bytes(range(32)))) as journal:
            for _ in journal.records():
                pass
    except (SidecarError, OSError):
        pass
    hold(path.read_bytes() == data)


def hold(truth: object) -> None:
    """AssertionError unless something holds."""
    if not truth:
        raise AssertionError("a result that does not hold")


READERS: dict[str, Callable[[Path, bytes], None]] = {
    "wav": read_wav, "npy": read_npy, "csv": read_csv, "key": read_key, "manifest": read_manifest,
    "sidecar": read_sidecar,
}  # fmt: skip

if __name__ == "__main__":
    main()
