"""Train every model on protected data after every attack, and test it on clean clips.

    python -m experiments.attack_suite DATASET [--models m5 lstm transformer cnn] [--attacks all]
        [--conditions poscuda-0.01 clean] [--epochs N] [--seed 0] [--jobs 1] [--other DATASET]
        [--device cpu] [--results DIR]

The same attack on unprotected data shows what the attack itself costs; where it makes no sense there, it has no
cell: compare with "none". Each cell is one JSON file, named after data set, model, condition and attack. Stored cells
are skipped, so the command can be stopped and called again. The training clips of an attack on a condition are made
once for all models; --jobs computes that many of these groups at a time, with one thread each. Test clips go through
what an attacker can put in front of a model: a filter, a codec, a projection. A probe (a linear layer on a frozen
embedding) has a model of its own, "linear".
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import stored
from experiments import cells
from experiments.attacks.probe import probe
from experiments.attacks.scene import Scene
from experiments.attacks.table import Chosen, attacked, choose, embedding_of, front_of, heard, step_of
from experiments.conditions import Condition, clean, mark_rows, poscuda, strong, study_key, whole_clip
from experiments.dataset import TEST, TRAIN, Dataset, load
from poscuda_fast.evaluation.models import NAMES
from poscuda_fast.evaluation.training import Config, Part, train

EPOCHS = {"m5": 15, "lstm": 12, "transformer": 8, "cnn": 10}
LINEAR = "linear"  # the model of a probe
RESULTS = stored.EXPERIMENTS / "attacks"


@dataclasses.dataclass(frozen=True)
class Group:
    """The cells that share their training clips: one data set, condition and attack. Plain values, for a process."""

    dataset: str
    condition: str
    attack: str
    models: tuple[str, ...]
    epochs: int | None = None
    seed: int = 0
    other: str | None = None
    results: str = str(RESULTS)
    device: str = "cpu"


def groups(
    dataset: str, models: Sequence[str], attacks: Sequence[str], conditions: Sequence[str], **shared: Any
) -> list[Group]:
    """The groups to compute, attack by attack under all conditions, without cells that make no sense.

    `shared` holds the other fields of every `Group`.
    """
    chosen = {one.name: one for text in attacks for one in choose(text)}
    made: list[Group] = []
    for name, one in chosen.items():
        if one.attack.needs == "other" and shared.get("other") is None:
            continue
        own = (LINEAR,) if one.attack.kind == "probe" else tuple(m for m in models if m in one.attack.models)
        made += [
            Group(dataset, condition, name, own, **shared)
            for condition in conditions
            if own and one.applies(condition_named(condition))
        ]
    return made


def condition_named(name: str, sample_rate: int = 16_000) -> Condition:
    """A condition by its name: clean, strong-S, poscuda-B[-identity][-absolute] or whole-B[-identity].

    Raises
    ------
    ValueError
        No condition has this name.
    """
    kind, *words = name.split("-")
    try:
        if kind == "clean" and not words:
            return clean()
        blur, options = float(words[0]), dict.fromkeys(words[1:], True)
        kinds = {"strong": lambda value: strong(value, sample_rate), "poscuda": poscuda, "whole": whole_clip}
        made = kinds[kind](blur, **options)
    except (KeyError, IndexError, TypeError, ValueError):
        made = None
    if made is None or made.name != name:
        raise ValueError(
            f"There is no condition {name!r}; expected clean, strong-S, poscuda-B[-identity][-absolute] or "
            f"whole-B[-identity], such as poscuda-0.01."
        )
    return made


def run(group: Group) -> list[str]:
    """Make the missing cells of a group; print and return a line for each."""
    data, chosen = load(group.dataset), choose(group.attack)[0]
    missing = [model for model in group.models if not finished(group, data, model)]
    if not missing:
        return []
    begun = time.perf_counter()
    scene = make_scene(data, condition_named(group.condition, data.sample_rate), group.seed)
    scene, details = attacked(chosen, scene, group.seed, Path(group.other) if group.other else None)
    made = time.perf_counter() - begun
    lines = []
    for model in missing:
        begun = time.perf_counter()
        fields = measure(group, data, chosen, scene, model)
        fields |= {"details": details, "seconds": round(time.perf_counter() - begun, 1), "making": round(made, 1)}
        Path(group.results).mkdir(parents=True, exist_ok=True)
        stored.store(Path(group.results), cell_name(group, data, model), command(group, model), fields)
        lines.append(
            f"{cell_name(group, data, model)}: final {fields['clean_final']:g} peak {fields['clean_peak']:g} "
            f"train {fields['train']:g} in {fields['seconds']:g} s"
        )
        print(lines[-1], flush=True)
    return lines


def make_scene(data: Dataset, condition: Condition, seed: int) -> Scene:
    """The training clips before and after they are marked."""
    rows = data.rows(TRAIN)
    original = np.ascontiguousarray(data.clips[rows])
    clips, labels, lengths, key = original.copy(), data.labels[rows], data.lengths[rows], study_key(seed)
    mark_rows(condition, clips, np.arange(len(rows)), labels, lengths, key)
    return Scene(clips, original, labels, lengths, len(data.classes), data.sample_rate, condition, key)


def measure(group: Group, data: Dataset, chosen: Chosen, scene: Scene, model: str) -> dict[str, Any]:
    """Train one model on an attacked scene; return what a cell stores."""
    tests = data.rows(TEST)
    asked = np.ascontiguousarray(data.clips[tests])
    asked = heard(chosen, asked, data.lengths[tests], data.sample_rate, group.seed)
    if model == LINEAR:
        embed = embedding_of(chosen, Path(group.other) if group.other else None, group.seed)
        known = embed(scene.clips, scene.lengths, scene.sample_rate)
        there = embed(asked, data.lengths[tests], scene.sample_rate)
        history, _ = probe(known, scene.labels, there, data.labels[tests], scene.n_classes)
        config: dict[str, Any] = {"model": LINEAR, "other": Path(group.other).name if group.other else None}
    else:
        training = Part(scene.clips, np.arange(len(scene.clips)), scene.labels)
        settings = configured(group, model)
        test = Part(asked, np.arange(len(asked)), data.labels[tests])
        result = train(
            settings, training, {"clean": test}, scene.n_classes, scene.sample_rate,
            step_of(chosen, scene, model, group.seed), front_of(chosen, scene, model, group.seed),
        )  # fmt: skip
        history, config = result.history, dataclasses.asdict(settings)
    return {
        "dataset": data.name,
        "model": model,
        "condition": group.condition,
        "attack": chosen.name,
        "title": chosen.title,
        "kind": chosen.attack.kind,
        "strength": chosen.strength,
        "at_test": chosen.stays,
        "field_row": chosen.attack.row,
        "seed": group.seed,
        "key_fingerprint": scene.key.fingerprint,
        "epochs": config.get("epochs", 0),
        "clean_final": history[-1]["clean"],
        "clean_peak": max(epoch["clean"] for epoch in history),
        "train": history[-1]["train"],
        "settings": {"config": config, "condition": scene.condition.settings},
    }


def configured(group: Group, model: str) -> Config:
    """The training settings of a model in a group."""
    return Config(model, EPOCHS[model] if group.epochs is None else group.epochs, seed=group.seed, device=group.device)


def cell_name(group: Group, data: Dataset, model: str) -> str:
    """The name of a cell's file; seeds other than 0 are part of it."""
    name = f"{data.name}_{model}_{group.condition}_{group.attack}"
    return name if group.seed == 0 else f"{name}_s{group.seed}"


def finished(group: Group, data: Dataset, model: str) -> bool:
    """Whether a cell is stored, complete and made with the same settings, on any device."""
    try:
        fields = stored.load(Path(group.results), cell_name(group, data, model))
        config = fields["settings"]["config"]
    except (OSError, ValueError, KeyError):
        return False
    return bool(model == LINEAR or config | {"device": group.device} == dataclasses.asdict(configured(group, model)))


def command(group: Group, model: str) -> str:
    """The command that makes one cell."""
    words = [
        "python -m experiments.attack_suite DATASET",
        f"--attacks {group.attack}",
        f"--conditions {group.condition}",
    ]
    words.insert(1, f"--models {model}" if model != LINEAR else "")
    words += [f"--epochs {group.epochs}"] if group.epochs is not None else []
    words += ["--other OTHER"] if choose(group.attack)[0].attack.needs == "other" else []
    return " ".join([*(word for word in words if word), f"--seed {group.seed}"])


def main(arguments: list[str] | None = None) -> None:
    """Run all groups."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--attacks", nargs="+", default=["all"], help="names, names-STRENGTH, kinds, or all")
    parser.add_argument("--conditions", nargs="+", default=["poscuda-0.01", "clean"])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--other", help="a prepared data set that probe-other and relabel learn their embedding from")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", default=str(RESULTS))
    given: dict[str, Any] = vars(parser.parse_args(arguments))
    jobs = given.pop("jobs")
    cells.in_parallel(run, [(group,) for group in groups(**given)], jobs)


if __name__ == "__main__":
    main()
