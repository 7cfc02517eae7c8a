"""Compose the routes of a mixture with an expert for each cluster of tasks from few experts per layer.

    routing-moe compose models/refined --num_experts 4
    routing-moe train --do_train --initialize_from_vanilla --vanilla_checkpoint models/dense \\
        --train_dir gym --task_routes models/refined/composed4_routes.json --output_dir models/composed

Clusters whose experts have encoders that do the same, by the losses along the encoder of one expert and the
decoder of another, share an expert in the encoder's layers; in the decoder's layers they have different
experts. Writes the routes of the tasks that the mixture was trained on, and beside them the FLOPs of the
losses (.flops), which the cost of a run along these routes includes.
"""

import json
import logging
import sys

import numpy as np

from dataloader.atomic_files import write_text
from dataloader.encoding import TextFormat, encode
from dataloader.errors import InputError
from dataloader.gym import Gym
from routing_moe.checkpoints.find import find_mixture
from routing_moe.cli.console import run_command
from routing_moe.config.compose import ComposeSettings
from routing_moe.config.flags import flag_problems
from routing_moe.config.train import train_settings
from routing_moe.io.files import unwritable
from routing_moe.io.run_folder import settings_of_run
from routing_moe.results.run_cost import FLOPS_SUFFIX

log = logging.getLogger("routing_moe")


def main(argv: list[str] | None = None) -> int:
    return run_command(run, ComposeSettings, argv, __doc__)


def run(settings: ComposeSettings) -> None:
    problems = flag_problems(settings)
    if settings.file.suffix != ".json":
        problems.append(f"--output_file {settings.file}: the name of a file of routes must end in .json")
    if reason := unwritable(settings.file.parent):
        problems.append(f"--output_file {settings.file}: {reason}")
    if problems:
        raise InputError(problems)
    settings_of_run(settings.run)
    trained = train_settings({"do_predict": True, "output_dir": str(settings.run)})
    gym = Gym(trained.train_dir, trained.skip_malformed)
    mixture = find_mixture(settings.run, settings.checkpoint_name, "checkpoint_name")

    # These import torch, after the checks: it takes seconds.
    from routing_moe.analysis.composing import composed_routes
    from routing_moe.checkpoints.tokenizer_files import load_tokenizer
    from routing_moe.io.accelerator import make_accelerator
    from routing_moe.io.logs import start_logging
    from routing_moe.model.flops import rows_flops

    start_logging()
    accelerator = make_accelerator(settings.mixed_precision)
    model = mixture.load().eval().to(accelerator.device)
    tasks = model.config.trained_tasks
    pool = gym.pool(tasks, "train", limit=settings.rows)
    tokenizer = load_tokenizer(mixture.checkpoint, model.config.vocab_size)
    task_ids = {name: row for row, name in enumerate(model.config.task_names)}
    examples = encode(pool, tokenizer, TextFormat.of(trained), task_ids)
    routes, group_K = composed_routes(model, examples, settings.num_experts, accelerator)
    settings.file.parent.mkdir(parents=True, exist_ok=True)
    write_text(settings.file, json.dumps(routes, indent=1))
    # one forward pass over all rows for each pair of an encoder and a decoder
    flops = rows_flops(model.config, examples) * len(group_K) ** 2
    write_text(settings.file.with_suffix(FLOPS_SUFFIX), f"{flops}\n")
    sizes = ", ".join(map(str, np.bincount(group_K).tolist()))
    log.info("%d clusters, whose encoders are in %d groups of %s", len(group_K), settings.num_experts, sizes)
    log.info("%s: routes of %d tasks", settings.file, len(routes))


if __name__ == "__main__":
    sys.exit(main())
