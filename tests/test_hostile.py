"""What is hostile or broken meets a clear sentence; nothing is written, nothing grows, nothing hangs."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import socket
import struct
import tempfile
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import audiofiles
import numpy as np
import pytest
from audiofiles import chunk, in_child, noise, npy, npy_header, rf64, riff, untouched, wav
from audiofiles import write_tree as write
from hostile import BAD_NPYS, BAD_WAVS, DATA, FMT, GOOD, HEADER_BYTES_READ, NOT_WAVS, SAMPLES, STREAMED_WAVS
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import protect_folder

from poscuda_fast import AudioFileError, DatasetError, SidecarError, restore_folder, verify_folder
from poscuda_fast.arrays import mapped
from poscuda_fast.errors import has_stopped
from poscuda_fast.files import copying, making
from poscuda_fast.files import target as files
from poscuda_fast.files.containers import Uncompressed
from poscuda_fast.files.containers import riff as wav_headers
from poscuda_fast.files.containers.layout import HEAD_BYTES, MAX_CHANNELS, Reader
from poscuda_fast.mark import codings
from poscuda_fast.undo.journal import Journal

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

wavs = pytest.mark.parametrize(("content", "sentence"), BAD_WAVS.values(), ids=BAD_WAVS.keys())
npys = pytest.mark.parametrize(("content", "sentence"), BAD_NPYS.values(), ids=BAD_NPYS.keys())


def read_wav(file: BinaryIO, name: str) -> Uncompressed:
    """The layout of an open WAV file."""
    return wav_headers.parse(Reader(file.fileno(), os.fstat(file.fileno()).st_size, name))


def refusal(read: Callable[..., object], path: Path, most: int) -> str:
    """The sentence that a header reader refuses a file with, having read little and changed nothing."""
    n_read = 0
    whole_read = os.read

    def metered(descriptor: int, size: int) -> bytes:
        nonlocal n_read
        data = whole_read(descriptor, size)
        n_read += len(data)
        return data

    with untouched(path.parent), open(path, "rb") as file, pytest.MonkeyPatch.context() as patching:
        patching.setattr(os, "read", metered)
        with pytest.raises(AudioFileError) as caught:
            read(file, path.name)
    assert (n_read > 0) == (path.stat().st_size > 0)
    assert n_read <= most
    sentence = str(caught.value)
    assert sentence.startswith(f"{path.name} cannot be used: ")
    assert sentence.endswith(".")
    assert len(sentence) < 500
    return sentence


def dataset(root: Path) -> Path:
    """Two classes of sound files, and one that is none."""
    src = root / "src"
    write(src, {f"{label}/{i}.wav": wav(noise(900, 1, seed=i)) for label in ("no", "yes") for i in (1, 2)})
    write(src, {"readme.txt": b"about"})
    return src


def refuse_everywhere(root: Path, src: Path, key, sentence: str, errors=DatasetError, **options) -> None:
    """Protecting in place, as a copy and as a rehearsal are all refused, and nothing at all is written."""
    for dst, dry_run in ((None, False), (root / "dst", False), (None, True), (root / "dst", True)):
        with untouched(root), pytest.raises(errors, match=re.escape(sentence)):
            protect_folder(src, dst, key, dry_run=dry_run, **options)


# WAV and NPY headers


@wavs
def test_read_wav_refuses(tmp_path, content, sentence):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert sentence in refusal(read_wav, path, HEADER_BYTES_READ)


@pytest.mark.parametrize("content", STREAMED_WAVS.values(), ids=STREAMED_WAVS.keys())
def test_a_wav_file_that_was_streamed_goes_to_its_end(tmp_path, content):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with open(path, "rb") as file:
        layout = read_wav(file, "a.wav")
    assert content[layout.offset :][: layout.frames * layout.frame_bytes] == DATA == content[layout.offset :]


@pytest.mark.parametrize("size", [0, 100, 138, 10**6, 10**9, 2**32 - 2])
def test_a_riff_size_that_is_wrong_does_not_matter_where_that_of_the_data_is_right(tmp_path, size):
    path = tmp_path / "a.wav"
    path.write_bytes(riff(FMT, chunk(b"data", DATA), size=size))
    with open(path, "rb") as file:
        assert read_wav(file, "a.wav") == Uncompressed(44, len(SAMPLES), 1, "PCM_16", 16000)


@pytest.mark.parametrize(
    ("content", "offset"),
    [
        (riff(FMT, b"LIST" + struct.pack("<I", 15) + b"INFOINAM\x03\0\0\0abc", chunk(b"data", DATA)), 67),
        (riff(b"junk" + struct.pack("<I", 3) + b"abc", FMT, chunk(b"data", DATA)), 55),
    ],
    ids=["before the data", "before the format"],
)
def test_an_odd_chunk_may_lack_the_byte_that_makes_it_even(tmp_path, content, offset):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with open(path, "rb") as file:
        assert read_wav(file, "a.wav") == Uncompressed(offset, len(SAMPLES), 1, "PCM_16", 16000)


@pytest.mark.parametrize(
    ("content", "sentence"), [*BAD_WAVS.values(), *NOT_WAVS.values()], ids=[*BAD_WAVS, *(f"not: {n}" for n in NOT_WAVS)]
)
def test_a_folder_with_one_bad_wav_is_refused_as_a_whole(tmp_path, key, content, sentence):
    src = tmp_path / "src"
    write(src, {"yes/a.wav": GOOD, "yes/bad.wav": content, "yes/c.wav": GOOD})
    for dst in (None, tmp_path / "dst"):
        with untouched(tmp_path), pytest.raises(DatasetError, match=re.escape(sentence)) as caught:
            protect_folder(src, dst, key)
        title = f"1 of 3 files in {src} cannot be used; nothing was written:"
        assert str(caught.value).startswith(f"{title}\n  yes/bad.wav cannot be used: ")


@pytest.mark.parametrize("extensible", [False, True], ids=["plain", "extensible"])
@pytest.mark.parametrize("honest", [False, True], ids=["RIFF size kept", "RIFF size of what is left"])
def test_a_wav_file_cut_at_any_byte_is_refused(tmp_path, extensible, honest):
    whole = wav(SAMPLES, extensible=extensible)
    path = tmp_path / "a.wav"
    for end in range(len(whole)):
        cut = bytearray(whole[:end])
        if honest and end >= 8:
            cut[4:8] = struct.pack("<I", end - 8)
        path.write_bytes(cut)
        with open(path, "rb") as file, pytest.raises(AudioFileError, match=r"^a\.wav cannot be used: .+\.$"):
            read_wav(file, "a.wav")
        assert path.read_bytes() == cut


def test_an_rf64_file_cut_at_any_byte_is_refused(tmp_path):
    whole = rf64(SAMPLES)
    path = tmp_path / "a.wav"
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with open(path, "rb") as file, pytest.raises(AudioFileError, match=r"^a\.wav cannot be used: .+\.$"):
            read_wav(file, "a.wav")


def test_a_hole_behind_a_header_costs_no_time_and_no_disk(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(riff(FMT, chunk(b"data", DATA), size=0))
    with open(path, "r+b") as file:
        file.truncate(2**26)  # a hole: zeros that nothing counts
    begun = time.perf_counter()
    with open(path, "rb") as file, pytest.raises(AudioFileError, match="what follows may be sound"):
        read_wav(file, "a.wav")
    assert time.perf_counter() - begun < 5
    assert path.stat().st_size == 2**26
    assert path.stat().st_blocks * 512 < 2**20


@npys
def test_read_npy_refuses(tmp_path, content, sentence):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    assert sentence in refusal(mapped.read_npy, path, HEAD_BYTES + mapped.MAX_NPY_HEADER)


@npys
@pytest.mark.parametrize("writing", [False, True], ids=["reading", "writing"])
def test_map_npy_refuses(tmp_path, content, sentence, writing):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with untouched(tmp_path), pytest.raises(AudioFileError, match=re.escape(sentence)):
        mapped.map_npy(path, writing=writing)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickled_array_is_never_unpickled(tmp_path):
    path, trap = tmp_path / "a.npy", tmp_path / "sprung"
    np.save(path, np.array([[Trap(trap)]], dtype=object), allow_pickle=True)
    with untouched(tmp_path), pytest.raises(AudioFileError, match="its samples are object; expected int16"):
        mapped.map_npy(path, writing=True)
    path.write_bytes(pickle.dumps(Trap(trap)))
    with untouched(tmp_path), pytest.raises(AudioFileError, match=r"its \.npy header cannot be read"):
        mapped.map_npy(path, writing=True)


@pytest.mark.parametrize("version", [(1, 0), (2, 0)], ids=str)
@pytest.mark.parametrize("near", [b"\\", b"1", b"L", b"'a1'"], ids=repr)
def test_no_first_sample_is_read_as_part_of_a_npy_header(tmp_path, near, version):
    path = tmp_path / "a.npy"
    with open(path, "wb") as file:
        np.lib.format.write_array(file, np.zeros((3, 20), np.int16), version)
    begin = path.stat().st_size - 120
    with open(path, "r+b") as file:
        for other in range(256):
            for samples in (near + bytes([other]), bytes([other]) + near):
                os.pwrite(file.fileno(), samples, begin)
                assert mapped.read_header(file).offset == begin


def test_a_npy_file_cut_at_any_byte_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, noise(60).reshape(3, 20))
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(AudioFileError, match=r"a\.npy cannot be used: .+\.$"):
            mapped.map_npy(path, writing=True)
        assert path.stat().st_size == end


WAV_TEMPLATES = [
    wav(noise(30)),
    wav(noise(30, 2, "PCM_24"), "PCM_24", extensible=True),
    wav(noise(31, 1, "PCM_24"), "PCM_24", before=chunk(b"LIST", b"INFOx"), after=chunk(b"id3 ", b"x")),
    wav(noise(30, 3, "FLOAT"), "FLOAT", extensible=True, before=chunk(b"fact", bytes(4))),
    rf64(noise(30)),
]
NPY_TEMPLATES = [
    npy(npy_header(), bytes(12)),
    npy(npy_header("'<f4'", "True", "(2, 3, 2)"), bytes(48), (2, 0)),
]
flips = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 255)), min_size=1, max_size=6)
cuts = st.one_of(st.none(), st.integers(0, 200))


def flipped(template: bytes, changes: list[tuple[int, int]], end: int | None) -> bytes:
    content = bytearray(template)
    for place, value in changes:
        content[place % len(content)] = value
    return bytes(content[:end])


@settings(max_examples=400, deadline=None, database=None)
@given(template=st.sampled_from(WAV_TEMPLATES), changes=flips, end=cuts)
def test_any_wav_header_gives_a_refusal_or_a_layout_inside_the_file(template, changes, end):
    content = flipped(template, changes, end)
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            layout = read_wav(file, "a.wav")
        except AudioFileError:
            return
        assert 20 <= layout.offset <= layout.offset + layout.frames * layout.frame_bytes <= len(content)
        assert layout.coding in codings.CODINGS
        assert 1 <= layout.channels <= MAX_CHANNELS
        assert layout.sample_rate > 0


@settings(max_examples=1000, deadline=None, database=None)
@given(template=st.sampled_from([wav(noise(30)), wav(noise(30, 2, "FLOAT"), "FLOAT"), wav(noise(0))]), changes=flips)
def test_the_short_way_through_a_plain_header_ends_where_the_long_one_does(template, changes):
    content = flipped(template, changes, None)
    short = wav_headers._plain(Reader(content, len(content), "a.wav"))
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        reader = Reader(file.fileno(), len(content), "a.wav")
        try:
            long = wav_headers._any(reader)
        except AudioFileError:
            assert short is None
            return
    assert short in (None, long)


def test_plain_headers_go_the_short_way():
    for coding in audiofiles.CODES:
        content = wav(noise(30, 2, coding), coding)
        assert wav_headers._plain(Reader(content, len(content), "a.wav")) == Uncompressed(44, 30, 2, coding, 16000)


@settings(max_examples=400, deadline=None, database=None)
@given(template=st.sampled_from(NPY_TEMPLATES), changes=flips, end=cuts)
def test_any_npy_header_gives_a_refusal_or_a_layout_of_the_whole_file(template, changes, end):
    content = flipped(template, changes, end)
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            layout = mapped.read_npy(file, "a.npy")
        except AudioFileError:
            return
        assert layout.dtype in (np.dtype(np.int16), np.dtype(np.float32))
        assert layout.order in ("C", "F")
        assert len(layout.shape) in (2, 3)
        assert layout.offset + int(np.prod(layout.shape)) * layout.dtype.itemsize == len(content)


# Folders


def test_a_symbolic_link_to_a_file_is_refused(tmp_path, key):
    src = dataset(tmp_path)
    write(tmp_path, {"outside.wav": GOOD})
    (src / "yes/link.wav").symlink_to(tmp_path / "outside.wav")
    refuse_everywhere(
        tmp_path, src, key, "nothing was written:\n  yes/link.wav is a symbolic link; replace it with the file"
    )


def test_a_symbolic_link_to_a_folder_is_refused(tmp_path, key):
    src = dataset(tmp_path)
    write(tmp_path, {"outside/a.wav": GOOD})
    (src / "up").symlink_to(tmp_path / "outside")
    refuse_everywhere(tmp_path, src, key, "up is a symbolic link; replace it with the file, or move it away")


def test_a_symbolic_link_to_itself_and_one_to_nothing_are_refused(tmp_path, key):
    src = dataset(tmp_path)
    (src / "loop.wav").symlink_to("loop.wav")
    (src / "gone.wav").symlink_to("nowhere.wav")
    refuse_everywhere(tmp_path, src, key, "gone.wav is a symbolic link")
    refuse_everywhere(tmp_path, src, key, "loop.wav is a symbolic link")


def test_a_pipe_is_refused_and_not_opened(tmp_path, key):
    src = dataset(tmp_path)
    os.mkfifo(src / "yes/pipe.wav")
    refuse_everywhere(tmp_path, src, key, "yes/pipe.wav is not a regular file; move it away")


def test_a_socket_is_refused(tmp_path, key):
    # The address of a socket is limited to about a hundred bytes, which tmp_path may exceed.
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as server:
        root = Path(short)
        src = dataset(root)
        server.bind(str(src / "s.wav"))
        refuse_everywhere(root, src, key, "s.wav is not a regular file; move it away")


def test_hard_links_are_refused_in_place_and_copied_apart(tmp_path, key):
    src = dataset(tmp_path)
    os.link(src / "yes/1.wav", src / "yes/twin.wav")
    sentence = "cannot be used; nothing was written:\n  yes/1.wav has 2 names (hard links), so an edit in place"
    with untouched(tmp_path), pytest.raises(DatasetError, match=re.escape(sentence)):
        protect_folder(src, None, key)
    with untouched(src):
        assert protect_folder(src, tmp_path / "dst", key).clips == 5
    wet, _ = audiofiles.protected(noise(900, 1, seed=1), "PCM_16", "yes", key)
    for name in ("yes/1.wav", "yes/twin.wav"):
        assert (tmp_path / "dst" / name).stat().st_nlink == 1
        assert audiofiles.read_samples(tmp_path / "dst" / name, "PCM_16").tobytes() == wet.tobytes()


def test_a_hard_link_out_of_the_folder_is_refused_in_place(tmp_path, key):
    src = dataset(tmp_path)
    os.link(src / "no/2.wav", tmp_path / "elsewhere.wav")
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"no/2\.wav has 2 names \(hard links\)"):
        protect_folder(src, None, key)
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"2\.wav has 2 names \(hard links\)"):
        protect_folder(src / "no/2.wav", None, key)


def test_a_rehearsal_in_place_refuses_hard_links_too(tmp_path, key):
    src = dataset(tmp_path)
    os.link(src / "no/2.wav", tmp_path / "elsewhere.wav")
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"no/2\.wav has 2 names \(hard links\)"):
        protect_folder(src, None, key, dry_run=True)


@pytest.mark.parametrize(
    "names",
    [
        ("yes/Yes.wav", "yes/yes.wav"),
        ("yes/a.wav", "yes/a.WAV"),
        ("Yes/1.wav", "yes/1.wav"),
        (unicodedata.normalize("NFC", "yes/café.wav"), unicodedata.normalize("NFD", "yes/café.wav")),
        ("yes/notes.txt", "yes/Notes.txt"),
    ],
    ids=["case", "case of the suffix", "case of the folder", "Unicode form", "other files"],
)
def test_names_that_other_file_systems_take_for_one_are_refused(tmp_path, key, names):
    src = dataset(tmp_path)
    write(src, dict.fromkeys(names, GOOD))
    if not all(name in {path.relative_to(src).as_posix() for path in src.rglob("*")} for name in names):
        pytest.skip("this file system takes them for one")
    refuse_everywhere(tmp_path, src, key, "differ only in case or Unicode form; rename one")


def test_names_that_are_not_utf_8_are_refused(tmp_path, key):
    src = dataset(tmp_path)
    try:
        Path(os.fsdecode(os.fsencode(src) + b"/yes/caf\xe9.wav")).write_bytes(GOOD)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    refuse_everywhere(tmp_path, src, key, r"b'yes/caf\xe9.wav' has a name that is not UTF-8; rename it")


def test_folders_without_audio_are_refused(tmp_path, key):
    src = tmp_path / "src"
    src.mkdir()
    refuse_everywhere(tmp_path, src, key, f"{src} has no audio files, by name or by content; give another folder")
    write(src, {"readme.txt": b"", "deep/notes.csv": b"", ".hidden.wav": GOOD})
    refuse_everywhere(tmp_path, src, key, f"{src} has no audio files, by name or by content; give another folder")


def test_a_folder_that_is_missing_is_refused(tmp_path, key):
    sentence = f"{tmp_path}/gone does not exist; give a folder of audio, or one audio file."
    refuse_everywhere(tmp_path, tmp_path / "gone", key, sentence)
    for verb in (restore_folder, verify_folder):
        with untouched(tmp_path), pytest.raises(DatasetError, match=re.escape(sentence)):
            verb(tmp_path / "gone", key)


@pytest.mark.parametrize("kind", ["pipe", "link", "dangling link", "device"])
def test_a_single_file_must_be_a_regular_file(tmp_path, key, kind):
    path = tmp_path / "a.wav"
    write(tmp_path, {"real.wav": GOOD})
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("real.wav")
    elif kind == "dangling link":
        path.symlink_to("gone.wav")
    else:
        path = Path(os.devnull)
    sentence = "does not exist" if kind == "dangling link" else "is not a regular file; give the file itself"
    with untouched(tmp_path), pytest.raises(DatasetError, match=f"{path} {sentence}"):
        protect_folder(path, None, key, sidecar=tmp_path / "sidecar")


@pytest.mark.parametrize("dst", ["src/yes/copy", "src/copy", ".", "src", "src/", "link", "link/copy"])
def test_a_copy_into_its_own_source_or_around_it_is_refused(tmp_path, key, dst):
    src = dataset(tmp_path)
    (tmp_path / "link").symlink_to(src)
    sentence = (
        "itself; to edit in place" if dst in ("src", "src/", "link") else "lies inside the other; choose another path"
    )
    for dry_run in (False, True):
        with untouched(tmp_path), pytest.raises(DatasetError, match=sentence):
            protect_folder(src, tmp_path / dst, key, dry_run=dry_run)


@pytest.mark.parametrize("taken", ["file", "folder", "hidden file", "link to a folder"])
def test_a_copy_never_lands_on_anything(tmp_path, key, taken):
    src = dataset(tmp_path)
    dst = tmp_path / "dst"
    if taken == "file":
        write(tmp_path, {"dst": b"precious"})
    elif taken == "link to a folder":
        write(tmp_path, {"real/precious": b""})
        dst.symlink_to(tmp_path / "real")
    else:
        write(dst, {"precious" if taken == "folder" else ".precious": b""})
    for dry_run in (False, True):
        with untouched(tmp_path), pytest.raises(DatasetError, match="exists, and nothing is ever overwritten; choose"):
            protect_folder(src, dst, key, dry_run=dry_run)


def test_a_copy_into_an_empty_folder_is_fine(tmp_path, key):
    src = dataset(tmp_path)
    (tmp_path / "dst").mkdir()
    assert protect_folder(src, tmp_path / "dst", key).clips == 4


def test_loose_files_beside_class_folders_are_refused(tmp_path, key):
    src = dataset(tmp_path)
    write(src, {"loose.wav": GOOD})
    refuse_everywhere(
        tmp_path, src, key, "Labels cannot be read from the folders; nothing was written:\n  loose.wav lies"
    )


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("/etc/passwd,yes", "line 2: '/etc/passwd' is not a path inside the folder"),
        ("../secret.wav,yes", "line 2: '../secret.wav' is not a path inside the folder"),
        ("no/1.wav,yes\nno/1.wav,no", "line 3: 'no/1.wav' has two labels"),
        ("no/9.wav,no", "no/9.wav has a label but is not an audio file there"),
        ("no/1.wav,no", "yes/1.wav has no label"),
        ("no/1.wav,", "line 2: 'no/1.wav' has an empty label"),
    ],
    ids=["absolute", "parent", "two labels", "missing file", "unlabelled file", "empty label"],
)
def test_a_csv_file_that_does_not_fit_the_folder_is_refused(tmp_path, key, rows, sentence):
    src = dataset(tmp_path)
    write(tmp_path, {"labels.csv": f"path,label\n{rows}\n".encode()})
    refuse_everywhere(tmp_path, src, key, sentence, labels_from=f"csv:{tmp_path}/labels.csv")


def test_labels_of_a_wrong_kind_are_refused(tmp_path, key):
    src = dataset(tmp_path)
    names = ["no/1.wav", "no/2.wav", "yes/1.wav", "yes/2.wav"]
    cases = [
        ([0, 1, True, 1], DatasetError),
        ([0, 1, 2.0, 1], DatasetError),
        ([0, 1, -1, 1], ValueError),
        ([0, 1, None, 1], DatasetError),
        (["a", "", "b", "c"], ValueError),
    ]
    for labels, error in cases:
        refuse_everywhere(tmp_path, src, key, "abel", error, labels_from=dict(zip(names, labels, strict=True)))


@pytest.mark.parametrize("wrong", [None, b"k" * 32, "key", 7])
def test_what_is_no_key_is_refused(tmp_path, wrong):
    src = dataset(tmp_path)
    refuse_everywhere(tmp_path, src, wrong, "expected a poscuda_fast.Key", TypeError)
    with untouched(tmp_path), pytest.raises(TypeError, match=r"expected a poscuda_fast\.Key"):
        restore_folder(src, wrong)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("container", ["WAV", "AIFF"])
def test_a_sample_that_is_not_finite_in_a_patch_is_refused_before_anything_is_written(tmp_path, key, container, bad):
    src = dataset(tmp_path)
    samples = noise(2000, 2, "FLOAT")
    first = int(audiofiles.patches_of(2000, "yes", key).starts[0])
    samples[first + 239, 1] = bad
    name = "yes/z.wav" if container == "WAV" else "yes/z.aiff"
    audiofiles.encoded(src / name, samples, container, "FLOAT")
    sentence = f"{name} has a NaN or infinite sample where it would be marked; nothing was written."
    for dst in (None, tmp_path / "dst"):
        with untouched(tmp_path), pytest.raises(ValueError, match=re.escape(sentence)):
            protect_folder(src, dst, key)


def test_a_rehearsal_refuses_samples_that_are_not_finite_too(tmp_path, key):
    write(tmp_path, {"yes/a.wav": wav(np.full((100, 1), np.nan, np.float32), "FLOAT")})
    with untouched(tmp_path), pytest.raises(ValueError, match=r"a\.wav has a NaN or infinite sample"):
        protect_folder(tmp_path / "yes", None, key, dry_run=True)


@pytest.mark.parametrize("container", ["WAV", "AIFF"])
def test_samples_that_are_not_finite_outside_patches_stay_as_they_are(tmp_path, key, container):
    src = tmp_path / "yes"
    src.mkdir()
    samples = noise(2000, 2, "FLOAT")
    first = int(audiofiles.patches_of(2000, "yes", key).starts[0])
    samples[first - 1, 0], samples[first + 240, 1] = np.nan, -np.inf
    path = src / ("z.wav" if container == "WAV" else "z.aiff")
    audiofiles.encoded(path, samples, container, "FLOAT")
    before = path.read_bytes()
    protect_folder(src, None, key)
    wet, _ = audiofiles.protected(np.nan_to_num(samples, nan=0, neginf=0), "FLOAT", "yes", key)
    wet[first - 1, 0], wet[first + 240, 1] = np.nan, -np.inf
    assert audiofiles.read_samples(path, "FLOAT").tobytes() == wet.tobytes()
    assert verify_folder(src, key).protected == 1
    restore_folder(src, key)
    assert path.read_bytes() == before


@pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])
@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_flac_that_cannot_be_decoded_is_refused_before_anything_is_written(tmp_path, key, damage, copying):
    src = tmp_path / "src" / "yes"
    src.mkdir(parents=True)
    for name in "abc":
        audiofiles.encoded(src / f"{name}.flac", noise(3000, 1, seed=ord(name)), "FLAC", "PCM_16")
    content = (src / "b.flac").read_bytes()
    half = len(content) // 2
    bad = content[:half] if damage == "cut" else content[:half] + bytes(200) + content[half + 200 :]
    (src / "b.flac").write_bytes(bad)
    with untouched(tmp_path), pytest.raises((AudioFileError, DatasetError), match=r"b\.flac cannot be used"):
        protect_folder(tmp_path / "src", tmp_path / "dst" if copying else None, key)


@pytest.mark.parametrize("target", ["src/yes/1.wav", "src/readme.txt"])
def test_a_sidecar_path_that_is_another_file_is_refused(tmp_path, key, target):
    src = dataset(tmp_path)
    with untouched(tmp_path), pytest.raises(SidecarError, match=re.escape(str(tmp_path / target))):
        protect_folder(src, None, key, sidecar=tmp_path / target)


def test_a_sidecar_path_that_is_a_link_is_refused(tmp_path, key):
    src = dataset(tmp_path)
    write(tmp_path, {"precious": b""})
    (tmp_path / "sidecar").symlink_to("precious")
    with untouched(tmp_path), pytest.raises(SidecarError, match="sidecar is a link; it is not followed"):
        protect_folder(src, None, key, sidecar=tmp_path / "sidecar")


def test_a_sidecar_in_a_folder_that_is_missing_is_refused(tmp_path, key):
    src = dataset(tmp_path)
    for dst in (None, tmp_path / "dst"):
        with untouched(tmp_path), pytest.raises((DatasetError, SidecarError, OSError), match="gone"):
            protect_folder(src, dst, key, sidecar=tmp_path / "gone" / "sidecar")


# Files that change while a run is under way


def exchange(path: Path, how: str) -> None:
    """Do to a file what must not happen between listing and editing."""
    content = path.read_bytes()
    if how == "grown":
        path.write_bytes(content + b"more")
    elif how == "cut":
        path.write_bytes(content[:-40])
    elif how == "gone":
        path.unlink()
    elif how == "link":
        path.rename(path.parents[2] / "elsewhere")
        path.symlink_to(path.parents[2] / "elsewhere")
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif path.suffix == ".flac":
        frames, channels, coding = {"short": (40, 1, "PCM_16"), "long": (5000, 1, "PCM_16"),
                                    "stereo": (900, 2, "PCM_16"), "24-bit": (900, 1, "PCM_24")}[how]  # fmt: skip
        audiofiles.encoded(path, noise(frames, channels, coding, seed=9), "FLAC", coding)
    elif how == "other header":  # of the same size: only its samples begin elsewhere
        list_bytes = b"INFO" + bytes(292)
        path.write_bytes(wav(noise(748), before=chunk(b"LIST", list_bytes)))
    else:
        path.write_bytes(b"text" * (len(content) // 4) + b"t" * (len(content) % 4))


def put_back(path: Path, content: bytes) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(content)


WAV_CASES = [(".wav", how) for how in ("grown", "cut", "gone", "link", "pipe", "folder", "other header", "text")]
FLAC_CASES = [(".flac", how) for how in ("cut", "gone", "link", "pipe", "folder", "short", "long", "stereo", "24-bit")]
COPYING = [(*case, "before any is read") for case in WAV_CASES + FLAC_CASES]
COPYING += [(*case, "while others are made") for case in WAV_CASES]  # threads make all FLAC files at once
MOMENTS = ["before it is read", "before it is recorded", "before it is stored"]


def three_files(folder: Path, suffix: str) -> dict[str, bytes]:
    """a, b and c with 900 frames each."""
    folder.mkdir(parents=True)
    for name in "abc":
        path = folder / f"{name}{suffix}"
        if suffix == ".wav":
            path.write_bytes(wav(noise(900, 1, seed=ord(name))))
        else:
            audiofiles.encoded(path, noise(900, 1, seed=ord(name)), "FLAC", "PCM_16")
    return audiofiles.contents(folder)


def are_protected(folder: Path, suffix: str, key) -> bool:
    """Whether the files that `three_files` made are protected now."""
    found = {name: audiofiles.read_samples(folder / f"{name}{suffix}", "PCM_16") for name in "abc"}
    wet = {name: audiofiles.protected(noise(900, 1, seed=ord(name)), "PCM_16", "yes", key)[0] for name in "abc"}
    return all(found[name].tobytes() == wet[name].tobytes() for name in "abc")


def after_call(method: str, work: Callable[[], None]) -> None:
    """Do something once, in this process, when a method of sidecars has returned for the first time."""
    real, waiting = getattr(Journal, method), [work]

    def step(self: Journal, *arguments: object) -> None:
        real(self, *arguments)
        if waiting:
            waiting.pop()()

    setattr(Journal, method, step)


@needs_fork
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("suffix", "how"), WAV_CASES + FLAC_CASES)
def test_a_file_exchanged_before_it_is_edited_in_place(tmp_path, key, monkeypatch, suffix, how, moment):
    src = tmp_path / "src" / "yes"
    before = three_files(src, suffix)
    victim = src / f"b{suffix}"
    monkeypatch.setattr(files, "PIECES_PER_BATCH", 1000 if moment == "before it is stored" else 1)
    exchanged = {}

    def strike() -> None:
        exchange(victim, how)
        exchanged.update(audiofiles.snapshot(src))

    def progress(done: int, total: int) -> None:
        if done == 1 and moment == "before it is recorded":
            strike()

    def run() -> None:
        if moment == "before it is read":
            after_call("begin", strike)
        elif moment == "before it is stored":
            after_call("append", strike)
        with pytest.raises((DatasetError, AudioFileError, SidecarError, OSError), match=r"\bb\.") as caught:
            protect_folder(src, None, key, progress=progress)
        assert has_stopped(caught.value)
        # What lies there now is somebody else's.
        place = os.fsencode(victim)
        assert exchanged
        assert audiofiles.snapshot(src).get(place) == exchanged.get(place)

    assert in_child(run) == 0
    put_back(victim, before[victim.name])
    assert protect_folder(src, None, key).state == "protected"
    assert are_protected(src, suffix, key)
    assert set(audiofiles.contents(src, hidden=True)) == set(before)
    restore_folder(src, key)
    assert audiofiles.contents(src, hidden=True) == before


@needs_fork
@pytest.mark.parametrize(("suffix", "how", "moment"), COPYING)
def test_a_file_exchanged_before_it_is_copied(tmp_path, key, monkeypatch, suffix, how, moment):
    src, dst = tmp_path / "src", tmp_path / "dst"
    before = three_files(src / "yes", suffix)
    victim = src / f"yes/b{suffix}"
    monkeypatch.setattr(making, "FILES_AT_ONCE", 1)

    def progress(done: int, total: int) -> None:
        if done == 1 and moment == "while others are made":
            exchange(victim, how)

    def run() -> None:
        if moment == "before any is read":
            after_call("begin", lambda: exchange(victim, how))
        with pytest.raises((DatasetError, AudioFileError, SidecarError, OSError), match=r"\bb\.") as caught:
            protect_folder(src, dst, key, progress=progress)
        assert has_stopped(caught.value)
        assert f"b{suffix}" not in audiofiles.contents(dst / "yes")

    assert in_child(run) == 0
    put_back(victim, before[victim.name])
    assert protect_folder(src, dst, key).state == "protected"
    assert are_protected(dst / "yes", suffix, key)
    assert set(audiofiles.contents(dst, hidden=True)) == {f"yes/{name}" for name in before}
    assert audiofiles.contents(src / "yes") == before


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "not recorded"])
def test_a_source_that_changed_since_its_copy_was_begun_is_refused(tmp_path, key, monkeypatch, recorded):
    src, dst = tmp_path / "src", tmp_path / "dst"
    write(src, {f"yes/{name}.wav": wav(noise(900, 1, seed=ord(name))) for name in "abc"})
    monkeypatch.setattr(making, "FILES_AT_ONCE", 1)
    if recorded:
        monkeypatch.setattr(copying, "FILES_PER_RECORD", 1)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        protect_folder(src, dst, key, progress=stop)
    write(src, {"yes/a.wav": wav(noise(900, 1, seed=7))})
    made = (dst / "yes/a.wav").read_bytes()
    with pytest.raises(SidecarError, match=r"yes/a\.wav") as caught:
        protect_folder(src, dst, key)
    assert has_stopped(caught.value) is not recorded
    assert (dst / "yes/a.wav").read_bytes() == made
    write(src, {"yes/a.wav": wav(noise(900, 1, seed=ord("a")))})
    assert protect_folder(src, dst, key).state == "protected"
    assert are_protected(dst / "yes", ".wav", key)


def test_files_added_since_a_run_was_begun_are_marked_with_the_others(tmp_path, key, monkeypatch):
    src = dataset(tmp_path)
    before = audiofiles.contents(src)
    monkeypatch.setattr(files, "PIECES_PER_BATCH", 1)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        protect_folder(src, None, key, progress=stop)
    new = {"no/0.wav": wav(noise(900, 1, seed=3)), "yes/new.wav": wav(noise(900, 1, seed=4))}
    write(src, new)
    report = protect_folder(src, None, key)
    assert (report.state, report.clips) == ("protected", 6)
    for name, content in {**before, **new}.items():
        if name.endswith(".wav"):
            seed = {"no/0.wav": 3, "yes/new.wav": 4}.get(name) or int(name[-5])
            wet, _ = audiofiles.protected(noise(900, 1, seed=seed), "PCM_16", name.split("/")[0], key)
            assert audiofiles.read_samples(src / name, "PCM_16").tobytes() == wet.tobytes()
        else:
            assert (src / name).read_bytes() == content
    restore_folder(src, key)
    assert audiofiles.contents(src, hidden=True) == {**before, **new}


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_folder_that_vanishes_while_it_is_read(tmp_path, key, monkeypatch, moment):
    src = dataset(tmp_path)
    monkeypatch.setattr(files, "PIECES_PER_BATCH", 1)

    def progress(done: int, total: int) -> None:
        if done == moment:
            shutil.rmtree(src / "yes", ignore_errors=True)

    with pytest.raises((DatasetError, SidecarError, OSError), match=r"\d\.wav"):
        protect_folder(src, None, key, progress=progress)
