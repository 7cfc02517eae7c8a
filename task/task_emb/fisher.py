"""Fisher vectors: how much the answers of a task depend on each adapter weight in a frozen BART.

    python -m task.task_emb.fisher --train_dir data/gym --model facebook/bart-base \\
        --output_dir data/task_vectors/fisher
    python -m task.task_emb.fisher --train_dir data/gym --model facebook/bart-base --weights layers \\
        --average_over unit --output_dir data/task_vectors/fisher_layers
    python -m task.task_emb.reduce --taskvecs data/task_vectors/fisher --dim 64 \\
        --custom_tasks_splits split.json --output_dir data/task_vectors/fisher64

Bottleneck adapters in every layer, with the same initial weights for all tasks, are trained on the task. The
vector is the diagonal of their empirical Fisher information: the mean over train examples of the squared
gradient of the answer's log-probability (Achille et al. 2019, Vu et al. 2020). With --weights layers, the
weights of BART's own layers are used instead of adapters. Only train files are read.
"""

import argparse
import dataclasses
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dataloader.errors import InputError
from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE
from task.task_emb.adapters import insert_adapters, layer_parameters
from task.task_emb.arguments import fisher_parser
from task.task_emb.command import compute_vectors
from task.task_emb.extractors import TrainingExtractor
from task.task_emb.fisher_information import (
    bart_log_likelihood,
    diagonal_fisher,
    fisher_batches,
    fisher_vector,
)
from task.task_emb.settings import PUBLISHED, PUBLISHED_TRAINING, TrainingSettings, number

DEFAULTS = {
    "adapters": {"bottleneck": 16, "average_over": "weight", "learning_rate": 1e-3},
    "layers": {"average_over": "unit", "learning_rate": 3e-5},
}
MAX_DIMENSIONS = 2**25  # of a vector, 128 MB; the main process holds the vectors of all tasks in memory


@dataclass(frozen=True, kw_only=True)
class FisherSettings(TrainingSettings):
    """One field per flag of `python -m task.task_emb.fisher`, which documents them."""

    method: ClassVar[str] = "fisher"
    WEIGHTS: ClassVar[tuple[str, ...]] = ("adapters", "layers")
    PUBLISHED_RECIPE: ClassVar[dict] = PUBLISHED_TRAINING | {"bottleneck": 8, "average_over": "weight"}

    weights: str = "adapters"
    bottleneck: int | None = number(None, AT_LEAST_1)
    average_over: str | None = None
    learning_rate: float | None = number(None, NOT_NEGATIVE)
    total_steps: int = number(200, AT_LEAST_1)
    max_tokens_per_micro_batch: int = number(
        4096, NOT_NEGATIVE
    )  # less than for text: one gradient per example is kept

    def faults(self) -> list[str]:
        """Errors in ranges, lengths and the model, and unused flags."""
        faults = super().faults()
        if self.recipe == PUBLISHED and self.weights == "layers":
            faults.append("--recipe published is for --weights adapters; omit it, or --weights layers")
        elif self.weights == "layers" and self.bottleneck is not None:
            faults.append("--bottleneck has no effect with --weights layers: there are no adapters")
        return faults

    def resolved(self) -> "FisherSettings":
        default = DEFAULTS[self.weights]
        given = {name: getattr(self, name) for name in default}
        chosen = {name: default[name] if value is None else value for name, value in given.items()}
        return dataclasses.replace(self, **chosen)

    def extractor(self) -> "FisherExtractor":
        return FisherExtractor(self)


class FisherExtractor(TrainingExtractor):
    """Trains the weights, then computes their Fisher information.

    Raises InputError if the bottleneck is wider than the model or vectors would have too many dimensions.
    """

    def __init__(self, settings: FisherSettings):
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

    def fisher_of(self, task: str, compute=diagonal_fisher) -> dict:
        """Fisher information of the current weights on a task's train examples, by parameter name."""
        parameters = {name: p.detach() for name, p in self.parameters.items()}
        n_parameters = sum(p.numel() for p in parameters.values())
        examples, tokens = self.encoded(task), self.settings.max_tokens_per_micro_batch
        batches = fisher_batches(examples, self.model, tokens, n_parameters)
        return compute(bart_log_likelihood(self.model), parameters, batches)


def build_parser(description: str = "") -> argparse.ArgumentParser:
    return fisher_parser(FisherSettings, description)


def main(argv: list[str] | None = None) -> int:
    return compute_vectors(FisherSettings, build_parser(__doc__), argv)


if __name__ == "__main__":
    sys.exit(main())
