"""Train a task-level mixture-of-experts on a gym, predict with it, or both.

    routing-moe train --train_dir data/gym --output_dir models/moe
    routing-moe train --train_dir data/gym --output_dir models/moe --resume           continue after a stop
    routing-moe train --do_predict --predict_split test --predict_max_examples 100 --output_dir models/moe
    accelerate launch --num_processes 2 -m routing_moe.cli.train ...              several GPUs, the same steps

The flags of the published code come first, then the additions.
"""

import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from routing_moe.checkpoints.folder import find_checkpoint
from routing_moe.config.console import reporting_errors
from routing_moe.config.flags import command_line, parse
from routing_moe.config.train import TrainSettings, train_settings
from routing_moe.training.checks import Inputs, check_inputs, finished, run_folder_problems

log = logging.getLogger("routing_moe")


def main(argv: list[str] | None = None) -> int:
    values, settings = parse(TrainSettings, argv, __doc__), None
    with reporting_errors(lambda: what_is_kept(settings)) as result:
        settings = train_settings(values)
        if done := finished(settings):
            if os.environ.get("LOCAL_RANK", "0") == "0":
                print(done)
            return 0
        inputs = check_inputs(settings, values)
        result.exit_code = run(inputs.settings, inputs, command_line(TrainSettings, argv))
    return result.exit_code


def run(settings: TrainSettings, inputs: Inputs, command: list[str]) -> int:
    # Torch is imported here, after the checks: it takes seconds.
    from routing_moe.io.accelerator import make_accelerator
    from routing_moe.io.logs import start_logging
    from routing_moe.io.main_process import main_process_lock
    from routing_moe.optim.step import TrainingDiverged
    from routing_moe.pictures.heat_maps import plot_routes
    from routing_moe.pictures.style import save
    from routing_moe.training.run import train_and_predict

    def draw_routes(path: Path, title: str, *routes) -> None:
        save(plot_routes(*routes), path, title)

    accelerator = make_accelerator(settings.mixed_precision)
    with ExitStack() as at_exit:
        at_exit.callback(accelerator.end_training)
        start_logging(accelerator.is_main_process)
        at_exit.enter_context(
            main_process_lock(accelerator, settings.output_dir, lambda: run_folder_problems(settings))
        )
        try:
            train_and_predict(settings, inputs, accelerator, command, draw_routes)
        except TrainingDiverged as error:
            log.error("training stopped: %s; %s. Try a lower learning rate.", error, what_is_kept(settings))
            return 1
    return 0


def what_is_kept(settings: TrainSettings | None) -> str:
    if settings is None:
        return "nothing was started"
    kept = find_checkpoint(Path(settings.output_dir) / "last")
    return f"last good checkpoint: {kept}" if kept else "no checkpoint had been written yet"


if __name__ == "__main__":
    sys.exit(main())
