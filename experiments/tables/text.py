"""The stored results of the trainings as tables in Markdown, beside the paper's figures."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from benchmarks import report, stored
from experiments.data.dataset import KNOWN
from poscuda_fast.evaluation.names import NAMES, TITLES, TRAININGS, VICTIMS

TABLE1 = (
    "clean", "whole-0.01", "whole-0.3", "poscuda-0.01", "poscuda-0.3", "poscuda-0.01-identity", "poscuda-0.3-identity",
)  # fmt: skip
OTHERS = ("poscuda-0.01", "poscuda-0.3", "cuda-0.01", "cuda-0.3", "emin-14")
COMPARED = ("clean", "poscuda-0.01", "poscuda-0.3", "strong-0.5", "strong-1", "strong-1.4", "strong-2")
DATASETS = {"fsdd": "FSDD", "speech_commands": "Speech Commands"}
# Gokul and Dubnov, Table 1 with its column heads the right way round: clean-test accuracy, %.
PAPER = {
    "speech_commands": {
        "clean": {"m5": 90.52, "lstm": 90.74, "transformer": 66.80},
        "whole-0.01": {"m5": 82.30, "lstm": 84.63, "transformer": 62.29},
        "whole-0.3": {"m5": 67.33, "lstm": 12.95, "transformer": 13.50},
        "poscuda-0.01": {"m5": 7.14, "lstm": 18.32, "transformer": 60.77},
        "poscuda-0.3": {"m5": 7.30, "lstm": 12.12, "transformer": 32.29},
    },
    "fsdd": {
        "clean": {"m5": 90.89, "lstm": 96.00, "transformer": 91.83},
        "whole-0.01": {"m5": 47.10, "lstm": 45.67, "transformer": 72.67},
        "whole-0.3": {"m5": 29.80, "lstm": 42.11, "transformer": 53.89},
        "poscuda-0.01": {"m5": 15.51, "lstm": 32.44, "transformer": 62.78},
        "poscuda-0.3": {"m5": 10.04, "lstm": 22.78, "transformer": 48.11},
    },
}
PAPER_FAD = {
    "speech_commands": {"poscuda-0.01": 5.61e-4, "poscuda-0.3": 5.65e-4},
    "fsdd": {"poscuda-0.01": 2.21e-5, "poscuda-0.3": 2.25e-5},
}
Cell = dict[str, Any]
MISSING = "Not measured yet."
SCREENED = {"m5": 3, "lstm": 2, "cnn": 3}  # keys in the first round of the search


def cells(folder: str, **wanted: Any) -> list[Cell]:
    """The stored cells of the project's own data sets with the wanted values; others of their name are not."""
    paths = sorted((stored.EXPERIMENTS / folder).glob("*.json"))
    found = [{"name": path.stem, **stored.load(path.parent, path.stem)} for path in paths]
    own = [cell for cell in found if KNOWN.get(cell["digest"]) == cell["dataset"]]
    return [cell for cell in own if all(cell[name] == value for name, value in wanted.items())]


def own_table(found: Sequence[Cell]) -> str:
    """Accuracies on clean clips for each condition and training, as a command prints them."""
    rows = []
    models = [model for model in TITLES if any(cell["model"] == model for cell in found)]
    for training in TRAININGS:
        some = by_condition(cell for cell in found if cell["training"] == training)
        rows += [[mine[0]["title"], training, *(_accuracy(mine, model) for model in models)] for mine in some]
    return table(["trained on", "training", *(TITLES[model] for model in models)], rows)


def accuracy(dataset: str, split: str, conditions: Sequence[str] = TABLE1) -> str:
    """Table 1: clean-test accuracy under every condition, plain training, beside the paper's."""
    found = _of_table1(dataset, split, conditions)

    def entry(mine: list[Cell], model: str) -> str:
        paper = PAPER[dataset].get(mine[0]["condition"], {}).get(model)
        shown = _accuracy(mine, model)
        return f"{shown} / {paper:.1f}" if shown and paper is not None else shown

    if not found:
        return MISSING
    rows = [
        [mine[0]["title"], of_keys(mine, "snr_db"), *(entry(mine, model) for model in NAMES)]
        for mine in by_condition(found, conditions)
    ]
    head = ["trained on", "SNR, dB", *(TITLES[model] for model in NAMES)]
    return "\n".join([table(head, rows), "", how(found)])


def keyed(dataset: str, split: str) -> str:
    """Keyed, mis-keyed and noise tests, and the training accuracy, of Table 1."""
    found = _of_table1(dataset, split)

    def entry(mine: list[Cell], model: str) -> str:
        of_model = [cell for cell in mine if cell["model"] == model]
        if not of_model:
            return ""
        return " / ".join(f"{mean(of_model, name):.0f}" for name in ("keyed", "miskeyed", "noise", "train"))

    if not found:
        return MISSING
    marked = by_condition(found, TABLE1[1:])
    rows = [[mine[0]["title"], *(entry(mine, model) for model in NAMES)] for mine in marked]
    return "\n".join([table(["trained on", *(TITLES[model] for model in NAMES)], rows), "", how(found)])


def by_condition(found: Iterable[Cell], names: Iterable[str] | None = None) -> Iterator[list[Cell]]:
    """The cells of each of some conditions, or of all, that has some."""
    cells_of: dict[str, list[Cell]] = {}
    for cell in found:
        cells_of.setdefault(cell["condition"], []).append(cell)
    yield from (cells_of[name] for name in names or cells_of if name in cells_of)


def _of_table1(dataset: str, split: str, conditions: Sequence[str] = TABLE1) -> list[Cell]:
    found = cells("protection", dataset=dataset, split=split, training="plain", clips=None)
    return [cell for cell in found if cell["condition"] in conditions and cell["model"] in NAMES]


def protection(dataset: str) -> str:
    """Format 2 at every strength beside the paper's recipe, plain and default training."""
    found = compared(dataset)
    if not found:
        return MISSING
    rows = []
    for of_condition in by_condition(found, COMPARED):
        for training in TRAININGS:
            mine = [cell for cell in of_condition if cell["training"] == training]
            if not mine:
                continue
            title = mine[0]["title"] + " (default)" * bool(mine[0].get("chosen"))
            seeds = min(len({c["seed"] for c in mine if c["model"] == m}) for m in {c["model"] for c in mine})
            keyed = "" if mine[0]["condition"] == "clean" else f"{_lowest(mine, 'keyed'):.1f}"
            rows.append([title, training, str(seeds), *(_accuracy(mine, model) for model in NAMES), keyed])
    head = ["trained on", "training", "seeds", *(TITLES[model] for model in NAMES), "keyed, worst"]
    return "\n".join([table(head, rows), "", how(found)])


def compared(dataset: str) -> list[Cell]:
    """The cells beside those of format 2: the same models, on as many clips."""
    found = [
        cell for cell in cells("protection", dataset=dataset, split="official")
        if cell["condition"] in COMPARED and cell["model"] in NAMES
    ]  # fmt: skip
    sizes = {cell["clips"] for cell in found if "strength" in cell}
    return [cell for cell in found if cell["clips"] in sizes]


def damage(dataset: str) -> str:
    """What each condition does to the sound: medians over clips, and the worst twentieth in brackets."""
    results = cells("distances", dataset=dataset)
    if not results:
        return MISSING
    metrics = [name for name in results[0]["quality"] if name != "changed_snr_db"]
    rows = []
    for mine in by_condition(sorted(results, key=lambda one: (one.get("strength") or 0.0, one["condition"]))):
        row = [mine[0]["title"], str(len(mine))]
        for metric in metrics:
            values = [
                one["quality"][metric] for one in mine if one["quality"].get(metric, {}).get("median") is not None
            ]
            row.append(
                f"{statistics.fmean(v['median'] for v in values):.2f} "
                f"({statistics.fmean(v['worst_5_percent'] for v in values):.2f})" if values else ""
            )  # fmt: skip
        paper = PAPER_FAD[dataset].get(mine[0]["condition"])
        low, high = (statistics.fmean(one["fad_95"][end] for one in mine) for end in (0, 1))
        row += [f"{mean(mine, 'fad'):.3g} ({low:.3g} to {high:.3g})", f"{mean(mine, 'scalar_distance'):.2g}"]
        rows.append([*row, f"{paper:.2e}" if paper else ""])
    units = results[0]["quality"]
    plain = [metric.removesuffix("_db").replace("_", " ").replace("snr", "SNR") for metric in metrics]
    named = [
        name + f", {units[metric]['unit']}" * bool(units[metric]["unit"])
        for name, metric in zip(plain, metrics, strict=True)
    ]
    head = ["condition", "keys", *named, f"FAD[{results[0]['embedding']}] (95 %)", "scalar formula", "paper (PANN)"]
    halves = f"{results[0]['clips']} training clips; one half of the clean ones against the other has a FAD of "
    halves += f"{results[0]['half_against_half']:.3g}."
    return "\n".join([table(head, rows), "", halves, "", report.source(results[0])])


def victims() -> str:
    """Models that popular recipes use, under default training."""
    found = [cell for cell in cells("protection", training="default") if cell["model"] in (*VICTIMS, *NAMES)]
    if not any(cell["model"] in VICTIMS for cell in found):
        return MISSING
    rows = []
    for dataset, title in DATASETS.items():
        some = by_condition((cell for cell in found if cell["dataset"] == dataset), COMPARED)
        tried = (mine for mine in some if any(cell["model"] in VICTIMS for cell in mine))
        rows += [[title, mine[0]["title"], *(_accuracy(mine, model) for model in VICTIMS)] for mine in tried]
    head = ["data", "trained on", *(TITLES[model] for model in VICTIMS)]
    return "\n".join([table(head, rows), "", how([cell for cell in found if cell["model"] in VICTIMS])])


def readings() -> str:
    """Every other reading of the paper."""
    found = [cell for cell in cells("protection", training="plain") if "padded" in cell["settings"]["condition"]]
    if not found:
        return MISSING
    models = [model for model in NAMES if any(cell["model"] == model for cell in found)]
    rows = []
    order = sorted(found, key=lambda cell: (cell["condition"] != "literal", cell["title"]))
    for mine in by_condition(order):
        row = [mine[0]["title"]]
        for model in models:
            of_model = [cell for cell in mine if cell["model"] == model]
            row.append(f"{_accuracy(of_model, model)}, {mean(of_model, 'keyed'):.0f}" if of_model else "")
        rows.append(row)
    return "\n".join([table(["reading", *(TITLES[model] for model in models)], rows), "", how(found)])


def attacks() -> str:
    """Every attack on format 2 and on clean clips, sorted by what it gives back."""
    found = cells("attacks")
    if not found:
        return MISSING

    rows = []
    for name in dict.fromkeys(cell["attack"] for cell in found):
        row, given = [next(cell["title"] for cell in found if cell["attack"] == name)], []
        for dataset in DATASETS:
            ours, none = (best_attacked(found, dataset, each) for each in (name, "none"))
            alone = best_attacked(found, dataset, name, clean=True)
            if ours is None or none is None:
                row += ["", "", ""]
                continue
            given.append(ours[0] - none[0])
            row += [f"{given[-1]:+.0f}", f"{ours[0]:.0f} ({TITLES.get(ours[1], 'linear')})"]
            row.append(f"{alone[0]:.0f}" if alone else "")
        rows.append((max(given, default=-100.0), row))
    rows.sort(key=lambda each: -each[0])
    head = ["attack"]
    for title in DATASETS.values():
        head += [f"{title}: gives back", "best model, %", "on clean clips, %"]
    return "\n".join([table(head, [row for _, row in rows]), "", how(found)])


def best_attacked(found: Sequence[Cell], dataset: str, attack: str, *, clean: bool = False) -> tuple[float, str] | None:
    """The best epoch of the model that learns most after an attack, in the mean over seeds, and which model that is."""
    mine = [c for c in found if (c["dataset"], c["attack"], c["condition"] == "clean") == (dataset, attack, clean)]
    models = {cell["model"] for cell in mine}
    return max(((mean([c for c in mine if c["model"] == m], "clean_peak"), m) for m in models), default=None)


def search() -> str:
    """The best points of the search beside two lines, and what they do when they are trained on again."""
    paths = {name: stored.EXPERIMENTS / "search" / f"{name}.jsonl" for name in DATASETS}
    lines = {name: path.read_text().splitlines() if path.exists() else [] for name, path in paths.items()}
    found = {name: [json.loads(line) for line in mine] for name, mine in lines.items()}
    last = {_said(one["point"]): one for one in found["fsdd"] if "seed" not in one}  # what does not matter is not said
    first = list(last.values())
    if not first:
        return MISSING
    whole = [one for one in first if all(len(one.get(model, ())) >= n for model, n in SCREENED.items())]
    gained = {id(one): max(_gaps(one, first[0])) for one in whole}  # over two lines, which the search begins with
    rows = []
    for rank, one in enumerate(sorted(whole, key=lambda one: gained[id(one)]), 1):
        said = _said(one["point"])
        again = [[each for each in mine if _said(each["point"]) == said and "seed" in each] for mine in found.values()]
        if rank <= 10 or one is first[0]:
            means = [_means([one], SCREENED), *(_means(mine, NAMES) for mine in again)]
            heard = f"{one['pesq']:.2f}", f"{one['tonality_db']:.1f}"
            figures = (" / ".join(f"{x:.0f}" for x in some) for some in means)
            rows.append([str(rank), said, *heard, f"{gained[id(one)]:+.0f}", *figures])
    models = " / ".join(TITLES[model] for model in SCREENED)
    head = ["rank", "mark", "PESQ", "tonality, dB", "gap", models, *(f"{title}, again" for title in DATASETS.values())]
    count = f"{len(first)} kinds of mark were measured, {len(whole)} of them with all keys."
    return "\n".join([count, "", table(head, rows), "", report.source(first[0])])


def _gaps(one: Cell, reference: Cell) -> list[float]:
    """How much more each model learnt, under the keys that both have."""
    pairs = [zip(one[model], reference[model], strict=False) for model in SCREENED]
    return [statistics.fmean(mine - other for mine, other in some) for some in pairs]


def _means(found: Sequence[Cell], models: Iterable[str]) -> list[float]:
    """Each model's mean over the accuracies of all keys."""
    return [statistics.fmean(value for one in found for value in one[model]) for model in models if found]


def _said(point: dict[str, Any]) -> str:
    """A point of the search in words."""
    several = point["lines"] > 1
    said = {
        f"{point['lines']} line{'s' * several} of {point['spacing']:g} Hz steps": True,
        f"{point['lowest']:g} to {point['highest']:g} Hz": True,
        "by mel": point["by_mel"],
        f"{point['apart']:g} Hz apart": several and point["apart"],
        f"{point['slope']:+g} dB an octave": several and point["slope"] and not point["main"],
        f"{100 * point['in_step']:.0f} % in step": point["in_step"],
        f"{100 * point['main']:.0f} % in one of them": several and point["main"],
        "a phase for each clip": point["fresh"],
        f"floor {point['floor'] or 0:g} dB": point["floor"] is not None,
    }
    return ", ".join(words for words, true in said.items() if true)


def ownership() -> str:
    """The ownership test on models of whose clips a share was marked, and on innocent ones."""
    found = cells("ownership")
    if not found:
        return MISSING
    rows = []
    for one in sorted((c for c in found if c["share"]), key=lambda one: (one["share"], one["how"], one["model"])):
        p = ", second owner ".join(f"{one[name]:.2g}" for name in ("p_value", "second_p_value") if name in one)
        accuracies = (f"{100 * one[name]:.1f}" for name in ("clean_accuracy", "keyed_accuracy", "miskeyed_accuracy"))
        said = f"{one['share']:g} %" + f", {one['how']}" * bool(one["how"])
        rows.append([
            DATASETS[one["dataset"]], said, TITLES[one["model"]], f"{one['hits']} of {one['classes']}", p, *accuracies,
        ])  # fmt: skip
    head = ["data", "marked", "model", "classes hit", "p", "clean clips, %", "keyed, %", "decoy keys, %"]
    lines = [table(head, rows), ""]
    for one in (one for one in found if not one["share"]):
        shares = ", ".join(f"{100 * share:.0f} % at most {level}" for level, share in one["share_at_most"].items())
        who = f"{TITLES[one['model']]} on {DATASETS[one['dataset']]}, clean clips, {one['keys']} keys it never saw"
        lines.append(f"- {who}: p-values {shares}; the lowest {one['lowest_p_value']:.2g}.")
    return "\n".join([*lines, "", report.source(found[0])])


def _accuracy(found: Sequence[Cell], model: str) -> str:
    """The mean of the last epoch, its spread over seeds, and in brackets the mean of the best epoch."""
    mine = [cell for cell in found if cell["model"] == model]
    if not mine:
        return ""
    values = [cell["clean_final"] for cell in mine]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread} [{mean(mine, 'clean_peak'):.1f}]"


def _lowest(found: Sequence[Cell], name: str) -> float:
    """The mean of a field of the model that has the lowest."""
    return min(mean([cell for cell in found if cell["model"] == model], name) for model in {c["model"] for c in found})


def mean(found: Sequence[Cell], name: str) -> float:
    """The mean of a field over cells."""
    return statistics.fmean(cell[name] for cell in found)


def of_keys(found: Sequence[Cell], name: str, digits: str = ".1f") -> str:
    """The mean over keys of a field that all models share under one key, such as the clips' median SNR."""
    values = {cell["seed"]: cell[name] for cell in found if cell[name] is not None}
    return f"{statistics.fmean(values.values()):{digits}}" if values else ""


def how(found: Sequence[Cell]) -> str:
    """How many epochs made a table, on which clips and machine."""
    parts = []
    for model, title in TITLES.items():
        mine = [cell for cell in found if cell["model"] == model]
        if mine:
            parts.append(f"{title} {_few(cell['epochs'] for cell in mine)} epochs")
    sizes = sorted({(DATASETS[cell["dataset"]], cell["train_clips"], cell["test_clips"]) for cell in found})
    clips = "; ".join(f"{title}: {train:,} training and {test:,} test clips" for title, train, test in sizes)
    one = found[0]
    versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
    dates, machines = _few(c["date"] for c in found), _few(c["machine"] for c in found)
    command = one["command"].split(" --")[0]
    seeds = len({cell["seed"] for cell in found})
    return (
        f"<sub>{', '.join(parts)}; {seeds} seed{'s' * (seeds > 1)}. {clips}. `{command}`, {dates}; {machines}; Python "
        f"{one['python']}, {versions}.</sub>"
    )


def _few(values: Iterable[Any]) -> str:
    return " or ".join(str(value) for value in sorted(set(values)))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


SECTIONS: dict[str, Callable[[], str]] = {
    "fsdd-accuracy": lambda: accuracy("fsdd", "official"),
    "fsdd-keyed": lambda: keyed("fsdd", "official"),
    "fsdd-70-30": lambda: accuracy("fsdd", "70-30"),
    "speech-commands-accuracy": lambda: accuracy("speech_commands", "official"),
    "speech-commands-keyed": lambda: keyed("speech_commands", "official"),
    "fsdd-damage": lambda: damage("fsdd"),
    "speech-commands-damage": lambda: damage("speech_commands"),
    "fsdd-protection": lambda: protection("fsdd"),
    "speech-commands-protection": lambda: protection("speech_commands"),
    "victims": victims,
    "readings": readings,
    "baselines": lambda: accuracy("fsdd", "official", OTHERS),
    "attacks": attacks,
    "search": search,
    "ownership": ownership,
}
