"""The evaluation that `poscuda evaluate` makes, on the Free Spoken Digit Dataset.

    python -m experiments.evaluation SPEECH

SPEECH is a folder with the data set in fsdd/recordings.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import stored
from experiments.asking import parser_of, sentences
from experiments.training.conditions import study_key
from poscuda_fast.evaluation import evaluate
from poscuda_fast.evaluation.sources import Folder

LABELS = r"regex:^(\d)_"


@sentences
def main(arguments: list[str] | None = None) -> None:
    """Evaluate, and store the result."""
    parser = parser_of(__doc__)
    parser.add_argument("speech", type=Path)
    options = parser.parse_args(arguments)
    key = study_key(0)
    source = Folder(options.speech / "fsdd" / "recordings", key, labels_from=LABELS)
    found = evaluate(source, key, tell=lambda line: print(line, file=sys.stderr))
    fields = {name: value for name, value in found.items() if name not in ("date", "python", "versions")}
    stored.store(
        stored.EXPERIMENTS, "evaluation", "python -m experiments.evaluation SPEECH", {"dataset": "FSDD", **fields}
    )


if __name__ == "__main__":
    main()
