"""Where audio files are read and edited, and which files lie beside them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from poscuda_fast import disk
from poscuda_fast.disk import PathLike
from poscuda_fast.errors import DatasetError
from poscuda_fast.files import layouts, listing
from poscuda_fast.files.table import FileTable, Names
from poscuda_fast.results import Verdict
from poscuda_fast.undo.copies import refuse_sidecar
from poscuda_fast.undo.journal import MANIFEST, SIDECAR, beside, manifest_of, sidecar_of
from poscuda_fast.undo.manifest import Manifest, compare, digest


@dataclasses.dataclass(frozen=True, slots=True)
class Paths:
    """The folders where files are read (`source`) and edited (`root`), and the sidecar and manifests beside them.

    `only` and `output` are a single file's names in `source` and `root`; None for a folder.
    """

    source: Path
    root: Path
    sidecar: Path
    manifest: Path
    source_manifest: Path
    only: str | None
    output: str | None

    @property
    def copying(self) -> bool:
        """Whether a copy is edited, not the files themselves."""
        return (self.root, self.output) != (self.source, self.only)

    @property
    def data(self) -> Path:
        """The folder or file that is edited in place, or that the copy is made of."""
        return self.source if self.only is None else self.source / self.only

    @property
    def target(self) -> Path:
        """The folder or file that is edited: the data, or their copy."""
        return self.root if self.output is None else self.root / self.output

    @classmethod
    def of(cls, src: Path, dst: Path | None, sidecar: PathLike | None) -> Paths:
        """The paths for a folder or one file.

        DatasetError if it does not exist, or if it and `dst` are the same or one lies inside the other; SidecarError if
        the sidecar would be, or lie in, something that is read or written.
        """
        if not src.exists():
            raise DatasetError(f"{src} does not exist; give a folder of audio, or one audio file.")
        source = Path(os.path.realpath(src))
        if not source.is_dir() and (src.is_symlink() or not source.is_file()):
            raise DatasetError(f"{src} is not a regular file; give the file itself.")
        target = source if dst is None else _target_of(source, dst)
        if not (source.name and target.name):
            raise DatasetError(f"{src if not source.name else dst} is the root of all folders; give one inside it.")
        if dst is not None and target == source:
            raise DatasetError(f"{dst} is {src} itself; to edit in place, give dst=None.")
        if source.is_dir() and target != source and disk.overlap(source, target):
            raise DatasetError(f"One of {dst} and {src} lies inside the other; choose another path for the copy.")
        beside = sidecar_of(target) if sidecar is None else disk.in_full(sidecar)
        manifests = manifest_of(target), manifest_of(source)
        if sidecar is not None:
            refuse_sidecar(beside, source, target)
        if source.is_dir():
            return cls(source, target, beside, *manifests, None, None)
        return cls(source.parent, target.parent, beside, *manifests, source.name, target.name)

    def find(self, *, may_be_empty: bool = False, left_out: dict[str, str] | None = None) -> tuple[Names, Names]:
        """Names of audio files and of other files below the source; DatasetError if there is no audio.

        What cannot be used goes to `left_out` with the reason, or else is refused. If there `may_be_empty`, nothing is
        refused, and its names are among the others.
        """
        if self.only is not None:
            return Names([self.only]), Names()
        if may_be_empty:
            odd: dict[str, str] = {}
            names, others = listing.find_files(self.source, odd)
            return Names(sorted([*names, *listing.audio_among(odd)])) if odd else names, others
        names, others = listing.find_files(self.source, left_out)
        if not names:
            raise DatasetError(f"{self.source} has no audio files, by name or by content; give another folder.")
        return names, others

    def rename(self, found: FileTable) -> FileTable:
        """Give a single file's copy the name that the caller chose."""
        if self.output is None or not self.copying:
            return found
        suffix = PurePosixPath(found[0].output_name).suffix
        if suffix and PurePosixPath(self.output).suffix.lower() != suffix.lower():
            raise DatasetError(
                f"{self.output} should end in {PurePosixPath(found[0].output_name).suffix}, the format of the copy."
            )
        return FileTable([found[0]._replace(output_name=self.output)])

    def sidecars_around(self) -> list[Path]:
        """What is named like a sidecar of the source, of a folder around it, or of anything inside it."""
        return self._around(SIDECAR)

    def manifests_around(self) -> list[Path]:
        """The same of manifests."""
        return self._around(MANIFEST)

    def protected_files(self) -> Iterator[tuple[Path, str, list[Path]]]:
        """(manifest, fingerprint of its key, files that it says are protected) beside, around and inside the source.

        Only files of the source. Manifests of people who own neither the source nor this process tell nothing.
        DatasetError if a manifest is damaged.
        """
        known = {0, os.geteuid(), os.stat(self.data).st_uid} if hasattr(os, "geteuid") else set()
        for path in self.manifests_around():
            if not path.is_file() or (known and os.stat(path).st_uid not in known):
                continue
            described = path.with_name(path.name.removesuffix(MANIFEST))
            manifest = Manifest.read(path, None if described.is_dir() else described.name)
            root = described if described.is_dir() else path.parent
            here = ((root / name, entry) for name, entry in manifest.files.items())
            inside = ((file, entry) for file, entry in here if self.data in (file, *file.parents))
            done = [file for file, entry in inside if compare(digest(file), entry) is Verdict.PROTECTED]
            if done:
                yield path, manifest.fingerprint, done

    def refuse_protected(self) -> None:
        """DatasetError if a manifest says that files of the source are protected: they would be marked twice."""
        for manifest, fingerprint, files in self.protected_files():
            listing.refuse(
                [f"{file} is protected already" for file in files],
                f"{manifest} records a run with the key {fingerprint}; restore it first, with the sidecar if that was "
                f"moved",
            )

    def _around(self, ending: str) -> list[Path]:
        """What is named like the source, a folder around it or anything inside it, with an ending."""
        near = [beside(path, ending) for path in (self.data, *self.data.parents) if path.name]
        found = [path for path in near if os.path.lexists(path)]
        return found if self.only is not None else [*found, *listing.find_named(self.source, ending)]

    def refuse_taken(self) -> None:
        """DatasetError if something exists where the copy, its manifest or its sidecar would go."""
        if not self.copying:
            return
        is_free = self.output is None and self.target.is_dir() and not any(self.target.iterdir())
        taken = [] if is_free else [self.target]
        for path in (*taken, self.manifest, sidecar_of(self.target)):
            if os.path.lexists(path):
                raise DatasetError(f"{path} exists, and nothing is ever overwritten; choose another path for the copy.")


def _target_of(source: Path, dst: Path) -> Path:
    """Where a copy goes: a file that is copied to a folder goes into it."""
    target = Path(os.path.realpath(dst))
    if source.is_dir() or not target.is_dir():
        return target
    return target / (source.with_suffix(".flac") if source.suffix.lower() in layouts.LOSSY_SUFFIXES else source).name
