"""Variants compared over runs, also by steps and FLOPs: hand-computed numbers, errors."""

import json

import numpy as np
import pandas as pd
import pytest

from dataloader.ontology import Ontology
from routing_moe.cli import compare
from routing_moe.results import comparison
from routing_moe.results.runs import find_run_folders
from routing_moe.results.statistics import mean_interval

pytestmark = pytest.mark.usefixtures("empty_pictures")

TREE = {"labels": {"binary": ["yesno"]}, "text": {"copying": ["copy", "spell"]}}
ONTOLOGY = Ontology(TREE)
CONSTANT = {"copy": 0.1, "spell": 0.3, "yesno": 0.5}
SCORES = {
    ("a", 1): {"copy": 0.4, "spell": 0.6, "yesno": 0.2},  # text 0.5, all 0.4
    ("a", 2): {"copy": 0.6, "spell": 0.8, "yesno": 0.4},  # text 0.7, all 0.6
    ("b", 1): {"copy": 0.5, "spell": 0.6, "yesno": 0.5},  # minus a: 0.1, 0.0, 0.3
    ("b", 2): {"copy": 0.7, "spell": 1.0, "yesno": 0.4},  # minus a: 0.1, 0.2, 0.0
    ("b", 3): {"copy": 0.0, "spell": 0.0, "yesno": 0.0},  # a has no such seed
}


def score_rows(runs=SCORES):
    rows = [
        (variant, f"seed{seed}", seed, task, score, CONSTANT.get(task))
        for (variant, seed), tasks in runs.items()
        for task, score in tasks.items()
    ]
    return pd.DataFrame(rows, columns=["variant", "run", "seed", "task", "performance", "constant"])


def write_run(folder, variant, seed, tasks, name=None, n=20, **settings):
    """Writes a run folder as the training command does; without tasks, an unfinished one."""
    place = folder / variant / (name or f"seed{seed}")
    (place / "best").mkdir(parents=True)
    gym = str(folder.parent / "gym")
    saved = dict(seed=seed, train_dir=gym, predict_dir=gym, task_ontology=None, num_beams=4) | settings
    (place / "run.json").write_text(json.dumps({"settings": saved}))
    if tasks is not None:
        rows = [(t, f"{t}_32_100", "ACC", score, n, CONSTANT[t]) for t, score in tasks.items()]
        columns = ["task_prefix", "sample", "metric", "performance", "n", "constant"]
        pd.DataFrame(rows, columns=columns).to_csv(place / "best/eval-test-performance.csv")
    return place


def write_ontology(folder):
    """Writes TREE as the ontology of the gym beside the runs."""
    (folder / "gym").mkdir()
    (folder / "gym/ontology.json").write_text(json.dumps(TREE))


@pytest.fixture
def folder(tmp_path):
    """The runs of SCORES, and the ontology in their gym."""
    write_ontology(tmp_path)
    for (variant, seed), tasks in SCORES.items():
        write_run(tmp_path / "runs", variant, seed, tasks)
    return tmp_path / "runs"


def by_category(words: list[str]) -> int:
    """Returns the exit code of the command with the table of scores by category only."""
    return compare.main([*words, "--columns", "categories"])


def compared_with_a(rows):
    pairs = [(name, "a") for name in rows["variant"].unique() if name != "a"]
    contrasts = comparison.contrast_table(rows, ONTOLOGY, pairs, ["performance"])
    return comparison.comparison_table(rows, ONTOLOGY, "a", contrasts=contrasts)


def cells(table, row):
    return table.set_index(["variant", "category"]).loc[row]


def refusal(capsys, *argv):
    """Returns the errors of a command that writes nothing."""
    assert by_category([str(word) for word in argv]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    return "\n".join(lines)


# ---------------------------------------------------------------------------- numbers


def test_means_have_equal_weights_of_tasks_and_the_sample_std_over_n_runs():
    per_run = comparison.means_per_run(score_rows(), ONTOLOGY)
    assert per_run[per_run["variant"] == "a"].drop(columns=["variant", "run"]).values.tolist() == [
        [1, "labels", 1, pytest.approx(0.2)], [1, "text", 2, pytest.approx(0.5)],
        [1, "all", 3, pytest.approx(0.4)], [2, "labels", 1, pytest.approx(0.4)],
        [2, "text", 2, pytest.approx(0.7)], [2, "all", 3, pytest.approx(0.6)],
    ]  # fmt: skip
    table = comparison.comparison_table(score_rows(), ONTOLOGY)
    found = cells(table, ("a", "text"))[["tasks", "mean", "std", "n"]].tolist()
    assert found == pytest.approx([2, 0.6, 0.02**0.5, 2])
    # of 0.5, 0.4 and 0: mean 0.3, squared distances 0.04 + 0.01 + 0.09 over n - 1 = 2
    assert cells(table, ("b", "labels"))[["mean", "std", "n"]].tolist() == pytest.approx([0.3, 0.07**0.5, 3])


def test_a_single_run_has_no_std_and_baselines_are_means_over_the_tasks_that_have_them():
    rows = score_rows({("a", 1): SCORES["a", 1]})
    table = comparison.comparison_table(rows, ONTOLOGY)
    assert pd.isna(cells(table, ("a", "all"))["std"])
    assert comparison.comparison_markdown(table).splitlines() == [
        "| variant         |  n | labels (1) | text (2) | all (3) |",
        "| --------------- | -: | ---------: | -------: | ------: |",
        "| a               |  1 |      0.200 |    0.500 |   0.400 |",
        "| constant answer |    |      0.500 |    0.200 |   0.300 |",
    ]
    rows.loc[rows["task"] == "spell", "constant"] = None
    rows = rows.assign(chance=[None, None, 0.25], copy=[0.2, 0.6, 0.0])
    table = comparison.comparison_table(rows, ONTOLOGY)
    lines = comparison.comparison_markdown(table).splitlines()[3:]
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines] == [
        ["constant answer", "", "0.500", "0.100 (1)", "0.300 (2)"],
        ["random option", "", "0.250", "-", "0.250 (1)"],
        ["copied input", "", "0.000", "0.400", "0.267"],
    ]
    assert cells(table, ("random option", "all"))["tasks"] == 1


def test_baselines_are_means_over_the_gyms_of_the_seeds():
    rows = score_rows({seed: SCORES[seed] for seed in [("a", 1), ("a", 2), ("b", 2)]})
    rows.loc[rows["seed"] == 2, "constant"] += 0.2
    table = comparison.comparison_table(rows, ONTOLOGY)
    assert cells(table, ("constant answer", "text"))[["tasks", "mean"]].tolist() == pytest.approx([2, 0.3])


def test_differences_are_paired_by_task_and_common_seeds():
    table = compared_with_a(score_rows())
    # of copy 0.1 and 0.1, of spell 0.0 and 0.2, of yesno 0.3 and 0.0 with seeds 1 and 2; a has no seed 3
    assert cells(table, ("b", "all"))["difference"] == pytest.approx(0.35 / 3)
    assert cells(table, ("b", "text"))[["difference", "pairs"]].tolist() == pytest.approx([0.1, 2])
    assert cells(table, ("b", "all"))[["low", "high", "p", "p_holm"]].isna().all()
    assert cells(table, ("b", "text"))["interval"] == "too few tasks (2)"
    assert pd.isna(cells(table, ("a", "all"))["difference"])
    assert "| +0.117, too few tasks (3) |" in comparison.comparison_markdown(table, "a")
    rows = score_rows({("a", 1): SCORES["a", 1], ("b", 2): SCORES["b", 2]})
    without = cells(compared_with_a(rows), ("b", "all"))  # a common seed
    assert pd.isna(without["difference"])
    assert without["pairs"] == 0


def many_tasks(seeds, tasks=8):
    """Returns scores of a baseline "a" and of two increasingly better variants, with task and seed noise."""
    draw, runs = np.random.default_rng(0), {}
    base = {seed: draw.uniform(0.3, 0.6, tasks) for seed in seeds}
    for variant, ahead in (("a", 0.0), ("b", 0.02), ("c", 0.04)):
        of_tasks = ahead + draw.normal(0, 0.02, tasks)
        for seed in seeds:
            scores = base[seed] + of_tasks + draw.normal(0, 0.01) + draw.normal(0, 0.01, tasks)
            runs[variant, seed] = {f"task{n}": score for n, score in enumerate(scores)}
    return score_rows(runs)


@pytest.mark.parametrize(("seeds", "over"), [((1, 2, 3), "seeds"), ((1, 2, 3, 4, 5), "seeds x tasks")])
def test_intervals_are_by_the_number_of_seeds_and_p_is_corrected_over_variants(seeds, over):
    rows = many_tasks(seeds=seeds)
    table = compared_with_a(rows)
    wide = rows.pivot(index="seed", columns=["variant", "task"], values="performance")
    b, c = (mean_interval((wide[variant] - wide["a"]).to_numpy()) for variant in ("b", "c"))
    for variant, interval in (("b", b), ("c", c)):
        row = cells(table, (variant, "all"))
        numbers = row[["low", "high", "p", "detectable"]].tolist()
        assert numbers == pytest.approx([interval.low, interval.high, interval.p, interval.detectable])
        assert row["interval"] == over
    assert c.p < b.p
    assert cells(table, ("c", "all"))["p_holm"] == pytest.approx(2 * c.p)
    assert cells(table, ("b", "all"))["p_holm"] == pytest.approx(max(b.p, 2 * c.p))
    mark = " (these tasks)" if over == "seeds" else ""
    assert f"[{b.low:+.3f}, {b.high:+.3f}]{mark} |" in comparison.comparison_markdown(table, "a")


# ---------------------------------------------------------------------------- folders


def test_the_files_are_a_pure_function_of_the_folders(folder, tmp_path, capsys):
    for name in ("one", "two"):
        assert by_category([str(folder), "--baseline", "a", "--output_dir", str(tmp_path / name)]) == 0
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    endings = (".csv", ".md", ".pdf", ".png", "_runs.csv", "_tasks.csv")
    assert names == [f"comparison{end}" for end in endings]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    table = pd.read_csv(tmp_path / "one/comparison.csv")
    assert cells(table, ("a", "text"))["mean"] == pytest.approx(0.6)
    assert len(pd.read_csv(tmp_path / "one/comparison_runs.csv")) == 5 * 3
    printed = capsys.readouterr()
    assert "| a               |  2 | 0.300 ± 0.141 | 0.600 ± 0.141 | 0.500 ± 0.141 |" in printed.out


def test_unfinished_runs_are_listed_and_the_others_compared_in_the_given_order(folder, tmp_path, capsys):
    write_run(folder, "a", 4, None)
    assert by_category([str(folder), "--order", "b"]) == 1
    line = "not finished: a/seed4 (no best/eval-test-performance.csv)"
    assert capsys.readouterr().err.splitlines() == [line]
    assert line in (folder / "comparison.md").read_text()
    table = pd.read_csv(folder / "comparison.csv")
    assert cells(table, ("a", "all"))["n"] == 2
    assert table["variant"].unique().tolist() == ["b", "a", "constant answer"]
    write_run(tmp_path / "new", "a", 1, None)
    assert "not finished: a/seed1" in refusal(capsys, tmp_path / "new")
    assert not (tmp_path / "new/comparison.csv").exists()


OTHER = "was scored on different tasks, samples, metrics, numbers of examples or constant scores"


@pytest.mark.parametrize(
    ("run", "error"),
    [
        (dict(variant="c", tasks={"copy": 0.5, "yesno": 0.5}), f"c/seed1 {OTHER} than a/seed1: spell"),
        (dict(variant="c", tasks=SCORES["a", 1], n=9), f"c/seed1 {OTHER} than a/seed1: copy, spell, yesno"),
        (dict(variant="a", tasks=SCORES["a", 1], name="x"), "a/seed1 and a/x have the same seed, 1; "),
    ],
)  # fmt: skip
def test_runs_that_cannot_be_compared_are_named(folder, capsys, run, error):
    write_run(folder, seed=1, **run)
    assert refusal(capsys, folder).startswith(f"error: {error}")


def test_runs_are_found_by_any_of_their_folders(folder, tmp_path):
    """A run without a folder of its variant is one; its first stage is none; equal names get more of it."""
    for name in ("moe", "x/moe", "moe/stage1"):
        write_run(tmp_path / "more", name, 1, None, name=".")

    def found(*folders):
        return [(run.variant, run.name) for run in find_run_folders(folders, "run.json")]

    one = [("a", "seed1"), ("a", "seed2")]
    for name in ("two_stage/stage1", "cross/dense", "cross/deltas"):  # in runs that have not begun
        write_run(folder, name, 1, SCORES["a", 1], name=".")
    assert found(folder)[:3] == [*one, ("b", "seed1")]
    assert {variant for variant, _ in found(folder)} == {"a", "b"}
    assert find_run_folders([folder], "best/eval-test-performance.csv")[-1].variant == "b"
    assert found(folder / "a") == found(folder / "a/seed1", folder / "a/seed2") == one
    assert found(tmp_path / "more") == [("moe", ""), ("x", "moe")]
    assert found(tmp_path / "more/x/moe", tmp_path / "more/moe", folder / "a/seed2") == [
        ("x/moe", ""), ("more/moe", ""), ("a", "seed2")
    ]  # fmt: skip


def test_folders_of_other_commands_are_left_out(folder, capsys):
    for name, settings in (("vectors", {"train_dir": "gym"}), ("grid", {"seed": 1, "task_dir": "gym/a"})):
        (folder / name).mkdir()
        (folder / name / "run.json").write_text(json.dumps({"settings": settings}))
    for columns in (["test"], ["categories"], ["test", "categories"]):
        assert compare.main([str(folder), "--columns", *columns]) == 0
        notes = [
            f"note: {folder}/{name} is not a run of `train`; it is left out" for name in ("grid", "vectors")
        ]
        assert capsys.readouterr().err.splitlines() == notes
    assert refusal(capsys, folder / "grid") == f"error: {folder}/grid is not a run of `train`"


def test_several_runs_are_compared_into_a_folder_named_after_them(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path, "moe", 1, SCORES["a", 1], name=".", train_dir=str(tmp_path / "gym"))
    runs = ["runs/a/seed1", "runs/a/seed2", "moe"]
    assert compare.main([*runs, "--columns", "test", "categories", "--baseline", "moe"]) == 0
    written = tmp_path / "results_summary/CMP_seed1_seed2_moe"
    assert pd.read_csv(written / "overview.csv")["variant"].tolist() == ["a", "moe"]
    assert compare.main(["moe", "--columns", "test"]) == 0
    assert (tmp_path / "moe/overview.csv").is_file()


def test_a_wrong_flag_of_one_table_leaves_both_unwritten_and_old_tables_are_removed(folder, tmp_path):
    flags = ["--output_dir", str(tmp_path / "out")]
    assert compare.main([str(folder), *flags, "--baseline", "typo"]) == 2
    assert not (tmp_path / "out").exists()
    assert by_category([str(folder), *flags, "--contrasts", "b:a"]) == 0
    assert (tmp_path / "out/comparison_contrasts.csv").is_file()
    assert by_category([str(folder), *flags]) == 0
    assert not (tmp_path / "out/comparison_contrasts.csv").exists()


def test_flags_of_a_table_that_columns_leave_out_are_errors(folder, capsys):
    for columns, words in (
        ("test", "--baseline a"),
        ("test", "--contrasts b:a"),
        ("categories", "--recovery skill"),
    ):
        assert compare.main([str(folder), "--columns", columns, *words.split()]) == 2
        assert f"error: {words.split()[0]}: --columns lacks its table; add " in capsys.readouterr().err


def test_wrong_folders_variants_and_files_are_errors(folder, tmp_path, capsys):
    for words, problem in (
        ([tmp_path / "nowhere"], "no such folder"),
        ([folder, f"{folder}/"], "runs is given twice"),
        ([tmp_path / "gym"], "holds no runs; expected run.json in it"),
        ([folder, "--order", "aa", "c"], "--order aa: no such variant; did you mean 'a'? (there are a, b)"),
        ([folder, "--contrasts", "a", "b:b"], "--contrasts a: expected A:B"),
        ([folder, "--baseline", "b", "--contrasts", "b:a"], "--contrasts b:a: a:b is the same test; give"),
        ([folder, "--primary", "answer_loss"], "--primary answer_loss: not one of --measures performance"),
        ([folder, "--design", "tasks", "--gym_per_seed"], "--design tasks: with --gym_per_seed each seed"),
    ):
        assert problem in refusal(capsys, *words)
    write_run(folder, "c", 1, None)
    assert "--baseline c: no run of it is finished" in refusal(capsys, folder, "--baseline", "c")
    (folder / "a/seed1/run.json").write_text("{")
    assert "run.json is not valid JSON" in refusal(capsys, folder)


def test_settings_that_make_runs_less_comparable_are_warnings(folder, capsys):
    """Of a variant all but the seed and paths with the run's name; of all runs, how they were scored."""
    for seed in (1, 2):
        equal = dict(equal_flops="x", total_steps=seed)  # are expected to differ in steps
        paths = dict(checkpoint=f"runs/a/seed{seed}/best", output_dir=f"x{seed}")
        more = dict(do_lowercase=seed == 1, route_lr=0.1, max_input_length=seed)
        write_run(folder, "c", seed, SCORES["a", seed], **more, **paths, **equal)
    for run, beams in (("a/seed1", 4), ("b/seed1", 1)):
        settings = json.dumps({"settings": {"num_beams": beams}})
        (folder / run / "best/eval-settings.json").write_text(settings)
    assert by_category([str(folder)]) == 0
    assert capsys.readouterr().err == "warning: runs differ in do_lowercase, max_input_length, num_beams\n"


def test_a_missing_ontology_is_reported_and_can_be_given(folder, capsys, tmp_path):
    """The scores of a are means over draws of random routes, which is noted."""
    path = folder / "a/seed1/best/eval-test-performance.csv"
    pd.read_csv(path, index_col=0).assign(performance_std=0.1, draws=5).to_csv(path)
    (tmp_path / "gym/ontology.json").rename(tmp_path / "moved.json")
    assert by_category([str(folder)]) == 0
    assert "no task has a category" in capsys.readouterr().err
    assert by_category([str(folder), "--task_ontology", str(tmp_path / "moved.json")]) == 0
    assert "means over 5 draws" in capsys.readouterr().out


# ---- scores along training, by steps and FLOPs


def write_cost_and_evaluations(place, flops_a_step, steps, scores, before=(0, 0)):
    """scores: {step: score of every task}; before: steps and FLOPs of earlier runs."""
    total = flops_a_step * steps
    cost = dict(
        total_parameters=3_000_000, active_parameters=1_000_000, flops_per_example=flops_a_step // 8,
        examples_per_step=8, steps=steps, total_flops=total, start_unknown=None,
        steps_with_start=steps + before[0], total_flops_with_start=total + before[1],
    )  # fmt: skip
    (place / "cost.json").write_text(json.dumps(cost))
    for step, score in scores.items():
        (place / f"{step}-steps").mkdir()
        rows = [(task, f"{task}_32_100", "ACC", score, 20) for task in CONSTANT]
        table = pd.DataFrame(rows, columns=["task_prefix", "sample", "metric", "performance", "n"])
        table.to_csv(place / f"{step}-steps/dev_results.csv")


@pytest.fixture
def costs(tmp_path):
    """cheap: 8 MFLOPs per step; costly: 16; late: as cheap, after 100 steps and 800 MFLOPs of another run."""
    write_ontology(tmp_path)
    test_scores = dict.fromkeys(CONSTANT, 0.5)
    for seed in (1, 2):
        # A seed's batches differ a little.
        for variant, flops in (("cheap", 8_000_000 + 10_000 * seed), ("costly", 16_000_000)):
            place = write_run(tmp_path / "runs", variant, seed, test_scores)
            scores = {100: 0.1 * seed, 200: 0.2 * seed, 300: 0.3 * seed, 400: 0.4 * seed}
            write_cost_and_evaluations(place, flops, 400, scores)
    return tmp_path / "runs"


def test_curves_count_earlier_runs(costs):
    place = write_run(costs, "late", 1, dict.fromkeys(CONSTANT, 0.5))
    write_cost_and_evaluations(place, 8_000_000, 400, {400: 0.5}, before=(100, 800_000_000))
    assert by_category([str(costs)]) == 0
    curves = pd.read_csv(costs / "comparison_curves.csv")
    assert list(curves.columns) == ["variant", "run", "seed", "step", "flops", "dev_score"]
    assert len(curves) == 4 * 4 + 1
    assert curves[curves["variant"] == "late"][["step", "flops"]].values.tolist() == [[500, 4_000_000_000]]
    second = curves[(curves["variant"] == "costly") & (curves["seed"] == 2)].iloc[1]
    assert second[["step", "flops", "dev_score"]].tolist() == pytest.approx([200, 3.2e9, 0.4])


@pytest.mark.parametrize("variants", [("costly",), ("costly", "cheap")])
def test_evaluations_without_answers_are_in_curves_only_if_no_run_has_others(costs, variants):
    """As --select_by answer_loss writes them."""
    for path in (path for name in variants for path in costs.glob(f"{name}/*/*-steps/dev_results.csv")):
        pd.read_csv(path, index_col=0).rename(columns={"performance": "answer_loss"}).to_csv(path)
    assert by_category([str(costs)]) == 0
    curves = pd.read_csv(costs / "comparison_curves.csv")
    alone = len(variants) == 1
    assert curves.columns[-1] == ("dev_score" if alone else "dev_answer_loss")
    assert set(curves["variant"]) == ({"cheap"} if alone else {"costly", "cheap"})
    assert (costs / "comparison_curves.png").is_file()
