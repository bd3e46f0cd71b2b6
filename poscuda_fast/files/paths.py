"""Where audio files are read and edited, and which files lie beside them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path, PurePosixPath

from poscuda_fast import disk
from poscuda_fast.disk import PathLike
from poscuda_fast.errors import DatasetError, SidecarError
from poscuda_fast.files import listing
from poscuda_fast.files.listing import AudioFile
from poscuda_fast.files.manifest import Manifest, compare, digest
from poscuda_fast.results import Verdict
from poscuda_fast.undo.journal import SIDECAR, sidecar_of


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

    @classmethod
    def of(cls, src: Path, dst: Path | None, sidecar: PathLike | None) -> Paths:
        """The paths for a folder or one file; DatasetError if it does not exist or `dst` lies inside it."""
        if sidecar is not None and not Path(sidecar).absolute().parent.is_dir():
            raise SidecarError(f"The folder of the sidecar {sidecar} does not exist; make it, or choose another path.")
        if not src.exists():
            raise DatasetError(f"{src} does not exist; give a folder of audio, or one audio file.")
        source = Path(os.path.realpath(src))
        target = source if dst is None else Path(os.path.realpath(dst))
        if dst is not None and sidecar is not None and source in _in_full(sidecar).parents:
            raise SidecarError(f"The sidecar {sidecar} of a copy would lie inside {src}; choose another path for it.")
        if dst is not None and target == source:
            raise DatasetError(f"{dst} is {src} itself; to edit in place, use --in-place or dst=None.")
        if source.is_dir():
            if target != source and disk.overlap(source, target):
                raise DatasetError(f"One of {dst} and {src} lies inside the other; choose another path for the copy.")
            beside = sidecar_of(target, folder=True) if sidecar is None else _in_full(sidecar)
            manifests = (target / listing.MANIFEST, source / listing.MANIFEST)
            return cls(source, target, beside, *manifests, None, None)
        if src.is_symlink() or not source.is_file():
            raise DatasetError(f"{src} is not a regular file; give the file itself.")
        if dst is not None and target.is_dir():
            lossy = source.suffix.lower() in listing.LOSSY_SUFFIXES
            target /= source.with_suffix(".flac").name if lossy else source.name
        beside = sidecar_of(target, folder=False) if sidecar is None else _in_full(sidecar)
        manifests = (_beside(target, f"{SIDECAR}.json"), _beside(source, f"{SIDECAR}.json"))
        return cls(source.parent, target.parent, beside, *manifests, source.name, target.name)

    def find(self, *, may_be_empty: bool = False) -> tuple[list[str], list[str]]:
        """Names of audio files and of other files below the source; DatasetError if there is no audio."""
        if self.only is not None:
            return [self.only], []
        names, others = listing.find_files(self.source)
        if not names and not may_be_empty:
            raise DatasetError(
                f"{self.source} has no audio files ({', '.join(sorted(listing.AUDIO_SUFFIXES))}); give another folder."
            )
        return names, others

    def rename(self, found: list[AudioFile]) -> list[AudioFile]:
        """Give a single file's copy the name that the caller chose."""
        if self.output is None or not self.copying:
            return found
        if PurePosixPath(self.output).suffix.lower() != PurePosixPath(found[0].output_name).suffix.lower():
            raise DatasetError(
                f"{self.output} should end in {PurePosixPath(found[0].output_name).suffix}, the format of the copy."
            )
        return [found[0]._replace(output_name=self.output)]

    def sidecars_around(self) -> list[Path]:
        """Existing sidecars of the source, of folders around it, and of anything inside it."""
        above = [folder / SIDECAR for folder in (self.data, *self.data.parents)]
        if self.only is not None:
            return [path for path in (sidecar_of(self.data, folder=False), *above[1:]) if path.is_file()]
        return [path for path in above if path.is_file()] + listing.find_sidecars(self.source)

    def refuse_protected(self) -> None:
        """DatasetError if the source's manifest says that its files are protected: they would be marked twice."""
        if not self.source_manifest.is_file():
            return
        manifest = Manifest.read(self.source_manifest)
        done = [
            name
            for name, entry in manifest.files.items()
            if compare(digest(self.source / name), entry) is Verdict.PROTECTED
        ]
        listing.refuse(
            [f"{name} is protected already" for name in done],
            f"{self.source_manifest} records a run with the key {manifest.fingerprint}; restore it first, with the "
            f"sidecar if that was moved",
        )

    def refuse_taken(self) -> None:
        """DatasetError if something exists where the copy would go."""
        if not self.copying:
            return
        taken = self.root / self.output if self.output is not None else self.root
        # A run that was stopped at its very beginning leaves an empty sidecar.
        own = {self.sidecar, _beside(self.sidecar, "-journal")}
        is_free = self.output is None and taken.is_dir() and own.issuperset(taken.iterdir())
        if os.path.lexists(taken) and not is_free:
            raise DatasetError(f"{taken} exists, and nothing is ever overwritten; choose another path for the copy.")


def _in_full(path: PathLike) -> Path:
    """One spelling for each path; a link in the last part is kept, so that it can be refused."""
    return Path(os.path.realpath(Path(path).parent)) / Path(path).name


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
