"""The losses of accepted answers along routes: of tasks' files, and of examples along several routes.

The loss of an example is the negative log-likelihood of its first accepted answer in nats, without label
smoothing: the sum over the tokens of a training target, `<s>` and `</s>` included.
"""

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from dataloader.encoded import EncodedExamples
from dataloader.progress import ProgressBar
from routing_moe.evaluation.batches import (
    ExampleRoutes,
    batch_size,
    draws_of,
    loss_batches,
    own_share,
    run_batches,
)
from routing_moe.evaluation.option_ranking import losses_of
from routing_moe.evaluation.scored_files import Decoding, Pool, TaskFile, batch_of


def losses_of_files(
    model, files: list[TaskFile], decoding: Decoding, accelerator: Accelerator
) -> list[dict[str, np.ndarray]]:
    """Returns of each file {"loss", "smoothed_loss" (of training), "tokens" (targets)} of its examples (n,).

    Losses are in nats; with random routes, means over draws. Processes share the batches; all get all losses.
    """
    pool = Pool(files)
    draws = draws_of(model, pool, decoding, accelerator)
    quiet, size = not accelerator.is_local_main_process, batch_size(model, decoding)
    losses_2KR = _losses(model, pool.encoded, draws, accelerator, size=size, desc="losses", quiet=quiet)
    of_rows = map(pool.by_file, [*losses_2KR.mean(dim=1).numpy(), pool.encoded.target_lengths_N])
    names = ("loss", "smoothed_loss", "tokens")
    return [dict(zip(names, of_file, strict=True)) for of_file in zip(*of_rows, strict=True)]


def losses_along(
    model, examples: EncodedExamples, routes_KLE: Tensor, accelerator: Accelerator
) -> np.ndarray:
    """Returns the losses (R, K) float64 of R examples along each of K routes."""
    draws = [
        ExampleRoutes(route_LE[None], np.zeros(len(examples), dtype=np.int64)) for route_LE in routes_KLE
    ]
    return _losses(model, examples, draws, accelerator, desc="losses along routes", quiet=True)[0].T.numpy()


def losses_of_tasks(
    model, examples: EncodedExamples, routes_NLE: Tensor, accelerator: Accelerator, desc: str
) -> np.ndarray:
    """Returns the losses (R,) float64 of R examples, each along the route of its task; as `losses_along`."""
    draws, quiet = [ExampleRoutes(routes_NLE, examples.task_ids_N)], not accelerator.is_local_main_process
    return _losses(model, examples, draws, accelerator, desc=desc, quiet=quiet)[0][0].numpy()


@torch.no_grad()
def _losses(
    model,
    examples: EncodedExamples,
    draws: list[ExampleRoutes],
    accelerator: Accelerator,
    desc: str,
    quiet: bool,
    size: int | None = None,
) -> Tensor:
    """Returns the loss and the label-smoothed loss (2, K, R) of R examples for K draws of routes."""
    model.eval()
    batches, smoothing = loss_batches(model, examples, draws, size), model.config.label_smoothing
    share = [batches[i] for i in own_share(batches, accelerator)]
    losses_2KR = torch.zeros(2, len(draws), len(examples), dtype=torch.float64)

    def sums_of(bart, indices: np.ndarray, routes_bLE: Tensor | None) -> list[Tensor]:
        inputs = batch_of(examples, indices, model)
        labels_bT = inputs.pop("labels")
        with accelerator.autocast():
            losses_2b = losses_of(bart, inputs, labels_bT, routes_bLE, (0.0, smoothing))
        return list(losses_2b.cpu().double().T)

    running = run_batches(model, share, draws, sums_of)
    for batch, losses in ProgressBar(running, desc, len(share), unit="batch", disable=quiet):
        losses_2KR[:, batch.draw, torch.from_numpy(batch.indices)] = torch.stack(losses).T
    if accelerator.num_processes > 1:
        losses_2KR = accelerator.reduce(losses_2KR.to(accelerator.device), reduction="sum").cpu()
    return losses_2KR
