"""compare_routings.sh: its variants, what it trains, how it divides FLOPs."""

import json
import re
import subprocess

import pandas as pd
import pytest
from tiny_runs import ROOT

from routing_moe.config.flags import parse
from routing_moe.config.train import TrainSettings

SCRIPT = ROOT / "example_scripts/compare_routings.sh"


def test_every_variant_of_the_script_has_existing_flags():
    (names,) = re.findall(r'^ALL="(.*)"', SCRIPT.read_text(), flags=re.MULTILINE)
    command = f"source example_scripts/variants.sh; for variant in {names}; do script_of $variant; done"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    calls = [line.split() for line in done.stdout.splitlines()]
    assert len(calls) == len(names.split()) == len({tuple(call) for call in calls})
    for script, *flags in calls:
        assert (ROOT / "example_scripts" / script).is_file()
        parse(TrainSettings, ["--output_dir", "x", *flags])


@pytest.mark.slow
def test_the_script_trains_missing_runs_compares_and_reports_failures(scripts):
    environment = dict(
        OUTPUT_DIR="runs", TOTAL_STEPS="2", JOBS="2", SEEDS="1", MODEL="task/skill_gym/tiny_bart"
    )

    def call(variants, *flags):
        code, _, output = scripts.run(SCRIPT.name, *flags, really=True, VARIANTS=variants, **environment)
        return code, output

    code, output = call("softmax", "--debug", "--max_output_length", "8")
    assert code == 0, output
    runs = scripts.folder / "runs"
    settings = json.loads((runs / "softmax/seed1/run.json").read_text())["settings"]
    assert (settings["router_mode"], settings["seed"], settings["debug"]) == ("softmax", 1, True)

    code, output = call("softmax straight_through", "--num_beams", "0")
    assert code == 1
    assert "exists   softmax/seed1" in output
    assert "not finished: straight_through/seed1" in output
    assert "--num_beams is 0" in output  # the end of its log
    assert "| softmax         |  1 |" in output
    times = pd.read_csv(runs / "times.csv")
    assert times["ended"].tolist() == ["finished", "failed"]

    code, output = call("softmx", "--seed", "3")
    assert code == 2
    assert "unknown variant softmx" in output
    assert "--seed: cannot be given for all runs" in output

    environment |= dict(MATCH="flop", MATCH_TO="two_stage")
    code, output = call("softmax")
    assert code == 2
    assert "MATCH: flop is not one of steps, flops" in output
    assert "MATCH_TO: two_stage is not a variant with one stage" in output


EQUAL_FLOPS = """
source example_scripts/equal_flops.sh
script_of() { echo train_routing_bart.sh --router_mode softmax; }
finished() { false; }
bash() {
    echo "$OUTPUT_DIR: $TOTAL_STEPS $*" >>calls
    case $* in *merged*) echo 4 ;; *flops*) echo 7 ;; esac
}
OUTPUT_DIR=runs MATCH_TO=straight_through TOTAL_STEPS=1 MIXTURE_FLAGS="--num_experts 4" INIT_EPS=1e-2
for variant in straight_through softmax two_stage; do
    (equal_flops $variant 3 --debug >/dev/null && echo $variant $TOTAL_STEPS $OWN_STAGE1 $STAGE2_STEPS)
done
"""


def test_at_equal_flops_every_variant_computes_its_steps_and_two_stages_share_them(tmp_path):
    (tmp_path / "example_scripts").symlink_to(ROOT / "example_scripts")
    (tmp_path / "runs").mkdir()
    for _ in range(2):  # the second time nothing is asked again
        done = subprocess.run(
            ["bash", "-c", EQUAL_FLOPS], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        lines = ["straight_through 1", "softmax 7", "two_stage 1 runs/two_stage/seed3/stage1 4"]
        assert done.stdout.splitlines() == lines
    calls = (tmp_path / "calls").read_text().splitlines()
    asked = [call for call in calls if call.endswith("--equal_flops runs/straight_through/seed3")]
    assert [call.split(": 1 example_scripts/")[0] for call in asked] == [
        "runs/softmax/seed3", "runs/two_stage/seed3/stage1", "runs/two_stage/seed3"
    ]  # fmt: skip
    stage_1 = (
        "4 example_scripts/train_routing_bart.sh --init_eps 1e-2 --num_experts 4 --seed 3 --debug --resume"
    )
    assert f"runs/two_stage/seed3/stage1: {stage_1}" in calls
