"""The measure of docs/extending.md, a plug-in: scores, selection, tables, pictures, gains, fine-tuning."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_grids import SAMPLES, outcomes, results
from tiny_runs import ROWS, run

from routing_moe.analysis.runs import read_runs
from routing_moe.checkpoints.folder import load_progress
from routing_moe.cli import collect_results, compare, compute_arg, show_scores
from routing_moe.config.measures import MEASURES, Measure
from routing_moe.config.plugins import REGISTRIES, load_plugin
from routing_moe.report.page import curve_rows

pytestmark = pytest.mark.usefixtures("empty_pictures")
GUIDE = Path(__file__).parents[1] / "docs/extending.md"
PLUGIN = re.search(r"```python\n(# my_routing.py\n.*?)```", GUIDE.read_text(), re.DOTALL)[1]
NAME = "bits_per_byte"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    file = tmp_path_factory.mktemp("plugin") / "bits_per_byte.py"
    file.write_text(PLUGIN)
    before = [dict(registry) for registry in REGISTRIES.values()]
    yield load_plugin(str(file))
    for registry, entries in zip(REGISTRIES.values(), before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.fixture(scope="module")
def by_bits(world, plugin):
    """A run whose best checkpoint has the fewest bits, made without answers; later they rise again."""
    flags = dict(plugin=plugin, select_by=NAME, total_steps=4, eval_period=1, learning_rate=3.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr("routing_moe.evaluation.scoring.answer")
        folder = world.run("by_bits", **flags)
    flags = dict(do_train=None, do_predict=True, initialize_from_vanilla=None, model=None)
    assert run(world.gym, world.bart, folder, measures=["performance", NAME], **flags) == 0
    return folder


def test_the_best_checkpoint_has_the_lowest_value_and_no_answers_are_made(by_bits):
    losses = pd.read_csv(by_bits / "losses.csv").set_index("steps")
    assert list(losses)[-3:] == ["dev_performance", "dev_answer_loss", f"dev_{NAME}"]
    assert losses["dev_performance"].isna().all()
    best, progress = losses[f"dev_{NAME}"].idxmin(), load_progress(by_bits / "best")
    assert best != losses.index[-1]
    assert (progress["step"], "dev_performance" in progress) == (best, False)
    dev = pd.read_csv(by_bits / f"{best}-steps/dev_results.csv", index_col=0)
    assert list(dev) == ["task_prefix", "sample", "metric", "n", "answer_loss", NAME, "loss_per_answer"]
    for row in dev.itertuples():
        bytes_ = sum(len(line.split("\t")[1].encode()) for line in ROWS[row.task_prefix][:3])
        assert row.bits_per_byte == pytest.approx(row.n * row.loss_per_answer / math.log(2) / bytes_)
    assert dev[NAME].mean() == pytest.approx(losses[f"dev_{NAME}"].min())


def test_it_is_a_column_of_scores_tables_and_curves_and_lower_is_a_gain(by_bits, plugin, tmp_path, capsys):
    scores = pd.read_csv(by_bits / "best/eval-test-performance.csv")
    assert scores["performance"].notna().all()
    assert f", {NAME.replace('_', ' ')} {scores[NAME].mean():.4f}" in (by_bits / "eval_log.txt").read_text()
    worse = tmp_path / "worse"
    for file in ("run.json", "best/eval-test-performance.csv"):
        (worse / file).parent.mkdir(exist_ok=True)
        (worse / file).write_text((by_bits / file).read_text())
    scores.assign(**{NAME: scores[NAME] + 1}).to_csv(worse / file, index=False)
    runs, known = [str(by_bits), str(worse)], ["--plugin", plugin]
    flags = ["--columns", "categories", "--measures", NAME, "--output_dir", str(tmp_path), *known]
    assert compare.main([*runs, *flags, "--baseline", "by_bits"]) == 0
    assert "Mean loss of the answers in bits per byte (lower is better) on" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "comparison.csv").set_index(["variant", "category"])
    assert table["mean"]["by_bits", "all"] == pytest.approx(scores[NAME].mean())
    assert pd.read_csv(tmp_path / "comparison_curves.csv").columns[-1] == f"dev_{NAME}"
    output = ["--output_file", str(tmp_path / "gains.csv"), "--metric", f"test_{NAME}"]
    assert compute_arg.main([*runs, *output, *known]) == 0
    assert pd.read_csv(tmp_path / "gains_summary.csv")[["wins", "losses"]].values.tolist() == [[0, 3]]
    assert "; lower is better." in (tmp_path / "gains.md").read_text()
    assert compute_arg.main([*runs, *output[:-1], "test_bits"]) == 2
    assert "--metric is test_bits; it must be test_ or dev_ and a measure" in capsys.readouterr().err
    assert show_scores.main([str(by_bits), *known]) == 0
    assert "| test, bits per byte |" in capsys.readouterr().out
    (explained,) = read_runs([str(by_bits)], "best", "soft", None, None)
    assert f"dev {NAME.replace('_', ' ')}" in {row["curve"] for row in curve_rows(explained)}


def test_a_grid_chooses_by_it_and_its_summary_has_the_values(grids, plugin, tmp_path, capsys):
    folder = grids.run("by_bits", plugin=plugin, select_by=NAME, num_beams=1)
    table, dev, test, differ = results(folder), f"dev_{NAME}", f"test_{NAME}", False
    assert list(table.columns[3:7]) == ["dev_performance", "test_performance", dev, test]
    assert set(table["select_by"]) == {NAME}
    for sample in SAMPLES:
        own = table[table["prefix"] == sample].drop(columns="prefix")
        best = table[table["prefix"] == f"{sample}_best"].drop(columns="prefix").iloc[0]
        assert best.equals(own.loc[own[dev].idxmin()])
    for outcome in outcomes(folder).values():
        steps, _, scores, losses = zip(*outcome["curve"], strict=True)
        best = int(np.argmin(losses))
        assert outcome["best_step"] == steps[best]
        assert (outcome["dev_performance"], outcome[dev]) == (scores[best], losses[best])
        differ = differ or best != np.argmax(scores)
    assert differ
    words = ["--logs_dir", str(grids.folder), "--output_file", str(tmp_path / "table.csv")]
    assert collect_results.main([*words, "--tasks", "by_bits"]) == 0
    summary = pd.read_csv(tmp_path / "table.csv").set_index("entry")
    best = table.set_index("prefix").loc[[f"{sample}_best" for sample in SAMPLES]]
    assert summary.loc["mean", test] == pytest.approx(best[test].mean())
    assert summary.loc["std", dev] == pytest.approx(best[dev].std())
    assert set(summary["select_by"]) == {NAME}
    assert f"| {test.replace('_', ' ')} |" in capsys.readouterr().out


def test_a_value_that_is_no_number_is_one_error(world, tmp_path, monkeypatch, capsys):
    for value, flag, problem in (
        ([0.5], {"measures": ["mine"]}, "the measure mine returned [0.5]; it must return a number"),
        (math.nan, {"select_by": "mine"}, "--select_by mine: no dev file has a value of it after step 1"),
    ):
        monkeypatch.setitem(MEASURES, "mine", Measure("mine", lambda scored, value=value: value))
        assert run(world.gym, world.bart, tmp_path / next(iter(flag)), total_steps=1, **flag) == 2
        assert problem in capsys.readouterr().err
