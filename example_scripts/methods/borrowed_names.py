"""Score one model on unseen tasks, each under the name of the train task that fits its labelled rows best.

    python example_scripts/methods/borrowed_names.py models/dense

This is what `--task_routes lowest_loss` does with the routes of a mixture. Writes the scores of the unseen
tasks in best/, with the prefix names-.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also without installation
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quickstart_results import borrowed_scores

from dataloader.gym import Gym
from dataloader.task_splits import load_split
from routing_moe import Routed
from routing_moe.config.console import reporting_errors
from routing_moe.io.run_folder import load_run_settings
from routing_moe.results.scores import ScoresFile

SCORES = ScoresFile(section="test", prefix="names-")


def main(run: str) -> None:
    gym, routed = Gym(load_run_settings(Path(run))["train_dir"]), Routed.load(run)
    unseen = load_split(gym.folder / "split.json").test
    table = borrowed_scores(routed, gym, routed.model.config.trained_tasks, unseen)
    table.to_csv(Path(run) / SCORES.path)


if __name__ == "__main__":
    with reporting_errors() as result:
        main(*sys.argv[1:])
    sys.exit(result.exit_code)
