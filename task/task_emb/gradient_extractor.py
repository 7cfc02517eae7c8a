"""Computes gradient vectors with a BART or a mixture, whose weights do not change."""

import math
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from dataloader.errors import InputError
from routing_moe.io.precision import chosen_precision
from routing_moe.model.route_sources import average
from task.task_emb.extractors import MAX_DIMENSIONS, BartExtractor
from task.task_emb.fisher_information import bart_log_likelihood, fisher_batches
from task.task_emb.mean_gradient import (
    chosen_parameters,
    dimension_of,
    divided,
    mean_gradient,
    projected,
    summed_over_experts,
)


class GradientExtractor(BartExtractor):
    """Computes the mean gradient of a task at one or more checkpoints, projected part by part.

    A vector is divided into parts, and each part into one projected gradient per checkpoint, in the order of
    --checkpoint_names. parts: {part: [start, end]}; {} for --parts whole. Raises InputError if vectors would
    have too many dimensions.
    """

    def __init__(self, settings):
        super().__init__(settings)
        others = [saved.load().to(self.model.device).eval() for saved in settings.found_models()[1:]]
        self.models = [self.model, *others]
        # Not by make_accelerator, which would allow TF32 on a GPU for "no".
        self.uses_bf16 = chosen_precision(settings.mixed_precision) == "bf16"
        for model in self.models:
            # vmap supports the operations of eager attention, but no fused attention kernel.
            model.set_attn_implementation("eager")
            model.requires_grad_(False)  # otherwise torch keeps a second graph, of all weights
        parameters = summed_over_experts(chosen_parameters(self.model, settings.weights))
        by_part = divided(parameters, settings.parts)
        sizes = [sum(tensor.numel() for tensor in tensors) for tensors in by_part.values()]
        dimensions = [dimension_of(n, settings.projection_dim) * len(self.models) for n in sizes]
        if sum(dimensions) > MAX_DIMENSIONS:
            raise InputError(
                f"--weights {settings.weights} --projection_dim {settings.projection_dim}: vectors would "
                f"have {sum(dimensions)} dimensions, more than {MAX_DIMENSIONS}; give another "
                "--projection_dim, such as 4096"
            )
        spans = map(list, pairwise(accumulate(dimensions, initial=0)))
        self.parts = {} if settings.parts == "whole" else dict(zip(by_part, spans, strict=True))

    def vector_of(self, task: str) -> np.ndarray:
        gradients = [divided(self.gradient_of(task, model), self.settings.parts) for model in self.models]
        generator = torch.Generator().manual_seed(self.settings.projection_seed)
        vectors = [
            projected(by_part[part], self.settings.projection_dim, generator)
            for part in gradients[0]
            for by_part in gradients
        ]
        return torch.cat(vectors).numpy()

    def gradient_of(self, task: str, model) -> dict[str, Tensor]:
        """Returns {parameter of a plain BART: mean gradient} of a task's (or sample's) train examples.

        model: one of `models`.
        """
        clip, tokens = self.settings.clip, self.settings.max_tokens_per_micro_batch
        parameters = chosen_parameters(model, self.settings.weights)
        n_parameters = 1  # held per example
        if clip < math.inf:
            n_parameters = sum(p.numel() for p in parameters.values())
        batches = fisher_batches(self.encoded(task), model, tokens, n_parameters)
        plan = model.plan_routes(route_of(model, self.source.of(task)[0].task))
        with torch.autocast(model.device.type, torch.bfloat16, enabled=self.uses_bf16):
            return mean_gradient(bart_log_likelihood(model, plan), parameters, batches, clip)


@torch.no_grad()
def route_of(model, task: str) -> Tensor:
    """Returns the task's own route (1, L, E) if the model was trained on it, else the average route.

    A route of any other task may come from a vector that has seen rows outside the sample at hand.
    """
    config = model.config
    if config.routes_by_task and task in config.trained_tasks and task in config.task_names:
        return model.routes_for([task])
    return average(model, torch.zeros(1))
