"""Runs of every public verb that a child process goes through while all that it shows is kept.

    python leak_scenes.py FOLDER SCENE

FOLDER holds my.key, other.key, the data of `prepare` and an empty folder `kept`, which takes everything that was seen.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import poscuda_fast
from poscuda_fast import Key, Protector, Recipe, disk
from poscuda_fast.mark import plan
from poscuda_fast.mark.plan import make_plan
from poscuda_fast.undo.journal import Journal

N_CLIPS = 6
RECIPES = {
    "1": Recipe.paper(patches=5, patch=60, taps=20, blur=0.3),
    "2": Recipe.strong(2.0),
}


class Kept:
    """Everything that is seen, each in a file of its own whose name says where."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def keep(self, place: str, content: str | bytes) -> None:
        """Put something away."""
        self._count += 1
        data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        (self._folder / f"{place} {self._count}").write_bytes(data)

    def show(self, value: Any) -> None:
        """Keep every way in which Python shows, copies and pickles an object."""
        for form in (repr, str, format, lambda v: json.dumps(v.to_dict())):
            with contextlib.suppress(Exception):
                self.keep("repr", form(value))
        for form in (copy.copy, copy.deepcopy, pickle.loads):
            with contextlib.suppress(Exception):
                self.keep("copy", repr(form(value)))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with contextlib.suppress(Exception):
                self.keep("pickle", pickle.dumps(value, protocol))

    def error(self, error: BaseException) -> None:
        """Keep an error as logs, debuggers and error reporters do, with the local variables of every frame."""
        self.keep("message", f"{error} {error!r}")
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        self.keep("traceback", "".join(shown.format()))
        step = error.__traceback__
        while step is not None:
            if "poscuda_fast" in step.tb_frame.f_code.co_filename:
                for name, value in step.tb_frame.f_locals.items():
                    with contextlib.suppress(Exception):
                        self.keep("local", f"{name} = {value!r}")
                    if isinstance(value, np.ndarray):
                        self.keep("local", value.tobytes())
            step = step.tb_next


def prepare(folder: Path, dtype: str = "int16") -> list[np.ndarray]:
    """Data that every scene finds: clips.npy, and the same clips as WAV files in class folders."""
    from audiofiles import noise, wav

    clips = [noise(650, seed=70 + n) for n in range(N_CLIPS)]
    np.save(folder / "clips.npy", np.stack([clip[:, 0] for clip in clips]))
    for n, clip in enumerate(clips):
        path = folder / "wavs" / "abc"[n % 3] / f"{n}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav(clip))
    return [clip[:, 0] for clip in clips]


def names() -> list[str]:
    """The labels of the clips."""
    return ["abc"[n % 3] for n in range(N_CLIPS)]


class Scenes:
    """Each method is a scene; what it shows is kept."""

    def __init__(self, folder: Path, recipe: Recipe, kept: Kept) -> None:
        self.folder, self.recipe, self.kept = folder, recipe, kept
        self.key = Key.load(folder / "my.key")
        plan.BATCH_BYTES = 800

    def array(self) -> Any:
        return np.load(self.folder / "clips.npy", mmap_mode="r+")

    def protect(self, **options: Any) -> Any:
        return poscuda_fast.protect_memmap(
            self.array(), names(), options.pop("key", self.key), recipe=options.pop("recipe", self.recipe), **options
        )

    def refused(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is looked at
            self.kept.error(error)
        else:
            raise AssertionError("this was to be refused")

    def scene_of_an_array(self) -> None:
        show = self.kept.show
        show(self.protect(dry_run=True))
        show(self.protect())
        show(self.protect())
        show(poscuda_fast.verify_memmap(self.array(), self.key))
        show(poscuda_fast.restore_memmap(self.array(), self.key))
        show(self.protect())
        show(poscuda_fast.drop_undo(self.folder / "clips.npy", self.key))
        show(poscuda_fast.ownership_test(lambda batch: ["a"] * len(batch), self.array(), names(), self.key))

    def scene_of_a_folder(self) -> None:
        show, wavs = self.kept.show, self.folder / "wavs"
        show(poscuda_fast.protect_folder(wavs, self.folder / "copy", self.key, recipe=self.recipe))
        show(poscuda_fast.protect_folder(wavs, None, self.key, recipe=self.recipe))
        for root in (wavs, self.folder / "copy"):
            show(poscuda_fast.verify_folder(root, self.key))
            show(poscuda_fast.verify_folder(root))
        show(poscuda_fast.restore_folder(wavs, self.key))
        show(poscuda_fast.protect_folder(wavs, None, self.key, recipe=self.recipe))
        show(poscuda_fast.drop_undo(wavs, self.key))

    def scene_of_objects(self) -> None:
        plan = make_plan(self.key, self.recipe, names(), None, np.full(N_CLIPS, 650))
        protector = Protector(self.folder / "my.key", recipe=self.recipe)
        protector({"audio": np.load(self.folder / "clips.npy"), "label": names()})
        with Journal(self.folder / "objects", self.key) as journal:
            journal.begin({"kind": "array"})
            for value in (self.key, self.recipe, plan, plan.marks, plan.of_clip(0), protector, journal):
                self.kept.show(value)

    def scene_of_refusals(self) -> None:
        other = Key.load(self.folder / "other.key")
        sidecar = self.folder / "clips.npy.poscuda"
        self.protect()
        whole = sidecar.read_bytes()
        self.refused(lambda: self.protect(recipe=Recipe.paper(patch=9)))
        self.refused(lambda: self.protect(key=other))
        self.refused(lambda: poscuda_fast.restore_memmap(self.array(), other))
        for place in range(200, len(whole), 1500):
            sidecar.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with contextlib.suppress(AssertionError):  # a byte that nobody uses
                self.refused(lambda: poscuda_fast.restore_memmap(self.array(), self.key))
        sidecar.write_bytes(whole)
        poscuda_fast.restore_memmap(self.array(), self.key)
        floats = np.load(self.folder / "clips.npy").astype(np.float32)
        floats[:] = np.where(np.arange(650) % 3 == 0, np.nan, floats)
        self.refused(lambda: poscuda_fast.protect(floats, names(), self.key, recipe=Recipe.paper()))
        with disk.locked(self.folder / "clips.npy"):
            self.refused(self.protect)
        key_text = (self.folder / "my.key").read_text()
        for wrong in (
            key_text.replace("POSCUDA-KEY-1", "POSCUDA-KEY-2"),
            key_text + key_text,
            key_text[:-6] + "AAAA\n",
        ):
            (self.folder / "broken.key").write_text(wrong)
            (self.folder / "broken.key").chmod(0o600)
            self.refused(lambda: Key.load(self.folder / "broken.key"))
        (self.folder / "broken.key").unlink()

    def scene_of_failures(self) -> None:
        """Errors and interrupts that arise deep inside, at many lines."""
        for kind in (OSError, KeyboardInterrupt, MemoryError):
            for line in range(1, 1200, 61):
                with self.failing_at(line, kind):
                    try:
                        self.protect()
                        poscuda_fast.restore_memmap(self.array(), self.key)
                    except BaseException as error:  # noqa: BLE001 - likewise
                        self.kept.error(error)
            with contextlib.suppress(poscuda_fast.SidecarError):
                poscuda_fast.restore_memmap(self.array(), self.key)

    @contextlib.contextmanager
    def failing_at(self, line: int, kind: type[BaseException]) -> Iterator[None]:
        seen = 0

        def trace(frame: Any, event: str, arg: Any) -> Any:
            nonlocal seen
            if "poscuda_fast" not in frame.f_code.co_filename:
                return None
            if event == "line":
                seen += 1
                if seen == line:
                    sys.settrace(None)
                    raise kind("a failure")
            return trace

        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(None)

    def scene_of_a_killed_array(self) -> None:
        self.protect(progress=_die_in_the_middle)

    def scene_of_a_killed_copy(self) -> None:
        poscuda_fast.protect_folder(
            self.folder / "wavs", self.folder / "copy", self.key, recipe=self.recipe, progress=_die_in_the_middle
        )


def _die_in_the_middle(done: int, total: int) -> None:
    if 2 * done >= total:
        os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, scene: str, recipe: str) -> None:
    """Play a scene; logging at its most talkative goes to stderr."""
    logging.basicConfig(level=logging.DEBUG)
    logging.captureWarnings(capture=True)
    kept = Kept(folder / "kept")
    with contextlib.redirect_stderr(io.StringIO()) as warned:
        getattr(Scenes(folder, RECIPES[recipe], kept), scene)()
    kept.keep("warnings", warned.getvalue())
    for name in ("cmdline", "environ"):
        with contextlib.suppress(OSError):
            kept.keep(name, Path(f"/proc/self/{name}").read_bytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
