"""compare_routings.sh: its variants, what it trains, how it divides FLOPs."""

import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest
from tiny_runs import ROOT, write_gym

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
def test_the_script_trains_missing_runs_compares_and_reports_failures(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in ("SPLIT", "TASKVECS")}
    environment |= dict(PYTHON=sys.executable, OUTPUT_DIR=str(tmp_path / "runs"), TOTAL_STEPS="2", JOBS="2")
    environment |= dict(DATA_DIR=str(write_gym(tmp_path / "gym")), SEEDS="1")
    environment |= dict(MODEL="task/skill_gym/tiny_bart")

    def call(variants, *flags):
        environment["VARIANTS"] = variants
        return subprocess.run(
            ["bash", str(SCRIPT), *flags], env=environment, capture_output=True, text=True, check=False
        )

    done = call("softmax", "--debug", "--max_output_length", "8")
    assert done.returncode == 0, done.stdout + done.stderr
    settings = json.loads((tmp_path / "runs/softmax/seed1/run.json").read_text())["settings"]
    assert (settings["router_mode"], settings["seed"], settings["debug"]) == ("softmax", 1, True)

    again = call("softmax straight_through", "--num_beams", "0")
    assert again.returncode == 1
    assert "exists   softmax/seed1" in again.stdout
    assert "not finished: straight_through/seed1" in again.stderr
    assert "--num_beams is 0" in again.stderr  # the end of its log
    assert "| softmax         |  1 |" in again.stdout
    times = pd.read_csv(tmp_path / "runs/times.csv")
    assert times["ended"].tolist() == ["finished", "failed"]

    refused = call("softmx", "--seed", "3")
    assert refused.returncode == 2
    assert "unknown variant softmx" in refused.stderr
    assert "--seed: cannot be given for all runs" in refused.stderr

    environment |= dict(MATCH="flop", MATCH_TO="two_stage")
    refused = call("softmax")
    assert refused.returncode == 2
    assert "MATCH: flop is not one of steps, flops" in refused.stderr
    assert "MATCH_TO: two_stage is not a variant with one stage" in refused.stderr


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
