"""Making a protected copy of an array, which appears under its name once it is protected."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from poscuda_fast import disk
from poscuda_fast.arrays.zarr import is_zarr
from poscuda_fast.errors import BusyError, DatasetError, SidecarError
from poscuda_fast.key import Key
from poscuda_fast.undo import record
from poscuda_fast.undo.journal import SIDECAR, Journal, State, sidecar_of

_OURS = (f"{SIDECAR}*", f".*{disk.PART_SUFFIX}")


class ArrayCopy:
    """A copy that appears at `dst` once it is protected, so `dst` never holds originals.

    Until then it lies in a hidden folder beside `dst`, whose lock keeps a second run out from the start.
    """

    def __init__(self, src: Path, dst: Path, sidecar: Path | None) -> None:
        self._src = Path(os.path.realpath(src))  # its sidecar lies beside the file itself, not beside a link to it
        self.dst, self._is_zarr = dst, is_zarr(src)
        if not dst.name:
            raise DatasetError(f"dst is {str(dst)!r}; give the path of the new file or folder.")
        self._folder = disk.part_of(dst)
        self.part = self._folder / dst.name
        self.sidecar = sidecar or sidecar_of(dst, folder=self._is_zarr)
        self.sidecar_of_part = self.part / SIDECAR if self._is_zarr and sidecar is None else self.sidecar
        self._refuse()

    @property
    def is_whole(self) -> bool:
        """Whether an earlier call finished it."""
        return os.path.lexists(self.dst) and os.path.lexists(self.sidecar)

    def is_begun(self, key: Key) -> bool:
        """Whether everything was copied, and protecting the copy has begun: an earlier call was stopped there."""
        if not (os.path.lexists(self.part) and os.path.lexists(self.sidecar_of_part)):
            return False
        with Journal(self.sidecar_of_part, key) as journal:
            return journal.state in (State.APPLYING, State.COMPLETE)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the hidden folder; BusyError if another run holds it or has just ended."""
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir()
        if self._folder.is_symlink() or not self._folder.is_dir():
            raise DatasetError(f"{self._folder}, where the copy is made, is not a folder; move it away.")
        held = os.stat(self._folder).st_ino
        with disk.locked(self._folder):
            try:
                if os.path.lexists(self.dst) or os.stat(self._folder).st_ino != held:
                    raise BusyError(f"Another run was at work on {self.dst} just now; run the same command again.")
                yield
            finally:
                self.tidy()

    def tidy(self) -> None:
        """Remove the hidden folder, unless it holds a copy to go on with."""
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def refuse_marked(self, key: Key) -> None:
        """SidecarError if the source is protected already, or if the sidecar is of a copy that no longer exists."""
        record.refuse_protected(self._src, [sidecar_of(self._src, folder=self._is_zarr)], key)
        if os.path.lexists(self.sidecar_of_part):
            with Journal(self.sidecar_of_part, key) as journal:
                if journal.state not in (State.NEW, State.UNDONE):
                    raise SidecarError(
                        f"{journal.path} records a run over {self.dst} (state {journal.state.value}), which does not "
                        f"exist. Put it back or, for a new copy, move the sidecar away. Nothing was written."
                    )

    def begin(self) -> None:
        """Copy the unprotected array, durably."""
        disk.refuse_without_room(self.dst, sum(path.stat().st_size for path in self._files(self._src)))
        if self._is_zarr:
            for path in (self.part, disk.part_of(self.part)):
                if path.is_dir():
                    shutil.rmtree(path)
            ignored = shutil.ignore_patterns(*_OURS)
            shutil.copytree(self._src, disk.part_of(self.part), copy_function=_copy_file, ignore=ignored)
            os.replace(disk.part_of(self.part), self.part)
        else:
            disk.copy(self._src, self.part)
        disk.sync_files(self._folder, self._files(self.part))

    def finish(self) -> None:
        """Rename the protected copy to `dst`."""
        os.replace(self.part, self.dst)
        disk.sync_folder(self.dst.parent)

    def _files(self, path: Path) -> list[Path]:
        return [file for file in path.rglob("*") if file.is_file()] if self._is_zarr else [path]

    def _refuse(self) -> None:
        source, target = self._src, Path(os.path.realpath(self.dst))
        sidecar, hidden = Path(os.path.realpath(self.sidecar)), Path(os.path.realpath(self._folder))
        if source == target:
            raise DatasetError(f"{self.dst} is {self._src} itself; choose another path, or edit in place.")
        if hidden in source.parents:
            raise DatasetError(f"{source} is what a stopped call left of a copy; give the source of that copy instead.")
        if self.sidecar == self.sidecar_of_part and ({target, hidden} & {sidecar, *sidecar.parents}):
            raise DatasetError(f"The sidecar {self.sidecar} would be the copy or lie inside it; choose another path.")
        for path in (target, sidecar):
            if source in path.parents:
                raise DatasetError(f"{path} lies inside {self._src}; choose a path outside it for the copy.")
        if os.path.lexists(self.dst) and not self.is_whole:
            raise DatasetError(f"{self.dst} exists, and nothing is ever overwritten; choose another path for the copy.")
        for path in (target, sidecar):
            if not path.parent.is_dir() and path.parent != target:
                raise DatasetError(f"The folder of {path} does not exist; make it, or choose another path.")


def _copy_file(source: str, target: str) -> None:
    disk.copy_part(Path(source), Path(target))
