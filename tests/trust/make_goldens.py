"""Write the goldens: data in every state that a run can leave, which every later version must recover and undo.

    python -m tests.trust.make_goldens

One zip file for each kind of data in stages.py, in tests/trust/goldens, with a folder for each state and for each form.
A golden that exists is never written again.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "trust")]

from crash_states import files_below, put  # noqa: E402 - the tests' own modules are found from here on
from kills import beginnings  # noqa: E402
from stages import KEY, SCENES, Scene, small_batches  # noqa: E402

from poscuda_fast import drop_undo  # noqa: E402

GOLDENS = TESTS / "trust" / "goldens"
NAMES = [name for name in SCENES if name != "OddWav"]  # which is no file that there may be


def states(scene: Scene) -> dict[str, dict[str, bytes]]:
    """The files of each state and of each form."""
    found = beginnings(scene)
    put(scene.root, found["protected"])
    drop_undo(scene.path, KEY)
    found["final"] = files_below(scene.root)
    del found["original"]
    return {**found, "original form": scene.original, "protected form": scene.protected}


def main() -> None:
    """Make what is missing."""
    GOLDENS.mkdir(exist_ok=True)
    for name in NAMES:
        path = GOLDENS / f"{name}.zip"
        if path.exists():
            continue
        with small_batches(), tempfile.TemporaryDirectory() as folder:
            made = states(SCENES[name](Path(folder)))
        with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) as archive:
            for state, found in made.items():
                for file, content in found.items():
                    archive.writestr(zipfile.ZipInfo(f"{state}/{file}"), content, zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main()
