"""Curves of the conflict study: the gyms of their points, the table, the picture."""

from dataclasses import replace

import pandas as pd
import pytest
from PIL import Image

from dataloader.errors import InputError
from routing_moe.studies import conflict_curves
from routing_moe.studies.conflict_curves import ConflictCurves
from routing_moe.studies.conflict_runs import Level


@pytest.fixture
def curves(tmp_path):
    return ConflictCurves(
        output_dir=tmp_path, rates=(0.01,), rows=(12, 48), label_noise=(0.0, 0.2), overlap=(0.0,), seeds=(7,)
    )


def test_points_differ_in_one_thing_and_share_the_usual_gyms(curves, tmp_path):
    points = {(what, value): study for what, value, study in curves.points()}
    folders = {point: study.output_dir.name for point, study in points.items()}
    assert folders == {
        ("rows", 12): "rows12", ("rows", 48): "usual", ("label_noise", 0.0): "usual",
        ("label_noise", 0.2): "label_noise0.2", ("overlap", 0.0): "usual",
    }  # fmt: skip
    ((generate,),) = (Level(points["rows", 12], 1.0).gym(7).gym().commands(),)
    assert generate[-2:] == ["--rows", "12"]
    ((generate,),) = (Level(points["rows", 48], 1.0).gym(7).gym().commands(),)
    assert "--rows" not in generate
    assert points["rows", 12].budget(1.0) == curves.budget(1.0)


def test_every_point_is_compared_once_and_all_are_in_one_table_and_picture(curves, tmp_path, monkeypatch):
    compared = []

    def compare(study):
        compared.append(study.output_dir.name)
        folder = study.output_dir / "conflict1_16skills"
        folder.mkdir(parents=True)
        rows = [("dense", 0.5, None), ("refined", 0.8, 0.9), ("average", 0.1, None)]
        table = [
            dict(place="x", variant=v, seed=seed, score=score + more, ami=ami)
            for v, score, ami in rows
            for seed, more in ((7, 0), (8, 0.1), (9, 9))
            if (v, seed) != ("dense", 9)  # not finished
        ]
        pd.DataFrame(table).to_csv(folder / "shares.csv", index=False)
        return 1 if "noise" in study.output_dir.name else 0

    monkeypatch.setattr(conflict_curves, "compare", compare)
    assert conflict_curves.run(curves) == 1
    assert compared == ["rows12", "usual", "label_noise0.2"]
    table = pd.read_csv(tmp_path / "curves.csv")
    assert list(table) == conflict_curves.COLUMNS
    sizes = table.groupby(["what", "value"]).size()
    assert sizes.to_dict() == dict.fromkeys(((what, value) for what, value, _ in curves.points()), 5)
    means = pd.read_csv(tmp_path / "curves_means.csv")
    assert list(means) == ["conflict", "what", "value", "n", "dense", "refined", "refined_ami"]
    assert means.iloc[:, 1:3].values.tolist() == [[what, value] for what, value, _ in curves.points()]
    assert (means.iloc[:, 3:] == [2, 0.55, 0.85, 0.9]).all(axis=None)
    with Image.open(tmp_path / "curves_conflict1.png") as picture:
        assert picture.width > 900
    assert (tmp_path / "curves_conflict1.pdf").is_file()


def test_another_setting_of_a_point_is_refused_before_any_run(curves, monkeypatch):
    monkeypatch.setattr(conflict_curves, "compare", lambda study: pytest.fail("a run is started"))
    for _, _, study in curves.points():
        study.save_settings()
    with pytest.raises(InputError, match=r"--dense_steps is 20, but in .*/usual/study.json it was not given"):
        conflict_curves.run(replace(curves, dense_steps=20))


def test_rates_of_another_study_are_needed(capsys, tmp_path):
    assert conflict_curves.main(["--output_dir", str(tmp_path)]) == 2
    assert "--rates_of is not given" in capsys.readouterr().err
