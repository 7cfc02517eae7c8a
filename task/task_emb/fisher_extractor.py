"""Computes Fisher vectors: trains adapters or layers on a task, then measures their Fisher information."""

import numpy as np

from dataloader.errors import InputError
from task.task_emb.adapters import insert_adapters, layer_parameters
from task.task_emb.extractors import MAX_DIMENSIONS, TrainingExtractor
from task.task_emb.fisher_information import (
    bart_log_likelihood,
    diagonal_fisher,
    fisher_batches,
    fisher_vector,
)
from task.task_emb.settings import TrainingSettings


class FisherExtractor(TrainingExtractor):
    """Trains the weights, then computes their Fisher information.

    Raises InputError if the bottleneck is wider than the model or vectors would have too many dimensions.
    """

    def __init__(self, settings: TrainingSettings):
        settings = settings.resolved()
        super().__init__(settings)
        # vmap supports the operations of eager attention, but no fused attention kernel.
        self.model.set_attn_implementation("eager")
        if settings.weights == "adapters":
            width = self.model.config.d_model
            if settings.bottleneck > width:
                raise InputError(
                    f"--bottleneck is {settings.bottleneck}; it must be at most {width}, the hidden size of "
                    f"{settings.model}"
                )
            self.parameters = insert_adapters(self.model, settings.bottleneck, settings.seed)
        else:
            self.parameters = layer_parameters(self.model)
        dimensions = len(fisher_vector(self.parameters, settings.average_over))
        if dimensions > MAX_DIMENSIONS:
            raise InputError(
                f"--weights {settings.weights} --average_over {settings.average_over}: vectors would have "
                f"{dimensions} dimensions, more than {MAX_DIMENSIONS}; give --average_over unit or tensor"
            )
        self.save_initial_weights()

    def vector_of(self, task: str) -> np.ndarray:
        self.train_on(task, self.encoded(task))
        return fisher_vector(self.fisher_of(task), self.settings.average_over).cpu().numpy()

    def fisher_of(self, task: str) -> dict:
        """Returns {parameter: Fisher information} of the current weights on a task's train examples."""
        parameters = {name: p.detach() for name, p in self.parameters.items()}
        n_parameters = sum(p.numel() for p in parameters.values())
        examples, tokens = self.encoded(task), self.settings.max_tokens_per_micro_batch
        batches = fisher_batches(examples, self.model, tokens, n_parameters)
        return diagonal_fisher(bart_log_likelihood(self.model), parameters, batches)
