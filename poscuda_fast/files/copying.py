"""Protecting a copy of a folder of audio files, or of one file: the source is never written to, and is the undo.

The copy holds what may be published and nothing else. Its manifest and its sealed sidecar lie beside it.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from blake3 import blake3

from poscuda_fast import attributes, disk
from poscuda_fast.disk import PathLike, Workers
from poscuda_fast.errors import DatasetError, SidecarError, stopping
from poscuda_fast.files import encoded, layouts, listing, looking
from poscuda_fast.files.below import Below
from poscuda_fast.files.containers import Uncompressed
from poscuda_fast.files.encoded import Encoding
from poscuda_fast.files.gathering import gather
from poscuda_fast.files.making import Made, Maker, Source
from poscuda_fast.files.paths import Paths
from poscuda_fast.files.table import AudioFile, FileTable, is_lossy
from poscuda_fast.kernels import Engine, usable_cores
from poscuda_fast.key import Key
from poscuda_fast.mark.codings import little
from poscuda_fast.mark.judging import judged
from poscuda_fast.mark.labels import token_of
from poscuda_fast.mark.plan import Plan, make_plan
from poscuda_fast.mark.shares import of_names
from poscuda_fast.recipe import Recipe
from poscuda_fast.results import Progress, Ratios, Report, Settings, Tally, Verdict, Verification
from poscuda_fast.text import noun
from poscuda_fast.undo import copies, manifest, record
from poscuda_fast.undo.copies import FILES, Output
from poscuda_fast.undo.journal import Journal, State
from poscuda_fast.undo.manifest import Manifest, compare

FILES_PER_RECORD = 4096  # that are synced and recorded together
BYTES_PER_RECORD = 1 << 29
BYTES_PER_FILE = 8192  # about what a small file takes beside its content: half a block, its name, two records
MOST_PATH = 4095  # bytes that Linux takes


def copy_folder(
    paths: Paths,
    key: Key,
    recipe: Recipe,
    *,
    snr: float | None = None,
    labels_from: str | Mapping[str, str | int] = "folder",
    lossy: str = "refuse",
    backend: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    dry_run: bool = False,
    partial: bool = False,
    skip_unusable: bool = False,
    share: int | None = None,
) -> Report:
    """Protect a copy of `paths.source` at `paths.target`, or go on with one: a run that was stopped, or new files.

    The arguments are those of `protect_folder`, checked: `recipe` is the one to use, `snr` is None or possible, and
    `share` is in millionths, or None.

    Returns
    -------
    Report
        With state "protected", "already protected" or "untouched" (dry run); with `partial`, `left_out` names the files
        that could not be used.

    Raises
    ------
    DatasetError, AudioFileError, SidecarError, BusyError, ValueError, OSError
        As for `protect_folder`. `errors.has_stopped` tells those that stopped a run which had begun: the same call goes
        on with it. All others were raised before anything was written.
    """
    begun = time.perf_counter()
    Engine(backend, threads)  # refuses an impossible number
    with (
        disk.locked(paths.data, shared=True),
        Journal(paths.sidecar, key) as journal,
        Workers(threads or usable_cores()) as workers,
    ):
        copies.refuse_other(journal, FILES, paths.target)
        run = _Run(paths, journal, recipe, snr, workers, progress, Engine(backend, 1), partial=partial, share=share)
        run.collect(labels_from, lossy, skip_unusable=skip_unusable)
        state = run.execute(dry_run=dry_run)
        seconds = time.perf_counter() - begun
        return run.tally.report(
            state, run.settings(), seconds, run.notes(state), run.left_out(), run.unprotected, run.ratios
        )


class _Run:
    """One call."""

    plan: Plan

    def __init__(
        self,
        paths: Paths,
        journal: Journal,
        recipe: Recipe,
        snr: float | None,
        workers: Workers,
        progress: Progress | None,
        engine: Engine,
        *,
        partial: bool,
        share: int | None,
    ) -> None:
        self._share = share
        self._paths, self._journal, self._key = paths, journal, journal.key
        self._recipe, self._snr = recipe, snr
        self._workers, self._progress, self._engine = workers, progress, engine
        self._partial, self._process = partial, os.getpid()
        self._is_new = journal.state is State.NEW
        self._sources: list[Source] = []  # audio files, then all others
        self._n_audio = 0
        self._left_out: dict[str, str] = {}  # a line for each
        self._lost: collections.Counter[str] = collections.Counter()
        self._recorded = copies.read(journal, paths.output)
        self._notes: tuple[str, ...] = tuple(journal.header.get("notes", ()))
        self._n_done = 0
        self._is_wider = self._is_new and paths.output is None and _is_wider(paths.root, paths.source)
        self.tally = Tally()
        self._mended: list[int] = []  # sources that were left unprotected, and can be marked now
        self.unprotected: tuple[str, ...] = ()
        self.ratios = Ratios()

    def collect(self, labels_from: str | Mapping[str, str | int], lossy: str, *, skip_unusable: bool) -> None:
        """List the sources with their labels, and plan; DatasetError if a file cannot be used."""
        gathered = gather(
            self._paths,
            labels_from,
            self._recipe,
            lossy=lossy,
            known=self._is_marked,
            partial=self._partial,
            skip_unusable=skip_unusable,
            mapped=self._workers.map,
        )
        self._left_out, self.unprotected = gathered.left_out, tuple(gathered.unprotected.values())
        found = self._paths.rename(gathered.files)
        _refuse_collisions(found, gathered.others)
        self._sources = [
            Source(file.name, file.output_name, file, label) for file, label in zip(found, gathered.labels, strict=True)
        ]
        self._n_audio = len(found)
        self._sources += [Source(name, name) for name in gathered.others]
        self.plan = self._planned(range(self._n_audio), self._recipe)

    def _is_marked(self, name: str) -> bool:
        """Whether an output is recorded that was marked."""
        output = self._recorded.outputs.get(name)
        return output is not None and output.label is not None

    def execute(self, *, dry_run: bool) -> str:
        """Do what is to be done; returns the state for the report."""
        self._refuse_unsafe()
        if self._is_new:
            again: list[int] = []
            new = list(range(len(self._sources)))
            self._paths.refuse_taken()
            self._paths.refuse_protected()
        else:
            copies.refuse_other_recipe(self._journal, self._recipe, self._snr, self._share)
            again, new = self._compare()
        new = self._examined(new)
        self._judge(new)
        is_done = self._journal.state is State.COMPLETE and not again and not new and not self._moved()
        if not is_done:
            self._refuse_place([*again, *new])
        if dry_run and not is_done:
            self._rehearse(new)
            return "untouched"
        if not is_done:
            self._journal.refuse_read_only()
            with stopping():
                self._make_all(again, new)
        self.tally = Tally(**self._journal.summary["counts"])
        return "already protected" if is_done else "protected"

    def settings(self) -> Settings:
        """What the report says of the run."""
        if self._journal.state is State.NEW:
            return self.plan.settings()
        return record.settings_of(self._journal)._replace(class_sizes=self.plan.labels.sizes())

    def notes(self, state: str) -> tuple[str, ...]:
        """The notes of the report."""
        found = attributes.notes(self._lost)
        if self._is_wider:
            found.append(
                f"{self._paths.target} was there before, and more people may look into it than into its source"
            )
        if self._paths.only is None:
            found += listing.notes_on_hidden(self._paths.source, copying=True)
            others = (one.name for one in self._sources if one.file is None)
            found += listing.notes_on_others(self._paths.source, others)
        if self.unprotected:
            n = len(self.unprotected)
            files = noun(n, "audio file that is", "audio files that are")
            found.append(f"{self._paths.target} holds {n:,} {files} not protected")
        elif state != "untouched":
            found.append(copies.note_of(self._paths.data, self._paths.target))
        return (*self._notes, *found)

    def left_out(self) -> tuple[str, ...]:
        """What the report says of files that were left out."""
        return tuple(line for _, line in sorted(self._left_out.items()))

    def _planned(self, numbers: Sequence[int], recipe: Recipe) -> Plan:
        """The plan for some audio files."""
        chosen = [self._sources[number] for number in numbers]
        files = [one.file for one in chosen if one.file is not None]
        return make_plan(
            self._key,
            recipe,
            [one.label for one in chosen],
            None,
            np.array([file.frames for file in files], np.int64),
            np.array([file.layout.sample_rate for file in files], np.int64),
            of_names(self._key, self._share, [one.name for one in chosen]),
        )

    @contextlib.contextmanager
    def _making(self, root: Path | None = None) -> Iterator[Maker]:
        """What makes outputs below `root`, or writes nothing."""
        run = self._journal.header.get("run", "")
        maker = Maker(self._paths.source, root, self._sources, self.plan, self._engine, run, partial=self._partial)
        maker.going_on = not self._is_new
        try:
            yield maker
        except BaseException:
            self._workers.close()  # before folders are closed that its threads use
            raise
        finally:
            maker.close()

    def _moved(self) -> bool:
        """Whether the source lies elsewhere than when the copy was recorded."""
        return copies.source_of(self._journal) != self._paths.data

    def _compare(self) -> tuple[list[int], list[int]]:
        """Compare what is recorded with what is there.

        Returns the sources of outputs that are missing, and those of which nothing is recorded, or that were left
        unprotected and can be marked now. SidecarError that lists sources and outputs that were changed since; with
        `partial` they are left out instead.
        """
        number_of = {one.output_name: n for n, one in enumerate(self._sources)}
        recorded = self._recorded.outputs
        problems, again = dict[str, str](), list[int]()
        known = [output for name, output in recorded.items() if name in number_of]
        for output in recorded.values():
            is_gone = output.label is None and not os.path.lexists(self._paths.root / output.name)
            if output.name not in number_of and output.source not in self._left_out and not is_gone:
                problems[output.source] = self._reason_gone(output)
        for output, (before, after) in zip(known, self._workers.map(self._digests, known), strict=True):
            number = number_of[output.name]
            label = self._sources[number].label
            if label is not None and output.label is None and after in (None, output.blake3_after):
                self._mended.append(number)
            elif label != output.label or type(label) is not type(output.label):
                problems[output.source] = (
                    f"{output.source}: it was copied with the label {output.label!r}, and now has {label!r}"
                )
            elif before != output.blake3_before:
                problems[output.source] = f"{output.source}: it was changed since it was copied; put it back"
            elif after is None:
                again.append(number)
            elif after != output.blake3_after:
                problems[output.source] = (
                    f"{output.source}: its copy {output.name} was changed; move that away, or put it back"
                )
        if problems and not self._partial:
            listed = copies.shown([line for _, line in sorted(problems.items())])
            raise SidecarError(
                f"{len(problems):,} files are not as {self._journal.path} recorded them. Put them right, leave them as "
                f"they are (partial=True), or copy to another path. Nothing was written:{listed}"
            )
        self._left_out.update(problems)
        new = [n for n, one in enumerate(self._sources) if one.output_name not in recorded]
        new = sorted([*new, *self._mended])
        return again, new

    def _reason_gone(self, output: Output) -> str:
        """Why a recorded output has no source now."""
        if (self._paths.source / output.source).is_file():
            return f"{output.source}: it was copied as {output.name}, which takes lossy='flac'; give that again"
        return f"{output.source}: its copy is recorded, and it is gone from the source; put it back"

    def _digests(self, output: Output) -> tuple[str | None, str | None]:
        return _digest_at(self._paths.source, output.source), _digest_at(self._paths.root, output.name)

    def _refuse_unsafe(self) -> None:
        """Refuse sources that are protected already."""
        sidecars = [path for path in self._paths.sidecars_around() if path != self._journal.path]
        record.refuse_protected(self._paths.data, sidecars, self._key)

    def _refuse_place(self, numbers: Sequence[int]) -> None:
        """Refuse names, rights and disks with which making some outputs would fail."""
        root, target = self._paths.root, self._paths.target
        copies.refuse_place(target, self._paths.sidecar, is_folder=self._paths.output is None)
        most = record.longest_name(root)
        problems = []
        for one in (self._sources[number] for number in numbers):
            path = os.fsencode(f"{root}/{one.output_name}")
            longest = max(map(len, path.split(b"/")))
            if longest > most:
                problems.append(f"{one.output_name} has a name of {longest} bytes, and there it may have {most}")
            elif len(path) > MOST_PATH:
                problems.append(f"{one.output_name} would have a path of {len(path)} bytes, of at most {MOST_PATH}")
            elif one.file is None and not os.access(self._paths.source / one.name, os.R_OK):
                problems.append(f"you may not read {one.name}; change its permissions, or move it away")
        listing.refuse(problems, f"{target} cannot be written")
        sizes = [self._size_of(self._sources[number]) for number in numbers]
        disk.refuse_without_room(root, sum(sizes) + BYTES_PER_FILE * len(sizes), len(sizes))
        disk.refuse_without_room(self._paths.sidecar, BYTES_PER_FILE // 8 * len(self._sources))

    def _mode_of(self, one: Source) -> int:
        """The mode of a source; that of nobody else's file if it is gone meanwhile."""
        if one.file is not None:
            return disk.mode_of(one.file.stamp)
        try:
            return os.stat(self._paths.source / one.name).st_mode
        except OSError:
            return 0

    def _size_of(self, one: Source) -> int:
        if one.file is None:
            return os.stat(self._paths.source / one.name).st_size
        return 2 * one.file.frames * one.file.layout.channels if one.file.lossy else one.file.size

    def _examined(self, numbers: list[int]) -> list[int]:
        """Refuse, or leave out, what format 1 cannot filter, since it is not finite."""
        doubtful = [number for number in numbers if self._is_doubtful(self._sources[number].file)]
        if not doubtful:
            return numbers
        with self._making() as maker:
            for made in self._workers.map(maker.examine, doubtful):
                self._left_out.update(made.left_out)
        return [number for number in numbers if self._sources[number].name not in self._left_out]

    def _is_doubtful(self, file: AudioFile | None) -> bool:
        if file is None:
            return False
        return not self.plan.marks.steady and little(file.coding) == "FLOAT"

    def _judge(self, new: Sequence[int]) -> None:
        """Look at some of the new files: refuse what would not protect, and take the strength that an SNR asks for."""
        chosen = [number for number in new if number < self._n_audio]
        recipe = self._recipe if self._is_new else copies.recipe_of(self._journal)
        is_known = (
            not self._is_new
            and record.keyed_mac(self._key, b"labels", self.plan.digest()) == self._journal.header["labels"]
        )
        if chosen and not is_known:
            files = [file for number in chosen if (file := self._sources[number].file) is not None]
            plan, notes = judged(
                self._planned(chosen, recipe),
                self._key,
                self._snr if self._is_new else None,
                functools.partial(looking.look, self._paths.source, files, engine=self._engine),
                names=[self._sources[number].name for number in chosen],
            )
            recipe = plan.recipe
            if not self._is_new:
                notes = tuple(f"{len(chosen):,} new files: {note}" for note in notes)
            self._notes = (*self._notes, *notes)
        if recipe != self.plan.recipe:
            self.plan = self.plan.with_recipe(self._key, recipe)

    def _made(self, maker: Maker, numbers: Sequence[int]) -> Iterator[Made]:
        """Make some outputs; uncompressed files in this thread alone: threads would share little of their cost."""
        files = (self._sources[number].file for number in numbers)
        alone = not any(file is not None and isinstance(file.layout, Encoding) for file in files)
        return (map if alone else self._workers.map)(maker.make, maker.chunks(numbers))

    def _rehearse(self, new: Sequence[int]) -> None:
        """Count what making outputs would do, without writing anything."""
        with self._making() as maker:
            for made in self._made(maker, new):
                self.tally.add(made.tally)
                self._lost.update(made.lost)
                self._take_ratios(made.outputs)
                self._advance(made.outputs, sum(number < self._n_audio for number in new))
        self.tally.add(self._recorded.tally)
        self._count_clips(self._n_audio)

    def _make_all(self, again: list[int], new: list[int]) -> None:
        """Begin the run or go on with it, and make all outputs."""
        header = self._header()
        if self._is_new:
            self._paths.target.parent.mkdir(parents=True, exist_ok=True)
            self._journal.begin(header)
        elif self._journal.state is State.COMPLETE or header["labels"] != self._journal.header["labels"]:
            copies.go_on(self._journal, header)
        if self._paths.output is None:
            self._make_folders([*again, *new])
        with contextlib.ExitStack() as closing:
            if self._paths.output is None:
                closing.enter_context(disk.locked(self._paths.root))
            maker = closing.enter_context(self._making(self._paths.root))
            systems = closing.enter_context(contextlib.closing(disk.Systems()))
            systems.meet(maker.root)
            for folder in {self._sources[number].output_name.rpartition("/")[0] for number in (*again, *new)}:
                systems.meet_at(self._paths.root / folder)
            taken: list[str] = []
            for number in self._mended:  # what stands there is not marked, and is what was recorded
                (self._paths.root / self._sources[number].output_name).unlink(missing_ok=True)
            total = sum(number < self._n_audio for number in (*again, *new))
            taken += self._make(maker, systems, again, total, counted=False)
            taken += self._make(maker, systems, new, total, counted=True)
            if taken and self._partial:
                self._left_out.update((name, f"{name}: another file has its name in the copy") for name in taken)
            elif taken:
                raise SidecarError(
                    f"{len(taken):,} files in {self._paths.root} are not what this run would write there, and nothing "
                    f"is ever overwritten; move them away:{copies.shown(taken)}"
                )
        outputs = self._recorded.outputs.values()
        self.tally = self._recorded.tally
        self._count_recorded([output for output in outputs if output.label is not None])
        readers = attributes.readers_of(os.stat(self._paths.data), map(self._mode_of, self._sources))
        manifest.write(
            self._paths.manifest,
            self._key.fingerprint,
            self.plan.recipe,
            copies.entries(outputs),
            readers,
        )
        self._journal.move(State.COMPLETE, {"counts": self.tally.to_dict()})

    def _header(self) -> dict[str, object]:
        made = self._is_new and not self._paths.root.exists()
        return copies.describe(
            FILES,
            self._paths.data,
            self._key,
            self.plan,
            self._snr,
            self._notes,
            made_root=made or bool(self._journal.header.get("made_root")),
        )

    def _make(
        self, maker: Maker, systems: disk.Systems, numbers: Sequence[int], total: int, *, counted: bool
    ) -> list[str]:
        """Make some outputs and record them; returns the names that other files have."""
        taken: list[str] = []
        waiting: list[Output] = []
        tally, n_bytes = Tally(), 0

        def record() -> None:
            systems.sync(self._paths.root, (output.name for output in waiting))
            copies.append(self._journal, waiting, tally if counted else Tally())
            self._recorded.outputs.update((output.name, output) for output in waiting)
            if counted:
                self._recorded.tally.add(tally)

        for made in self._made(maker, numbers):
            taken += made.taken
            waiting += made.outputs
            tally.add(made.tally)
            self._lost.update(made.lost)
            self._take_ratios(made.outputs)
            self._left_out.update(made.left_out)
            n_bytes += sum(output.bytes_after for output in made.outputs)
            self._advance(made.outputs, total)
            if len(waiting) >= FILES_PER_RECORD or n_bytes >= BYTES_PER_RECORD:
                record()
                waiting, tally, n_bytes = [], Tally(), 0
        if waiting:
            record()
        return taken

    def _take_ratios(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            if output.label is not None:
                self.ratios.add(output.name, output.snr_db)

    def _make_folders(self, numbers: Sequence[int]) -> None:
        """Make the folders of some outputs, with the permissions of their sources."""
        was_open = self._journal.state is State.APPLYING and not self._is_new
        names = {""}
        for number in numbers:
            folder = self._sources[number].output_name.rpartition("/")[0]
            while folder not in names:
                names.add(folder)
                folder = folder.rpartition("/")[0]
        for name in sorted(names):
            target = self._paths.root / name
            try:
                os.mkdir(target, 0o700)
                is_ours = True
            except FileExistsError:
                # A call that was killed may have made it without giving it its permissions.
                is_ours = was_open and (bool(name) or bool(self._journal.header["made_root"]))
                if not self._is_new:
                    copies.tidy(target, self._journal.header["run"])
            if is_ours:
                with _opened(self._paths.source / name) as source, _opened(target) as made:
                    self._lost.update(attributes.give(made, attributes.read(source)))

    def _count_clips(self, n: int) -> None:
        self.tally.clips, self.tally.classes = n, len(self.plan.labels.tokens)
        self.tally.untagged = self.plan.untagged

    def _count_recorded(self, outputs: Sequence[Output]) -> None:
        """Count the clips of the whole copy, those whose sources are left out now included."""
        tags = of_names(self._key, self._share, [output.source for output in outputs])
        self.tally.clips = len(outputs)
        self.tally.classes = len({token_of(output.label) for output in outputs if output.label is not None})
        self.tally.untagged = 0 if tags is None else tags.untagged

    def _advance(self, outputs: Sequence[Output], total: int) -> None:
        """Tell how many audio files are done."""
        for _ in range(sum(output.label is not None for output in outputs)):
            self._n_done += 1
            if self._progress is not None:
                self._progress(self._n_done, total)
            disk.refuse_fork(self._process)


def verify_copy(paths: Paths, journal: Journal | None, *, source: PathLike | None = None) -> Verification:
    """Compare a copy at `paths.target` with what its sidecar or, without one, its manifest says of it.

    Parameters
    ----------
    paths : Paths
        Of the copy alone.
    journal : Journal or None
        Its sidecar, open; None if only the manifest is to be used.
    source : path, optional
        What the copy was made of: each of its files is then marked again and compared too.

    Raises
    ------
    DatasetError
        There is no manifest, or it is damaged; or `source` has other files than those that the copy was made of.
    """
    names, _ = paths.find(may_be_empty=True)
    verdicts: dict[str, Verdict] = {}
    with Workers(usable_cores()) as workers:
        if journal is None:
            if not paths.manifest.is_file():
                raise DatasetError(f"There is no manifest {paths.manifest}; give the key, to verify with the sidecar.")
            entries = Manifest.read(paths.manifest, paths.output).files
            found = workers.map(functools.partial(_digest_at, paths.root), entries)
            verdicts = {name: compare(now, entries[name]) for name, now in zip(entries, found, strict=True)}
        else:
            outputs = copies.read(journal, paths.output).outputs
            found = workers.map(lambda output: _digest_at(paths.root, output.name), outputs.values())
            for output, now in zip(outputs.values(), found, strict=True):
                verdict = output.verdict(now)
                if output.label is not None or verdict is not Verdict.UNCHANGED:
                    verdicts[output.name] = verdict
            if source is not None:
                for name, verdict in _marked_again(paths, journal, Path(source), workers):
                    verdicts[name] = verdicts[name].joined(verdict)
    unprotected = [name for name in names if name not in verdicts]
    return Verification.of(sorted(verdicts.items()), "unknown" if journal is None else journal.state.value, unprotected)


def _marked_again(paths: Paths, journal: Journal, source: Path, workers: Workers) -> Iterator[tuple[str, Verdict]]:
    """The verdict on each audio file of a copy by marking its source again."""
    outputs = [output for output in copies.read(journal, paths.output).outputs.values() if output.label is not None]
    root = Path(os.path.realpath(source if source.is_dir() else source.parent))
    wanted = {output.source: output for output in outputs}
    if not source.is_dir() and wanted:
        wanted = {source.name: next(iter(wanted.values()))}
    changed = [name for name, output in wanted.items() if _digest_at(root, name) != output.blake3_before]
    if changed:
        raise DatasetError(
            f"{len(changed):,} files of {source} are not those that the copy was made of; give its source:"
            f"{copies.shown(changed)}"
        )
    files = [listing.read_layout(root, name) for name in wanted]
    labels = [output.label for output in wanted.values()]
    sources = [Source(file.name, file.output_name, file, label) for file, label in zip(files, labels, strict=True)]
    lengths = np.array([file.frames for file in files], np.int64)
    rates = np.array([file.layout.sample_rate for file in files], np.int64)
    tags = of_names(journal.key, record.recorded_share(journal), wanted)
    plan = make_plan(journal.key, copies.recipe_of(journal), labels, None, lengths, rates, tags)
    is_plain = [isinstance(file.layout, Uncompressed) or not plan.marks_clip(n) for n, file in enumerate(files)]
    names = [output.name for output in wanted.values()]
    with contextlib.ExitStack() as closing:
        maker = closing.enter_context(contextlib.closing(Maker(root, None, sources, plan, Engine(threads=1), "")))
        closing.callback(workers.close)  # before the folders that its threads use

        def judge(chunk: list[int]) -> list[tuple[str, Verdict]]:
            if not is_plain[chunk[0]]:
                return [(names[n], maker.judge(n, paths.root / names[n])) for n in chunk]
            made = {output.source: output for output in maker.make(chunk).outputs}
            return [(names[n], made[files[n].name].verdict(_digest_at(paths.root, names[n]))) for n in chunk]

        for wanted_kind in (True, False):
            numbers = [n for n, kind in enumerate(is_plain) if kind is wanted_kind]
            for found in workers.map(judge, maker.chunks(numbers)):
                yield from found


class Pair(NamedTuple):
    """One file of a copy with its source; secret."""

    name: str
    label: str | int
    original: bytes
    now: bytes

    def __repr__(self) -> str:
        return f"Pair({self.name!r})"


def pairs(
    paths: Paths, journal: Journal, names: Collection[str] | None = None, *, source: PathLike | None = None
) -> Iterator[Pair]:
    """Every audio file of a copy, or only `names`, with its original, one at a time in the order of their names.

    `source` is where the source lies now, if it was moved. The original of a file that was lossy is the unmarked FLAC.

    Raises
    ------
    DatasetError
        A source, or a file of the copy, is missing or not the recorded one; or `names` has one that is not recorded.
    """
    recorded = copies.read(journal, paths.output).outputs
    outputs = {name: output for name, output in recorded.items() if output.label is not None}
    unknown = sorted(set(names or ()) - set(outputs))
    listing.refuse([f"{name} is not a file of the copy" for name in unknown], "Some names are unknown")
    data = copies.source_of(journal) if source is None else Path(os.path.realpath(source))
    for name in sorted(outputs if names is None else set(names)):
        output = outputs[name]
        original = original_of(output, data)
        now = _content(paths.root / name, output.blake3_after, "as protecting left it")
        assert output.label is not None  # noqa: S101 - chosen above
        yield Pair(name, output.label, original, now)


def original_of(output: Output, data: Path) -> bytes:
    """What an audio file of a copy was made of, below its source; of what was lossy, the unmarked FLAC.

    DatasetError if it is missing or another file now.
    """
    path = data / output.source if data.is_dir() else data
    original = _content(path, output.blake3_before, "the source of the copy")
    if is_lossy(layouts.of_bytes(original, output.source)):
        original = encoded.encode(encoded.decode(original, output.source))
    return original


def _content(path: Path, expected: str, what: str) -> bytes:
    """A file's bytes; DatasetError if they do not have the recorded digest."""
    try:
        with encoded.opened(str(path)) as file:
            content = file.read()
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read ({error.strerror}); put it back, or leave it out of names."
        ) from None
    if blake3(content).hexdigest() != expected:
        raise DatasetError(f"{path} is not {what} any more; put it back, or leave it out of names.")
    return content


def _refuse_collisions(files: FileTable, others: Sequence[str]) -> None:
    """DatasetError if two files would have one name in a copy, as a lossy one that becomes FLAC may."""
    sources: dict[str, str] = {}
    problems = []
    for file in files.of(is_lossy):
        other = sources.setdefault(file.output_name, file.name)
        if files.names.find(file.output_name) is not None:
            other = file.output_name
        if other != file.name:
            problems.append(f"{other} and {file.name} would both be {file.output_name}; rename one")
    problems = problems or listing.collisions([file.output_name for file in files], others)
    listing.refuse(problems, "The copy would have colliding names")


def _is_wider(folder: Path, other: Path) -> bool:
    """Whether a folder, if there is one, can be read by more people than another one."""
    return folder.is_dir() and bool(os.stat(folder).st_mode & ~os.stat(other).st_mode & 0o055)


def _digest_at(root: Path, name: str) -> str | None:
    """The BLAKE3 of a file in hex; None if there is no regular file, and no link is followed."""
    if not root.is_dir():
        return None
    with contextlib.closing(Below(root)) as below:
        return below.digest(name)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0))
    try:
        yield descriptor
    finally:
        os.close(descriptor)
