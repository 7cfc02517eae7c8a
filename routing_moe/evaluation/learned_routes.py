"""Routes of unseen tasks that are learned from a few examples, with all experts frozen.

Unlike a learned vector, this needs no router, so it serves mixtures with average and given routes, too.
LoraHub (Huang et al. 2023, arXiv 2307.13269) learns one weight per expert, without gradients; here each layer
has its own weights, which sum to 1, as in MHR-z (Caccia et al. 2022, arXiv 2211.03831).
"""

import numpy as np
import torch
from accelerate import Accelerator

from dataloader.encoding import EncodedExamples
from routing_moe.evaluation.unseen_routes import RouteChoice
from routing_moe.evaluation.unseen_tasks import learn_vector
from routing_moe.model.conversion import with_shared_parameters
from routing_moe.model.selection import route_logits


def learn_route(
    model,
    task: str,
    examples: EncodedExamples,
    steps: int,
    rate: float,
    seed: int,
    accelerator: Accelerator,
    batch_size: int = 32,
    start_LE: np.ndarray | None = None,
) -> RouteChoice:
    """Returns a route (L, E) trained on examples of the task, starting from `start_LE` or equal weights.

    The route is the softmax of logits, which alone are trained, as by `learn_vector`; experts are mixed as
    everywhere in this model, whose own routes do not matter. The model is not changed. Raises ValueError for
    a model with one expert, and TrainingDiverged.
    """
    config = model.config
    if config.num_experts == 1:
        raise ValueError("the model has one expert, so it has no route to learn")
    size = config.num_layers, config.num_experts
    start = np.full(size, 1 / config.num_experts) if start_LE is None else start_LE
    table = with_shared_parameters(model)
    table.config.task_names = [task]
    table.use_table(route_logits(torch.as_tensor(start))[None])
    learned = learn_vector(table, task, examples, steps, rate, seed, accelerator, batch_size)
    route_LE = torch.from_numpy(learned.vector_D).view(size).softmax(dim=-1).numpy()
    words = learned.described().replace("vector", "route")
    return RouteChoice(task, "learned", route_LE, words, learned.seen)
