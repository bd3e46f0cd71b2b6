"""Write the goldens: data in every state that a run can leave, which every later version must recover and undo.

    python -m tests.trust.make_goldens

One zip file each for an array or a folder, in tests/trust/goldens, with a folder for each state and golden.json, which
tells how it was made and what its originals and protected forms hash to. A golden that exists is never written again.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "trust")]

import numpy as np  # noqa: E402 - the tests' own modules are found from here on
from array_trial import Data, Worker  # noqa: E402
from audiofiles import contents, encoded, in_child, noise, wav, write_tree  # noqa: E402
from folder_trial import die_at, last_point  # noqa: E402

from poscuda_fast import Key, Recipe, drop_undo, protect_folder, restore_folder  # noqa: E402
from poscuda_fast.files import target as files  # noqa: E402
from poscuda_fast.mark import plan  # noqa: E402

GOLDENS = TESTS / "trust" / "goldens"
MASTER = bytes(range(32))
LABELS = [0, 1, 2, 0, 1]
RECIPES = {
    "format 1": Recipe.paper(patch=40, taps=8, blur=0.3),
    "format 2": Recipe.strong(2.0),
}


def make_array(recipe: Recipe, dtype: str) -> tuple[dict[str, dict[str, bytes]], dict[str, Any]]:
    """{state: files} of an array, and what must come of them."""
    key = Key(MASTER)
    samples = np.random.default_rng(41).integers(-20_000, 20_000, (len(LABELS), 200)).astype(np.int16)
    if dtype == "float32":
        samples = (samples / np.float32(32768)).astype(np.float32)
    worker = Worker()
    with tempfile.TemporaryDirectory() as folder:
        data = Data(Path(folder), key, samples, LABELS, recipe)

        def run(verb: str, wanted: str | None = None) -> None:
            """Run a verb, killed where it first reaches a point of this name in its second batch."""
            at = None
            if wanted is not None:
                kept = data.files()
                points = worker.run(data.path, verb, recipe, labels=LABELS)["points"]
                data.put(kept)
                at = [n for n, point in enumerate(points, 1) if point == wanted][1]
            worker.run(data.path, verb, recipe, labels=LABELS, die_at=at)

        steps: dict[str, Callable[[], None]] = {
            "committed": lambda: run("protect", "after Journal.append"),
            "torn": lambda: run("protect", "half a patch stored"),
            "complete": lambda: run("protect"),
            "undoing": lambda: (run("protect"), run("restore", "half a batch stored"))[0],
            "undone": lambda: (run("protect"), run("restore"))[0],
            "final": lambda: (run("protect"), run("drop_undo"))[0],
        }
        states = {}
        for state, step in steps.items():
            data.reset()
            step()
            states[state] = {path.name: content for path, content in data.files().items()}
        expected = {
            "original": digests({data.path.name: data.original}),
            "protected": digests({data.path.name: data.protected}),
        }
    worker.close()
    return states, expected


def make_folder(recipe: Recipe) -> tuple[dict[str, dict[str, bytes]], dict[str, Any]]:
    """{state: files} of a folder protected in place, and what must come of them."""
    key = Key(MASTER)
    files.PIECES_PER_BATCH = 2
    before = {f"{'abc'[label]}/{n}.wav": wav(noise(150 + n, seed=n)) for n, label in enumerate(LABELS)}

    def protect(root: Path) -> None:
        protect_folder(root, None, key, recipe=recipe, threads=1)

    def restore(root: Path) -> None:
        restore_folder(root, key)

    def killed(call: Callable[[Path], None], root: Path, wanted: str) -> None:
        """Run a verb in a process that dies at the second point of this name."""
        seen = 0
        for n in range(1, 200):
            with tempfile.TemporaryDirectory() as trial:
                write_tree(Path(trial), contents(root, hidden=True))
                in_child(lambda n=n, trial=trial: (die_at(n), call(Path(trial))))
                seen += last_point() == wanted
            if seen == 2:
                in_child(lambda n=n: (die_at(n), call(root)))
                return
        raise AssertionError(wanted)

    steps: dict[str, Callable[[Path], None]] = {
        "committed": lambda root: killed(protect, root, "after Journal.append"),
        "torn": lambda root: killed(protect, root, "half of disk.write_all"),
        "complete": protect,
        "undoing": lambda root: (protect(root), killed(restore, root, "half of disk.write_all"))[0],
        "undone": lambda root: (protect(root), restore(root))[0],
        "final": lambda root: (protect(root), drop_undo(root, key))[0],
    }
    states = {}
    for state, step in steps.items():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_tree(root, before)
            encoded(root / "c/5.flac", noise(170), "FLAC", "PCM_16")
            whole = contents(root)
            step(root)
            states[state] = contents(root, hidden=True)
            if state == "complete":
                after = {name: content for name, content in contents(root).items() if name in whole}
    return states, {"original": digests(whole), "protected": digests(after)}


def digests(found: dict[str, bytes]) -> dict[str, str]:
    """SHA-256 of each file."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(found.items())}


def write(name: str, states: dict[str, dict[str, bytes]], about: dict[str, Any]) -> None:
    """One golden; a zip file whose entries have no dates."""
    with zipfile.ZipFile(GOLDENS / f"{name}.zip", "x", zipfile.ZIP_DEFLATED) as archive:
        entries = {"golden.json": json.dumps(about, indent=1).encode()}
        entries |= {f"{state}/{file}": content for state, found in states.items() for file, content in found.items()}
        for entry, content in entries.items():
            archive.writestr(zipfile.ZipInfo(entry), content, zipfile.ZIP_DEFLATED)


def main() -> None:
    """Make what is missing."""
    GOLDENS.mkdir(exist_ok=True)
    plan.BATCH_BYTES = 240
    for title, recipe in RECIPES.items():
        for kind in ("int16", "float32", "folder"):
            name = f"{title} {kind}".replace(" ", "-")
            if not (GOLDENS / f"{name}.zip").exists():
                states, expected = make_folder(recipe) if kind == "folder" else make_array(recipe, kind)
                write(name, states, {"key": MASTER.hex(), "labels": LABELS, "recipe": recipe.to_dict(), **expected})


if __name__ == "__main__":
    main()
