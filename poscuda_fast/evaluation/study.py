"""The whole evaluation: gather clips, train models on them clean and protected, and judge the result."""

from __future__ import annotations

import dataclasses
import datetime as dt
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from poscuda_fast.disk import PathLike
from poscuda_fast.evaluation import pace
from poscuda_fast.evaluation.attacks import notched
from poscuda_fast.evaluation.augmenting import DEFAULT, PLAIN
from poscuda_fast.evaluation.corpus import Corpus, gather
from poscuda_fast.evaluation.finished import Finished, identity
from poscuda_fast.evaluation.names import TITLES
from poscuda_fast.evaluation.quality import OWN, installed, measure
from poscuda_fast.evaluation.sources import Clips, Source
from poscuda_fast.evaluation.threads import one_thread
from poscuda_fast.evaluation.training import EPOCHS, Config, Curve, Part, train
from poscuda_fast.evaluation.verdict import interval, judge
from poscuda_fast.key import Key
from poscuda_fast.mark.lines import period_of
from poscuda_fast.recipe import Recipe, StrongRecipe
from poscuda_fast.secrecy import discreet

MODELS = ("m5", "lstm", "cnn")
USUAL_CLIPS = 2400  # with fewer to train on, models get more epochs, so that they take enough steps
MOST_TIMES = 8
MEASURED_CLIPS, BY_PACKAGES = 200, 40  # ViSQOL and its like take half a second a clip
SPLIT = "Clips were drawn at random: those of one speaker may be in both parts."
Fields = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Training:
    """One training: a model on clean clips, on protected ones plainly or by default training, or on attacked ones."""

    model: str
    kind: str
    seed: int

    @property
    def title(self) -> str:
        """Its name in progress lines."""
        kind, _, attack = self.kind.partition(", ")
        return f"{TITLES[self.model]} on {kind} clips" + f", {attack}" * bool(attack)


USUAL, NOTCHED = "protected, default training", "protected, class lines notched out"
ATTACKS = {NOTCHED: "cnn"}  # each with a model that gains much from it


@discreet
def evaluate(
    source: Source,
    key: Key,
    *,
    n_clips: int = 3000,
    seconds: float | None = None,
    models: Sequence[str] = MODELS,
    epochs: int | None = None,
    seeds: int = 1,
    attacks: bool = True,
    finished: PathLike | None = None,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Fields:
    """Train small models on clean and on protected clips, and test them on clean clips that they have not seen.

    Parameters
    ----------
    source : Source
        A `Folder` or an `Array`; nothing there is changed.
    key : Key
        What the clips are or were protected with.
    n_clips : int
        The most clips to use, drawn class by class; a fifth of them are for testing.
    seconds : float, optional
        How much of each clip models get, from its beginning; by default what 95 % of the clips fit into, 1 to 4 s.
    models : sequence of str
        Names in `models.NAMES`.
    epochs : int, optional
        Of each training; by default `training.EPOCHS`, or more if there are few clips.
    seeds : int
        Trainings of each model, whose means are returned; attacks are trained once.
    attacks : bool
        Of format 2, also train on protected clips with the lines of their classes notched out, as far as they can be
        found without the key.
    finished : path, optional
        A file for finished trainings, which is written after each. If the call is stopped, the same call takes them
        from there, and trains the others; what was trained on other clips, by other code or otherwise is never taken.
        No key, position or clip is in it. Delete it when the result is stored.
    progress : callable, optional
        Called with (steps done, steps in all): clips while they are gathered, then epochs.
    tell : callable, optional
        Called with a line about what comes next, and after each training.

    Returns
    -------
    dict
        Plain JSON values: "verdict", "models", "attacks", "attacks_not_tried", "quality", "data", the recipe and the
        key's fingerprint, "labels" (a keyed MAC of all labels and lengths, which tells these clips from others), and
        the versions of Python and the packages. Accuracies are in %, on clean test clips after the best epoch, since
        nobody has to train on past it: "clean" of a model trained on clean clips, "plain" and "default" of ones trained
        on protected clips as they are and with `augmenting.DEFAULT` (random shifts, noise, SpecAugment), and
        "protected" the better of these two. "keyed" and "miskeyed" are of the plainly trained model after its last
        epoch, on test clips with the mark of their own class and of the next. There is no key, no position and no file
        name in it.

    Raises
    ------
    DatasetError, AudioFileError, SidecarError, OSError
        The clips cannot be read, or have too few classes; or `finished` is another file.
    """
    begun = time.perf_counter()
    say = tell or _ignore
    say(f"Decoding clips: at most {n_clips:,} of {len(source.labels):,}.")
    with tempfile.TemporaryDirectory(prefix="poscuda-evaluation-") as work:
        corpus = gather(source, Path(work), most=n_clips, seconds=seconds, progress=progress)
        trainings = list(_trainings(corpus, models, seeds, attacks=attacks))
        given = {model: epochs or _epochs(model, len(corpus.training)) for model in (one.model for one in trainings)}
        store = Finished(None, "", key) if finished is None else Finished(Path(finished), identity(corpus, key), key)
        found = _train_all(corpus, trainings, given, store, say, progress)
        say("Measuring the quality of the protected clips.")
        measured = _quality(corpus)
    rows = [_row(found, model, len(corpus.testing)) for model in models]
    chance = 100.0 * float(np.bincount(corpus.labels[corpus.testing]).max()) / len(corpus.testing)
    best_clean, best_protected = (max(row[name] for row in rows) for name in ("clean", "protected"))
    attacked = [_attack_row(found, one, len(corpus.testing)) for one in trainings if one.kind in ATTACKS]
    reached = [row["protected"] for row in attacked]
    verdict = judge(best_clean, best_protected, chance, len(corpus.testing), seeds, reached)
    return {
        "kind": "poscuda evaluation",
        "version": 1,
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
        "fingerprint": key.fingerprint,
        "recipe": corpus.recipe.to_dict(),
        "labels": corpus.labels_mac,
        "verdict": dataclasses.asdict(verdict),
        "data": {
            "training_clips": len(corpus.training),
            "test_clips": len(corpus.testing),
            "classes": len(corpus.classes),
            "chance": round(chance, 1),
            "sample_rate": corpus.sample_rate,
            "seconds_heard": round(corpus.seconds, 3),
            "cut_clips": corpus.cut,
            "were_protected": corpus.was_protected,
            "split": SPLIT,
        },
        "models": rows,
        "attacks": attacked,
        "attacks_not_tried": [
            {"attack": _name(kind), "because": "the marks of format 1 have no lines"}
            for kind in ATTACKS
            if attacks and not _can_be_tried(kind, corpus.recipe)
        ],
        "quality": measured,
        "epochs": given,
        "seeds": seeds,
        "seconds": round(time.perf_counter() - begun, 1),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("poscuda-fast", "numpy", "torch", "torchaudio")},
    }


def _ignore(_: str) -> None:
    """Nobody is told."""


def _train_all(
    corpus: Corpus,
    trainings: Sequence[Training],
    epochs: dict[str, int],
    store: Finished,
    say: Callable[[str], None],
    progress: Callable[[int, int], None] | None,
) -> dict[Training, Curve]:
    """The curve of each training, in their order; those that are stored are not trained again."""
    fields = {one: {**dataclasses.asdict(one), "epochs": epochs[one.model]} for one in trainings}
    stored = {one: curve for one in trainings if (curve := store.curve(fields[one])) is not None}
    missing = [one for one in trainings if one not in stored]
    say(_announced(corpus, trainings, epochs))
    if stored:
        say(f"Already trained, taken from {store.path}: {len(stored)} of {len(trainings)}.")
    if missing:
        say(f"Training {missing[0].title}; after that, the time for the others can be told.")
    total, done = sum(epochs[one.model] for one in missing), 0

    def log(_: dict[str, float]) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    found: dict[Training, Curve] = dict(stored)
    costs = {one: pace.cost(one.model, epochs[one.model], changing=one.kind == USUAL) for one in missing}
    for number, one in enumerate(missing, 1):
        with one_thread():
            curve = found[one] = _train(corpus, one, epochs[one.model], log)
        store.add(fields[one], curve)
        line = f"{len(stored) + number} of {len(trainings)}  {one.title}: {curve.peak('clean'):.1f} % in "
        line += f"{curve.seconds:.0f} s"
        if left := missing[number:]:
            measured = [(costs[past], found[past].seconds) for past in missing[:number]]
            wait = pace.in_words(pace.seconds_left(measured, [costs[later] for later in left]))
            line += f"; {wait} left, now {left[0].title}"
        say(line)
    return {one: found[one] for one in trainings}


def _announced(corpus: Corpus, trainings: Sequence[Training], epochs: dict[str, int]) -> str:
    """A line that says what is about to be trained."""
    titles = ", ".join(TITLES[model] for model in epochs)
    attacks = sum(one.kind in ATTACKS for one in trainings)
    n_epochs = sum(epochs[one.model] for one in trainings)
    of_attacks = f", {attacks} of them as an attacker might" if attacks else ""
    return (
        f"{len(trainings)} trainings of small models ({titles}){of_attacks}: {n_epochs:,} epochs of "
        f"{len(corpus.training):,} clips."
    )


def _quality(corpus: Corpus) -> Fields:
    """How far protected test clips are from clean ones, by each metric that can be computed here."""
    found: Fields = {}
    others = [name for name in installed() if name not in OWN]
    for names, n in ((OWN, MEASURED_CLIPS), (others, BY_PACKAGES)):
        tested = corpus.testing[:n]
        measured = measure(corpus.clean, corpus.protected, corpus.lengths, corpus.sample_rate, tested, metrics=names)
        found |= {
            name: {field: one[field] for field in ("median", "worst_5_percent", "unit", "n")}
            for name, one in measured.items()
            if one["median"] is not None
        }
    return found


def _trainings(corpus: Corpus, models: Sequence[str], seeds: int, *, attacks: bool) -> Iterator[Training]:
    for seed in range(seeds):
        for model in models:
            yield Training(model, "clean", seed)
            yield Training(model, "protected", seed)
            yield Training(model, USUAL, seed)
    if attacks:
        for kind, model in ATTACKS.items():
            if _can_be_tried(kind, corpus.recipe):
                yield Training(model, kind, 0)


def _can_be_tried(kind: str, recipe: Recipe) -> bool:
    return kind != NOTCHED or isinstance(recipe, StrongRecipe)


def _name(kind: str) -> str:
    """An attack's name in results."""
    return kind.removeprefix("protected, ")


def _epochs(model: str, n_clips: int) -> int:
    return round(EPOCHS[model] * min(MOST_TIMES, max(1.0, USUAL_CLIPS / max(1, n_clips))))


def _train(corpus: Corpus, one: Training, epochs: int, log: Callable[[dict[str, float]], None]) -> Curve:
    rows, testing = corpus.training, corpus.testing
    labels = corpus.labels
    audio = corpus.clean if one.kind == "clean" else corpus.protected
    training = Part(audio, rows, labels[rows])
    if one.kind == NOTCHED:
        training = Part(_notched(corpus), np.arange(len(rows)), labels[rows])
    at_end = {}
    if one.kind == "protected":
        side = np.arange(len(corpus.miskeyed))
        at_end["keyed"] = Part(corpus.protected, testing, labels[testing])
        at_end["miskeyed"] = Part(corpus.miskeyed, side, labels[testing[side]])
    batch = min(Config.batch, max(8, len(rows) // 8))
    regime = DEFAULT if one.kind == USUAL else PLAIN
    config = Config(model=one.model, epochs=epochs, seed=one.seed, batch=batch, regime=regime)
    tests = {"clean": Part(corpus.clean, testing, labels[testing])}
    return train(config, training, tests, len(corpus.classes), corpus.sample_rate, at_end=at_end, log=log)


def _notched(corpus: Corpus) -> Clips:
    """The protected training clips without lines; where these can lie depends on the file's sample rate."""
    rows = corpus.training
    cleaned = corpus.protected[rows]
    for rate in np.unique(corpus.file_rates[rows]).tolist():
        some = corpus.file_rates[rows] == rate
        spacing = rate / period_of(rate) / corpus.sample_rate
        cleaned[some] = notched(
            corpus.protected[rows[some]], corpus.labels[rows[some]], corpus.lengths[rows[some]], spacing
        )
    return cleaned


def _mean(found: dict[Training, Curve], model: str, kind: str, value: Callable[[Curve], float]) -> float:
    chosen = [value(result) for one, result in found.items() if (one.model, one.kind) == (model, kind)]
    return round(statistics.fmean(chosen), 1)


def _row(found: dict[Training, Curve], model: str, n_tested: int) -> Fields:
    """A model's accuracies."""
    clean, plain, usual = (
        _mean(found, model, kind, lambda result: result.peak("clean")) for kind in ("clean", "protected", USUAL)
    )
    protected = max(plain, usual)
    return {
        "model": TITLES[model],
        "clean": clean,
        "plain": plain,
        "default": usual,
        "protected": protected,
        "protected_interval": list(interval(protected, n_tested)),
        "keyed": _mean(found, model, "protected", lambda result: result.final("keyed")),
        "miskeyed": _mean(found, model, "protected", lambda result: result.final("miskeyed")),
    }


def _attack_row(found: dict[Training, Curve], one: Training, n_tested: int) -> Fields:
    best = round(found[one].peak("clean"), 1)
    return {
        "attack": _name(one.kind),
        "model": TITLES[one.model],
        "protected": best,
        "protected_interval": list(interval(best, n_tested)),
    }
