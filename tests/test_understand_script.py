"""understand.sh: its commands for one and for several runs, and a whole run."""

import shutil

import pytest
from planted_routes import write_place

ANALYSES = ["inspect_routes", "create_gif.py", "correlate_routes", "ablate", "report"]


def commands(calls: list[str]) -> list[str]:
    """The command of each call, without flags."""
    return [
        call.removeprefix("-m routing_moe.cli.").removeprefix("example_scripts/").split()[0] for call in calls
    ]


def make_run(folder):
    """Write the files of a run whose experts can be ablated."""
    (folder / "best").mkdir(parents=True)
    for name in ("run.json", "best/model.safetensors"):
        (folder / name).write_text("{}")


def test_one_run_is_analysed_with_its_first_stage(scripts):
    make_run(scripts.folder / "models/moe")
    (scripts.folder / "models/moe/stage1").mkdir()
    code, calls, output = scripts.run("understand.sh", "models/moe")
    assert code == 0, output
    assert commands(calls) == ANALYSES
    assert calls[0].endswith("inspect_routes models/moe --before models/moe/stage1")
    assert calls[1] == "example_scripts/create_gif.py --run models/moe"
    assert calls[3].endswith("ablate models/moe --features all")
    assert calls[4].endswith("report models/moe")


def test_a_wrong_flag_stops_the_script(scripts):
    place = write_place(scripts.folder / "made", runs=("run",))
    (place.folder / "run/best/model.safetensors").write_text("")
    code, calls, output = scripts.run(
        "understand.sh", str(place.folder / "run"), really="cli.ablate", ABLATE_FLAGS="--featurs all"
    )
    assert code == 2
    assert "did you mean '--features'" in output
    assert commands(calls)[-1] == "ablate"


def test_several_runs_are_also_analysed_together(scripts):
    code, calls, output = scripts.run(
        "understand.sh", "runs/a", "runs/b", ABLATE_FLAGS="none", OUTPUT_DIR="both"
    )
    assert code == 0, output
    one = ["inspect_routes", "create_gif.py", "correlate_routes"]
    assert commands(calls) == [*one, *one, "inspect_routes", "correlate_routes", "report"]
    assert calls[6].endswith("inspect_routes runs/a runs/b --output_dir both")
    assert calls[8].endswith("report runs/a runs/b --output_file both/report.html")
    assert not any("--before" in call for call in calls)


def test_without_arguments_both_stages_are_trained_first(scripts):
    make_run(scripts.folder / "models/two_stage")
    init = scripts.folder / "models/two_stage/init"  # the merge, which is only recorded, would write it
    init.mkdir()
    (init / "config.json").write_text("{}")
    code, calls, output = scripts.run("understand.sh", ABLATE_FLAGS="--max_examples 4", OUTPUT_DIR="x")
    assert code == 0, output
    assert any("--do_train" in call for call in calls)
    assert not any("--output_dir x" in call for call in calls)  # it is for several runs
    assert commands(calls)[-5:] == ANALYSES
    assert calls[-2].endswith("ablate models/two_stage --max_examples 4")


@pytest.mark.slow
def test_analyses_that_are_not_possible_are_skipped(scripts):
    """The run has one evaluation, hence no animation, and no weights, hence no ablation."""
    place = write_place(scripts.folder / "made", runs=("run",))
    run = place.folder / "run"
    for step in ("10", "30"):
        shutil.rmtree(run / f"{step}-steps")
    code, _, output = scripts.run("understand.sh", str(run), really=True)
    assert code == 0, output
    assert "evaluated only once, nothing to animate" in output
    assert "is analysed without ablation: it has no run.json, or no .safetensors weights" in output
    made = {path.name for path in (run / "analysis").iterdir()}
    assert {"routes.png", "similarity.pdf", "load.png", "dynamics.csv"} <= made
    assert {"correlations.csv", "features.md", "report.html"} <= made
