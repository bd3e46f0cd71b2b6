from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import tiny
from experiments.attack_suite import condition_named, groups, make_scene, run
from experiments.conditions import study_key

from experiments import attack_suite
from experiments.attacks.table import choose

FIELDS = {
    "dataset", "model", "condition", "attack", "title", "kind", "strength", "at_test", "field_row", "seed",
    "key_fingerprint", "epochs", "clean_final", "clean_peak", "train", "settings", "seconds", "making", "details",
    "command", "date", "machine", "python", "versions",
}  # fmt: skip


@pytest.fixture
def data(tmp_path):
    return tiny.dataset(tmp_path / "tiny", frames=1000)


def options(data, tmp_path, **more):
    return {"epochs": 1, "results": str(tmp_path / "results"), **more}


def test_cells_are_complete_and_not_made_twice(data, tmp_path, capsys):
    chosen = ["none", "shift-0.05", "partial-5", "leak-filter"]
    todo = groups(str(data.folder), ["cnn", "lstm"], chosen, ["poscuda-0.01", "clean"], **options(data, tmp_path))
    lines = [line for group in todo for line in run(group)]
    stored = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results").iterdir()}
    marked = {f"tiny_{m}_poscuda-0.01_{a}" for m in ("cnn", "lstm") for a in ("none", "shift-0.05", "partial-5",
              "leak-filter-1")}  # fmt: skip
    assert set(stored) == marked | {f"tiny_{m}_clean_{a}" for m in ("cnn", "lstm") for a in ("none", "shift-0.05")}
    assert len(lines) == len(stored) == len(capsys.readouterr().out.splitlines())
    for fields in stored.values():
        assert set(fields) == FIELDS
        assert fields["epochs"] == 1
        assert 0 <= fields["clean_final"] <= fields["clean_peak"] <= 100
        assert str(tmp_path) not in json.dumps(fields)
        assert fields["key_fingerprint"] == study_key(0).fingerprint
    assert stored["tiny_lstm_poscuda-0.01_leak-filter-1"]["details"]["pairs_exactly_placed"] == 3
    assert stored["tiny_cnn_poscuda-0.01_partial-5"]["strength"] == 5
    assert (
        "--attacks partial-5 --conditions poscuda-0.01 --epochs 1"
        in stored["tiny_cnn_poscuda-0.01_partial-5"]["command"]
    )

    assert [run(group) for group in todo] == [[]] * len(todo)
    (tmp_path / "results" / "tiny_cnn_clean_none.json").write_text('{"cut')
    (tmp_path / "results" / "tiny_lstm_clean_none.json").unlink()
    again = [line for group in todo for line in run(group)]
    assert sorted(line.split(":")[0] for line in again) == ["tiny_cnn_clean_none", "tiny_lstm_clean_none"]
    for name in ("tiny_cnn_clean_none", "tiny_lstm_clean_none"):
        new = json.loads((tmp_path / "results" / f"{name}.json").read_text())
        assert {k: new[k] for k in ("clean_final", "train")} == {k: stored[name][k] for k in ("clean_final", "train")}


def test_other_settings_are_another_cell(data, tmp_path):
    shared = options(data, tmp_path)
    (group,) = groups(str(data.folder), ["lstm"], ["none"], ["clean"], **shared)
    assert run(group)
    (longer,) = groups(str(data.folder), ["lstm"], ["none"], ["clean"], **shared | {"epochs": 2})
    assert run(longer)
    (other,) = groups(str(data.folder), ["lstm"], ["none"], ["clean"], **shared | {"seed": 1})
    assert run(other)[0].startswith("tiny_lstm_clean_none_s1:")


def test_a_run_makes_all_groups_and_each_can_be_sent_to_a_process(data, tmp_path):
    folder = tmp_path / "results"
    attack_suite.main(
        [str(data.folder), "--models", "lstm", "--attacks", "none", "mu-law", "--conditions", "poscuda-0.3",
         "--epochs", "1", "--jobs", "1", "--results", str(folder)]
    )  # fmt: skip
    assert {p.stem for p in folder.iterdir()} == {f"tiny_lstm_poscuda-0.3_{a}" for a in ("none", "mu-law-8")}
    (group,) = groups(str(data.folder), ["lstm"], ["none"], ["clean"], **options(data, tmp_path))
    assert pickle.loads(pickle.dumps((run, group))) == (run, group)


def test_a_probe_on_another_data_set(data, tmp_path, monkeypatch):
    from experiments.attacks import probe

    monkeypatch.setattr(probe, "OTHER_EPOCHS", 1)
    other = tiny.dataset(tmp_path / "other", frames=1200, seed=1)
    shared = options(data, tmp_path)
    assert groups(str(data.folder), ["lstm"], ["probe-other"], ["clean"], **shared) == []
    (group,) = groups(str(data.folder), ["lstm"], ["probe-other"], ["clean"], other=str(other.folder), **shared)
    assert group.models == ("linear",)
    assert len(run(group)) == 1
    stored = json.loads((tmp_path / "results" / "tiny_linear_clean_probe-other-1.json").read_text())
    assert stored["settings"]["config"] == {"model": "linear", "other": "other"}
    assert run(group) == []


def test_relabelling_by_another_data_set(data, tmp_path, monkeypatch):
    from experiments.attacks import probe

    monkeypatch.setattr(probe, "OTHER_EPOCHS", 1)
    other = tiny.dataset(tmp_path / "other", frames=1200, seed=1)
    shared = options(data, tmp_path)
    (group,) = groups(str(data.folder), ["lstm"], ["relabel"], ["clean"], other=str(other.folder), **shared)
    assert run(group)
    (path,) = (tmp_path / "results").iterdir()
    stored = json.loads(path.read_text())
    assert 0 <= stored["details"]["relabelled"] <= 100
    assert "--attacks relabel-10 --conditions clean --epochs 1 --other OTHER" in stored["command"]


def test_only_training_clips_are_marked(data):
    scene = make_scene(data, condition_named("poscuda-0.01"), 0)
    assert (scene.clips != scene.original).any()
    np.testing.assert_array_equal(scene.original, data.clips[data.rows(0)])


@pytest.mark.parametrize(
    "name", ["clean", "poscuda-0.01", "poscuda-0.3-identity", "poscuda-0.01-absolute", "poscuda-0.01-identity-absolute",
             "whole-0.01", "whole-0.3-identity"],
)  # fmt: skip
def test_conditions_by_name(name):
    assert condition_named(name).name == name


@pytest.mark.parametrize("name", ["", "clean-1", "poscuda", "poscuda-x", "poscuda-0.01-loud", "whole-0.01-absolute"])
def test_unknown_conditions_are_refused(name):
    with pytest.raises(ValueError, match="There is no condition"):
        condition_named(name)


def test_the_full_run_names_every_attack_once(data, tmp_path):
    others = {"probe-other-1", "relabel-10"}  # need another data set
    for condition, not_for_it in (
        ("poscuda-0.01", {"leak-mark-1"}),
        ("strong-1", {"leak-filter-1", "leak-mirror-1", "fill-places-0"}),
    ):
        todo = groups(str(data.folder), list(attack_suite.NAMES), ["all"], [condition], **options(data, tmp_path))
        assert {group.attack for group in todo} == {one.name for one in choose("all")} - others - not_for_it
        assert len(todo) == len({(group.attack, group.condition) for group in todo})
