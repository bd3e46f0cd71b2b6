"""Tar shards of samples, as in WebDataset: reads them strictly, and writes copies that keep all members.

tarfile takes a damaged header, a truncated file or a second tar file behind the first as the end; here they are errors.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from poscuda_fast.errors import DatasetError
from poscuda_fast.files import kinds
from poscuda_fast.files.layouts import begins_as_sound, has_name_of_audio

_GZIP = b"\x1f\x8b"
_GZIP_LEVEL = 6  # the gzip command's
_READ_BYTES = 1 << 20
_KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")  # (key, extension) of a name, as the webdataset library reads it
_META = re.compile(r"__[^/]*__(/|$)")  # what that library skips
# What tarfile and gzip raise for a damaged file, and for headers with impossible numbers.
_BROKEN = (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, OverflowError, RecursionError)
# tarfile writes these from the name and size; values that were read would override the new ones.
_OF_TARFILE = {"hdrcharset", "path", "size"}


class Member(NamedTuple):
    """One file of a tar file."""

    info: tarfile.TarInfo
    content: bytes

    @property
    def key(self) -> str | None:
        """The name up to the first dot of its last part; None if it belongs to no sample, and only lies among them."""
        match = self._parts()
        return match and match[1]

    @property
    def extension(self) -> str:
        """What follows the first dot of the name's last part, in lower case."""
        match = self._parts()
        return match[2].lower() if match else ""

    @property
    def is_audio(self) -> bool:
        """Whether it belongs to a sample, and has the name of an audio file or content that is known to be sound."""
        return self.key is not None and (has_name_of_audio(self.info.name) or self.holds_sound)

    @property
    def holds_sound(self) -> bool:
        """Whether its content is known to be sound."""
        return begins_as_sound(self.content, PurePosixPath(self.info.name).name)

    def _parts(self) -> re.Match[str] | None:
        name = self.info.name
        if not self.info.isreg() or PurePosixPath(name).name.startswith(".") or _META.match(name):
            return None
        return _KEY.fullmatch(name)


class Group(NamedTuple):
    """One sample: consecutive members with the same key, and those among them that belong to no sample."""

    key: str | None  # None if there is no sample after all
    members: list[Member]

    def rename(self, info: tarfile.TarInfo, suffix: str) -> None:
        """Give one of the members another suffix; DatasetError if another member has that name."""
        old = PurePosixPath(info.name).suffix
        if suffix == old:
            return
        name = info.name.removesuffix(old) + suffix
        if any(member.info.name == name for member in self.members):
            raise DatasetError(f"{info.name} would be named {name} as FLAC, but that name is taken; rename one.")
        info.name = name


@contextlib.contextmanager
def _naming(shard: Path) -> Iterator[None]:
    """Turn errors in a shard that is read into a DatasetError that names it."""
    try:
        yield
    except _BROKEN as error:
        raise DatasetError(
            f"{shard} is not a whole tar file, plain or compressed with gzip ({error}); make it again from its source."
        ) from None
    except DatasetError as error:
        raise DatasetError(f"{shard}: {error} No copy of it was made.") from None


@contextlib.contextmanager
def reading(shard: Path) -> Iterator[tuple[IO[bytes], tarfile.TarFile]]:
    """Open a shard: its uncompressed bytes and the tar file in them; a DatasetError names a damaged shard."""
    with (
        _naming(shard),
        _uncompressed(shard) as source,
        tarfile.open(fileobj=source, mode="r:", tarinfo=_Header) as read,
    ):
        yield source, read


@contextlib.contextmanager
def _uncompressed(shard: Path) -> Iterator[Any]:
    with open(shard, "rb") as raw:
        head = raw.peek(kinds.HEAD_BYTES)
        if not head.startswith(_GZIP):
            if (packing := kinds.packed_in(head)) is not None:
                raise DatasetError(f"It is compressed by {packing}; give tar files that are plain or gzip.")
            yield raw
            return
        with gzip.open(raw) as source:
            yield source


@contextlib.contextmanager
def writing(file: Any, source: IO[bytes], read: tarfile.TarFile) -> Iterator[tarfile.TarFile]:
    """Open a tar file in `file` for writing, with the compression and global headers of the one that is read.

    Equal members give equal bytes.
    """
    headers = kept(read.pax_headers, {})
    with contextlib.ExitStack() as stack:
        out = file
        if isinstance(source, gzip.GzipFile):
            out = stack.enter_context(gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0))
        yield stack.enter_context(tarfile.open(fileobj=out, mode="w:", format=tarfile.PAX_FORMAT, pax_headers=headers))


class _Header(tarfile.TarInfo):
    """A member's header; a damaged one is always an error, never taken for the end of the file."""

    __slots__ = ()

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except (tarfile.HeaderError, ValueError) as error:
            raise tarfile.ReadError(str(error)) from None


def groups(read: tarfile.TarFile) -> Iterator[Group]:
    """The samples of a tar file in order, with all their members."""
    group: Group | None = None
    for info in read:
        member = _read(read, info)
        if group is None:
            group = Group(member.key, [])
        elif member.key is not None and group.key is None:
            group = group._replace(key=member.key)
        elif member.key not in (None, group.key):
            yield group
            group = Group(member.key, [])
        group.members.append(member)
    if group is not None:
        yield group


def _read(read: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    """Read a member with its content; a sparse file becomes a regular one."""
    if info.type not in tarfile.SUPPORTED_TYPES:
        raise DatasetError(f"{info.name} is a member of the unknown type {info.type!r}; pack the shard without it.")
    if not math.isfinite(info.mtime):
        raise DatasetError(f"{info.name} has the time {info.mtime}, which cannot be written; pack the shard again.")
    file = read.extractfile(info) if info.isreg() else None
    member = Member(info, file.read() if file is not None else b"")
    if info.issparse():
        info.type, info.size = tarfile.REGTYPE, len(member.content)
        info.name = _name(info)
    if not info.isreg() and not info.isdir() and has_name_of_audio(info.name):
        raise DatasetError(f"{info.name} is a link or another member that is not a file; pack the audio itself.")
    return member


def outline(shard: Path) -> Iterator[tuple[str, int, float, int]]:
    """What protecting leaves unchanged in each member's header: (name, mode, time, size)."""
    with reading(shard) as (_, read):
        for info in read:
            name, size = _name(info), info.size
            file = read.extractfile(info) if info.isreg() else None
            if Member(info, file.read(kinds.HEAD_BYTES) if file is not None else b"").is_audio:
                name, size = str(PurePosixPath(name).with_suffix("")), 0
            yield name, info.mode, info.mtime, size


def _name(info: tarfile.TarInfo) -> str:
    """A member's name, which a sparse file may keep in a pax header."""
    return info.pax_headers.get("GNU.sparse.name", info.name)


def kept(headers: Mapping[str, str], common: Mapping[str, str]) -> dict[str, str]:
    """A member's pax headers to write, without those of its old form and those that are `common` to all members."""
    return {
        name: text
        for name, text in headers.items()
        if name not in _OF_TARFILE and not name.startswith("GNU.sparse.") and common.get(name) != text
    }


def refuse_rest(source: IO[bytes]) -> None:
    """ReadError if anything but zeros follows the end of a tar file; reads gzip to its end, so its checksum counts."""
    while rest := source.read(_READ_BYTES):
        if rest.count(0) != len(rest):
            raise tarfile.ReadError("more data follow its end, as in concatenated tar files")
