"""Edits FLAC, and turns lossy files into it: decoded and encoded with soundfile, block by block.

libsndfile calls Python to read and write, and loses what that raises: an interrupt waits until libsndfile is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import io
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import disk
from poscuda_fast.disk import Stamp, refuse_exchanged
from poscuda_fast.errors import AudioFileError, DatasetError
from poscuda_fast.files import flac
from poscuda_fast.files.filtering import edit_energy, refuse_flagged
from poscuda_fast.files.records import Record
from poscuda_fast.interrupts import interrupts_held_back
from poscuda_fast.kernels import Engine
from poscuda_fast.mark import packed
from poscuda_fast.mark.marks import Marks
from poscuda_fast.mark.patches import Patches, packed_steps
from poscuda_fast.mark.snr import energy
from poscuda_fast.results import Tally, Verdict

if TYPE_CHECKING:
    import soundfile

# Coding, named as in codings.CODINGS, of what can be edited exactly -> the dtype that libsndfile decodes it to.
_LOSSLESS = {"PCM_16": "int16", "PCM_24": "int32"}
_LOSSY_FORMATS = {"MP3", "OGG"}
SAMPLES_PER_BLOCK = 1 << 18
BYTES_PER_COPY = 1 << 20
# No format here packs more frames into a byte: the largest FLAC block of one constant value takes over 8 bytes.
MAX_FRAMES_PER_BYTE = 65536 // 8
_TAGS = ("title", "artist", "album", "date", "tracknumber", "genre", "comment", "copyright", "software", "license")


@dataclasses.dataclass(frozen=True, slots=True)
class Encoding:
    """How a file is encoded, and how long it is."""

    format: str
    subtype: str
    frames: int
    channels: int
    sample_rate: int

    @property
    def lossy(self) -> bool:
        """Whether encoding its samples again would change them."""
        return self.format in _LOSSY_FORMATS

    @property
    def is_known(self) -> bool:
        """Whether its samples can be decoded to those of a coding, exactly unless it is lossy."""
        return self.coding in _LOSSLESS

    @property
    def coding(self) -> str:
        """Name of the decoded samples' coding in codings.CODINGS; lossy files decode to 16 bits."""
        return "PCM_16" if self.lossy else self.subtype

    @property
    def decoded_bytes(self) -> int:
        """About how many bytes its samples take."""
        return 4 * self.frames * self.channels


class UnreadableError(Exception):
    """libsndfile cannot read a file; the message is what it says."""


def probe(file: Any) -> Encoding:
    """Read how an open file is encoded; UnreadableError if libsndfile cannot tell."""
    import soundfile  # noqa: PLC0415 - a folder of WAV files does not need it

    try:
        with interrupts_held_back():
            file.seek(0)
            info = soundfile.info(_Guarded(file))
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise UnreadableError(_reason(error)) from None
    return Encoding(info.format, info.subtype, info.frames, info.channels, info.samplerate)


def is_readable(path: str) -> bool:
    """Whether libsndfile takes a file for audio."""
    try:
        with open(os.open(path, disk.READING), "rb") as file:
            return probe(file).channels > 0
    except (UnreadableError, OSError):
        return False


def _reason(error: Exception) -> str:
    """What libsndfile says is wrong, without the name of the object that it was to read."""
    return str(getattr(error, "error_string", error)).rstrip(".")


def opened(path: str, stamp: Stamp | None = None) -> BinaryIO:
    """A file open for reading; DatasetError if it is not a regular file, or not the file that was listed."""
    file = open(os.open(path, disk.READING), "rb")  # noqa: SIM115 - the caller closes it
    try:
        status = os.fstat(file.fileno())
        if stamp is not None:
            refuse_exchanged(path, stamp, status)
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError(f"{path} is not a regular file any more; put it back and run the same command again.")
    except BaseException:
        file.close()
        raise
    return file


class Reader:
    """Decodes an open file; AudioFileError if libsndfile cannot decode all of it. `name` is for messages.

    Attributes
    ----------
    encoding : Encoding
    tags : dict
        Its text tags.
    """

    def __init__(self, source: BinaryIO, name: str) -> None:
        import soundfile  # noqa: PLC0415

        self._name, self._source = name, _Guarded(source)
        self._errors = (soundfile.LibsndfileError, RuntimeError)
        self._done = 0
        source.seek(0)
        with self._refusing():
            self._file: soundfile.SoundFile = _straight()(self._source)
        file = self._file
        self.encoding = Encoding(file.format, file.subtype, file.frames, file.channels, file.samplerate)
        self.tags = {tag: getattr(file, tag) for tag in _TAGS if getattr(file, tag)}
        if not self.encoding.is_known or not (self.encoding.lossy or self.encoding.format == "FLAC"):
            file.close()
            raise AudioFileError(f"{name} cannot be used: it is {self.encoding.format}/{self.encoding.subtype}.")

    def read(self, frames: int) -> NDArray[Any]:
        """The next frames as kernel samples (frames, channels)."""
        with self._refusing():
            block = self._file.read(frames, _LOSSLESS[self.encoding.coding], always_2d=True)
        self._done += len(block)
        if len(block) < frames:
            self._source.raise_error()
            raise AudioFileError(
                f"{self._name} cannot be used: only {self._done} of its {self.encoding.frames} frames decode."
            )
        samples: NDArray[Any] = block >> 8 if self.encoding.coding == "PCM_24" else block
        return samples

    def blocks(self) -> Iterator[NDArray[Any]]:
        """All frames, so few at a time that a header that lies about the length costs no memory."""
        most = max(1, SAMPLES_PER_BLOCK // self.encoding.channels)
        for first in range(0, self.encoding.frames, most):
            yield self.read(min(most, self.encoding.frames - first))

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Say which file libsndfile cannot decode; an error of the source itself comes first."""
        try:
            with interrupts_held_back():
                yield
        except self._errors as error:
            self._source.raise_error()
            raise AudioFileError(
                f"{self._name} cannot be used: libsndfile cannot decode it ({_reason(error)})."
            ) from None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@functools.cache
def _straight() -> type[soundfile.SoundFile]:
    """`SoundFile` that never seeks: it would after each block, to where it is, and that changes samples of MP3."""
    import soundfile  # noqa: PLC0415

    class Straight(soundfile.SoundFile):  # type: ignore[misc] # it has no annotations
        def seekable(self) -> bool:
            return False

    return Straight


class Writer:
    """Encodes samples as FLAC of their coding, with text tags."""

    def __init__(self, target: Any, encoding: Encoding, tags: dict[str, str]) -> None:
        import soundfile  # noqa: PLC0415

        self._sink = sink = _Guarded(target)
        with interrupts_held_back():
            self._file = soundfile.SoundFile(
                sink, "w", encoding.sample_rate, encoding.channels, encoding.coding, format="FLAC"
            )
            for tag, text in tags.items():
                with contextlib.suppress(soundfile.LibsndfileError):  # not every container has every tag
                    setattr(self._file, tag, text)

    def write(self, samples: NDArray[Any]) -> None:
        """Append kernel samples (frames, channels)."""
        # libsndfile keeps 24-bit samples in the upper bits of an int32.
        with interrupts_held_back():
            self._file.write(samples << 8 if samples.dtype == np.int32 else samples)
        self._sink.raise_error()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with interrupts_held_back():
            self._file.close()
        if kind is None:
            self._sink.raise_error()


class _Guarded:
    """A file that libsndfile calls, which would print an error and go on: the first is kept until it is asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: BaseException | None = None

    def tell(self) -> int:
        return self._tried(self._file.tell, 0)

    def readinto(self, buffer: Any) -> int:
        return self._tried(lambda: self._file.readinto(buffer), 0)  # type: ignore[attr-defined] # files have it

    def write(self, content: Any) -> int:
        return self._tried(lambda: self._file.write(content), len(content))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._tried(lambda: self._seek(offset, whence), 0)

    def raise_error(self) -> None:
        """Raise what was kept."""
        if self._error is not None:
            raise self._error from None

    def _seek(self, offset: int, whence: int) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            return -1  # a damaged header led before the beginning: libsndfile finds that `tell` says something else

    def _tried(self, call: Callable[[], int], otherwise: int) -> int:
        if self._error is None:
            try:
                return call()
            except BaseException as error:  # noqa: BLE001 - an interrupt too
                self._error = error
        return otherwise


def writing_problem(encoding: Encoding) -> str | None:
    """Why libsndfile cannot write a file encoded like this one, as a clause; None if it can.

    It reads FLAC files of more sample rates and channels than it writes, for one.
    """
    import soundfile  # noqa: PLC0415

    try:
        _write_one(dataclasses.replace(encoding, frames=0))
    except (soundfile.LibsndfileError, RuntimeError):
        return (
            f"it has {encoding.sample_rate:,} Hz and {encoding.channels} channels, and cannot be encoded again as "
            f"FLAC; convert it to WAV first"
        )
    return None


@functools.lru_cache(maxsize=256)  # of what works: errors are not kept
def _write_one(encoding: Encoding) -> bytes:
    """Write a file of one frame; the bytes of its head."""
    file = io.BytesIO()
    with Writer(file, encoding, {}) as writer:
        writer.write(np.zeros((1, encoding.channels), _LOSSLESS[encoding.coding]))
    return file.getvalue()[: flac.read(file, "what was encoded").first]


@dataclasses.dataclass(frozen=True, slots=True)
class Decoded:
    """An encoded file in memory: kernel samples (frames, channels), how it was encoded, its text tags."""

    samples: NDArray[Any]
    encoding: Encoding
    tags: dict[str, str]


def decode(data: bytes, name: str) -> Decoded:
    """Decode a file's bytes; AudioFileError if libsndfile cannot decode all of them."""
    with Reader(io.BytesIO(data), name) as reader:
        dtype = np.dtype(_LOSSLESS[reader.encoding.coding])
        blocks = [*reader.blocks(), np.empty((0, reader.encoding.channels), dtype)]
        return Decoded(np.concatenate(blocks), reader.encoding, reader.tags)


def encode(decoded: Decoded) -> bytes:
    """Encode samples as FLAC; those of lossy files have 16 bits.

    AudioFileError unless the result decodes to exactly the same samples.
    """
    buffer = io.BytesIO()
    with Writer(buffer, decoded.encoding, decoded.tags) as writer:
        writer.write(decoded.samples)
    _refuse_lost(buffer, decoded.encoding, _digest_of(iter([decoded.samples])))
    return buffer.getvalue()


class Edited(NamedTuple):
    """What marking an encoded file did: counts, the energies of its samples and of the edit."""

    tally: Tally
    signal: float
    noise: float


def edit(source: BinaryIO, target: BinaryIO, record: Record, marks: Marks, engine: Engine) -> Edited:
    """Encode a file's marked samples into `target`, or copy the file if the mark changes nothing, as in silence.

    A FLAC file keeps all that it carries beside its samples; see `flac`.

    AudioFileError if it cannot be decoded, or encoding it again does not keep every sample.
    """
    tally, samples = Tally(), hashlib.sha256()
    signal = noise = 0.0
    changed = False
    carried = flac.read(source, record.name) if flac.is_flac(source) else None
    with Reader(source, record.name) as reader:
        sink = target if carried is None else _Behind(target, carried, reader.encoding)
        with Writer(sink, reader.encoding, reader.tags if carried is None else {}) as writer:
            for dry, wet in marked(reader, record, marks, engine, tally):
                writer.write(wet)
                samples.update(_bytes_of(wet).data)
                signal += energy(dry.reshape(-1))
                noise += edit_energy(dry.reshape(-1), wet.reshape(-1))
                changed = changed or not _same(dry, wet)
        if changed or reader.encoding.lossy:
            if isinstance(sink, _Behind):
                sink.finish()
            _refuse_lost(target, reader.encoding, samples.digest())
            return Edited(tally, signal, noise)
    source.seek(0)
    target.seek(0)
    target.truncate()
    shutil.copyfileobj(source, target, BYTES_PER_COPY)
    return Edited(tally, signal, noise)


class _Behind:
    """Where libsndfile writes FLAC: frames go to their place behind a longer head, and its own head is kept apart."""

    def __init__(self, target: BinaryIO, carried: flac.Carried, encoding: Encoding) -> None:
        self._target, self._carried = target, carried
        self._head = bytearray(_write_one(dataclasses.replace(encoding, frames=0)))
        self._first = len(carried.head())
        self._position = 0
        target.seek(0)

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            offset += max(self._target.seek(0, io.SEEK_END) - self._first, 0) + len(self._head)
        elif whence == io.SEEK_CUR:
            offset += self._position
        self._position = offset
        return offset

    def write(self, content: Any) -> int:
        view = memoryview(content)
        own = view[: max(0, len(self._head) - self._position)]
        self._head[self._position : self._position + len(own)] = own
        if len(view) > len(own):
            self._target.seek(self._first + self._position + len(own) - len(self._head))
            self._target.write(view[len(own) :])
        self._position += len(view)
        return len(view)

    def finish(self) -> None:
        """Write the head, and what the file carried behind its frames."""
        made = flac.read(io.BytesIO(self._head), "what was encoded")._replace(first=self._first)
        self._target.flush()
        head = flac.remade(self._carried, made, self._target)
        self._target.seek(0)
        self._target.write(head)
        self._target.seek(0, io.SEEK_END)
        self._target.write(self._carried.behind)


def marked(
    reader: Reader, record: Record, marks: Marks, engine: Engine, tally: Tally
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """(samples, marked samples) of a file, block by block; `record` says where its patches are.

    ValueError if format 1 meets a sample that is not finite.
    """
    starts, sizes = np.array(record.starts, np.int64), np.array(record.sizes, np.int64)
    most = max(1, SAMPLES_PER_BLOCK // record.channels)
    position = n = 0
    while position < record.frames:
        end = min(position + most, record.frames)
        if marks.steady:
            some = _patches(record.row, np.array([position]), np.array([end - position]))
        else:  # a patch is filtered whole
            last = int(np.searchsorted(starts, end))
            end = max(end, int(starts[last - 1] + sizes[last - 1])) if last else end
            some = _patches(record.row, starts[n:last], sizes[n:last])
            n = last
        dry = reader.read(end - position)
        wet = dry.copy()
        flat, firsts = wet.reshape(-1), (some.starts - position) * record.channels
        if marks.steady:
            tally.frames_changed += end - position
        else:
            flags = engine.survey_patches(flat, firsts, some.sizes * record.channels, 1)
            refuse_flagged(record.name, flags)
            packed.count_patches(tally, some, flags)
        odd = marks.apply(engine, flat, firsts, some, packed_steps(record.channels))
        packed.count_odd(tally, wet.dtype, odd)
        yield dry, wet
        position = end


def rehearse(source: BinaryIO, record: Record, marks: Marks, engine: Engine) -> Edited:
    """What `edit` would do, but for encoding."""
    tally = Tally()
    signal = noise = 0.0
    with Reader(source, record.name) as reader:
        for dry, wet in marked(reader, record, marks, engine, tally):
            signal += energy(dry.reshape(-1))
            noise += edit_energy(dry.reshape(-1), wet.reshape(-1))
    return Edited(tally, signal, noise)


def examine(source: BinaryIO, name: str) -> None:
    """AudioFileError if a file cannot be decoded to its end."""
    with Reader(source, name) as reader:
        for _ in reader.blocks():
            pass


def tally_of(original: BinaryIO, record: Record, marks: Marks, engine: Engine) -> Tally:
    """What the report of an undo counts in a file."""
    tally = Tally()
    if marks.steady:
        tally.frames_changed = record.frames
        return tally
    with Reader(original, record.name) as reader:
        for _ in marked(reader, record, marks, engine, tally):
            pass
    tally.saturated_samples = 0
    return tally


def judge(now: BinaryIO, original: BinaryIO, record: Record, marks: Marks, engine: Engine) -> Verdict:
    """The verdict on a file; other bytes that decode to the marked samples count as protected."""
    is_original = _equal(now, original)
    with Reader(original, record.name) as reader:
        blocks = marked(reader, record, marks, engine, Tally())
        if is_original:
            return Verdict.of(original=True, protected=all(_same(dry, wet) for dry, wet in blocks))
        try:
            with Reader(now, "what is there now") as found:
                shape = (found.encoding.coding, found.encoding.frames, found.encoding.channels)
                same = shape == (record.coding, record.frames, record.channels)
                same = same and all(_same(found.read(len(wet)), wet) for _, wet in blocks)
        except AudioFileError:
            return Verdict.NEITHER
    return Verdict.of(original=False, protected=same)


def digest(file: BinaryIO) -> tuple[int, str]:
    """The size of an open file, and its SHA-256 in hex."""
    whole, size = hashlib.sha256(), 0
    file.seek(0)
    while part := file.read(BYTES_PER_COPY):
        whole.update(part)
        size += len(part)
    return size, whole.hexdigest()


def _refuse_lost(target: BinaryIO, encoding: Encoding, samples: bytes) -> None:
    """AudioFileError unless a new file decodes to the samples with a digest."""
    with Reader(target, "the new encoding") as reader:
        if _digest_of(reader.blocks()) != samples:
            raise AudioFileError(
                f"Encoding as FLAC/{encoding.coding} does not keep every sample; convert the file to WAV first."
            )


def _digest_of(blocks: Iterator[NDArray[Any]]) -> bytes:
    samples = hashlib.sha256()
    for block in blocks:
        samples.update(_bytes_of(block).data)
    return samples.digest()


def _equal(one: BinaryIO, other: BinaryIO) -> bool:
    """Whether two open files hold the same bytes."""
    one.seek(0)
    other.seek(0)
    while True:
        part, same = one.read(BYTES_PER_COPY), other.read(BYTES_PER_COPY)
        if part != same:
            return False
        if not part:
            return True


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two blocks have the same bits."""
    return one.shape == other.shape and bool(np.array_equal(_bytes_of(one), _bytes_of(other)))


def _bytes_of(block: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(block).reshape(-1).view(np.uint8)


def _patches(row: int, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> Patches:
    return Patches(np.zeros_like(starts), starts, sizes, np.full_like(starts, row))
