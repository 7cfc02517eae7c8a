"""Score one model on unseen tasks, each under the name of the train task that fits its labelled rows best.

    python example_scripts/methods/borrowed_names.py models/dense

This is what `--task_routes lowest_loss` does with the routes of a mixture. Writes the scores of the unseen
tasks in best/, with the prefix names-.
"""

import sys
from pathlib import Path

from find_groups import loaded

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quickstart_results import borrowed_scores

from dataloader.task_splits import load_split
from routing_moe.config.console import reporting_errors
from routing_moe.results.scores import ScoresFile

SCORES = ScoresFile(section="test", prefix="names-")


def main(run: str) -> None:
    routed, gym, names = loaded(run)
    table = borrowed_scores(routed, gym, names, load_split(gym.folder / "split.json").test)
    table.to_csv(Path(run) / SCORES.path)


if __name__ == "__main__":
    with reporting_errors() as result:
        main(*sys.argv[1:])
    sys.exit(result.exit_code)
