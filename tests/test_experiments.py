"""The stored results tell where they come from."""

from __future__ import annotations

import json

from installed import ROOT


def test_every_stored_result_tells_where_it_comes_from() -> None:
    stored = sorted((ROOT / "experiments" / "results").rglob("*.json"))
    assert stored
    for path in stored:
        result = json.loads(path.read_text())
        assert {"command", "date", "machine", "python", "versions"} <= set(result)
        assert result["command"].startswith("python -m experiments.")
