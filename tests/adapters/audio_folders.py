"""A folder of speech, or of noise where there is none, and what `protect_folder` makes of it."""

from __future__ import annotations

import os
from pathlib import Path

from audiofiles import contents, encoded, noise, wav, write_tree

from poscuda_fast import Key, Recipe, protect_folder

RECIPE = Recipe.strong()
SPEECH = Path(os.environ.get("POSCUDA_REAL_SPEECH", Path(__file__).parents[2] / ".." / "shared" / "data"))


def make_folder(root: Path) -> dict[str, bytes]:
    """Audio files in class folders: some real speech where it lies beside the checkout, and some of each kind."""
    files = {f"{'yes' if n % 2 else 'no'}/{n}.wav": wav(noise(600 + n, seed=n)) for n in range(6)}
    files["no/wide.wav"] = wav(noise(500, 2, "PCM_24"), "PCM_24")
    for label in ("yes", "no"):
        for path in sorted((SPEECH / "speech_commands" / label).glob("*"))[:20]:
            if path.suffix in (".wav", ".flac"):
                files[f"{label}/{path.name}"] = path.read_bytes()
    write_tree(root, files)
    encoded(root / "yes/made.flac", noise(900), "FLAC", "PCM_16")
    return contents(root)


def protected(root: Path, key: Key, work: Path) -> dict[str, bytes]:
    """What `protect_folder` makes of a folder."""
    protect_folder(root, work, key, recipe=RECIPE)
    return {name: data for name, data in contents(work).items() if name != "poscuda.json"}
