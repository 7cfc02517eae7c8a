"""Fisher vectors: how much each adapter weight of a frozen BART matters for the answers of a task.

    python -m task.task_emb.fisher --train_dir data/gym --model facebook/bart-base \\
        --output_dir data/task_vectors/fisher
    python -m task.task_emb.fisher --train_dir data/gym --model facebook/bart-base --weights layers \\
        --average_over unit --output_dir data/task_vectors/fisher_layers
    python -m task.task_emb.reduce --taskvecs data/task_vectors/fisher --dim 64 \\
        --custom_tasks_splits split.json --output_dir data/task_vectors/fisher64

Bottleneck adapters in every layer, the same at the start for all tasks, are trained on the task; the vector
is the diagonal of their empirical Fisher information, the mean over train examples of the squared gradient
of the answer's log-probability (Achille et al. 2019, Vu et al. 2020). With --weights layers, BART's own
layers are trained and looked at. Only train files are read.
"""

import argparse
import dataclasses
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dataloader.errors import InputError
from task.task_emb.adapters import insert_adapters, layer_parameters
from task.task_emb.arguments import fisher_parser
from task.task_emb.benches import TrainingBench
from task.task_emb.command import compute_vectors
from task.task_emb.fisher_information import (
    bart_log_likelihood,
    diagonal_fisher,
    fisher_batches,
    fisher_vector,
)
from task.task_emb.settings import PUBLISHED, PUBLISHED_TRAINING, TrainingSettings

DEFAULTS = {
    "adapters": {"bottleneck": 16, "average_over": "weight", "learning_rate": 1e-3},
    "layers": {"average_over": "unit", "learning_rate": 3e-5},
}
MOST_DIMENSIONS = 2**25  # of a vector; 128 MB, which the process that collects them holds for every task


@dataclass(frozen=True, kw_only=True)
class FisherSettings(TrainingSettings):
    """One field per flag of `python -m task.task_emb.fisher`, which documents them."""

    method: ClassVar[str] = "fisher"
    WEIGHTS: ClassVar[tuple[str, ...]] = ("adapters", "layers")
    PUBLISHED_RECIPE: ClassVar[dict] = PUBLISHED_TRAINING | {"bottleneck": 8, "average_over": "weight"}

    weights: str = "adapters"
    bottleneck: int | None = None
    average_over: str | None = None
    learning_rate: float | None = None
    total_steps: int = 200
    max_tokens_per_micro_batch: int = 4096  # every example has a gradient, and activations, of its own

    def faults(self) -> list[str]:
        """Ranges, lengths, the model, and a flag that would do nothing."""
        if self.recipe == PUBLISHED and self.weights == "layers":
            fault = "--recipe published is one of adapters; leave it or --weights layers out"
            return [*super().faults(), fault]
        idle = self.weights == "layers" and self.bottleneck is not None
        told = ["--bottleneck has no effect with --weights layers: there are no adapters"] if idle else []
        return super().faults() + told

    def resolved(self) -> "FisherSettings":
        default = DEFAULTS[self.weights]
        given = {name: getattr(self, name) for name in default}
        chosen = {name: default[name] if value is None else value for name, value in given.items()}
        return dataclasses.replace(self, **chosen)

    def bench(self) -> "FisherBench":
        return FisherBench(self)


class FisherBench(TrainingBench):
    """Raises InputError for a bottleneck wider than the model, and for vectors of too many dimensions."""

    def __init__(self, settings: FisherSettings):
        settings = settings.resolved()
        super().__init__(settings)
        # vmap has rules for eager attention's operations, but for no fused kernel's.
        self.model.set_attn_implementation("eager")
        if settings.weights == "adapters":
            width = self.model.config.d_model
            if settings.bottleneck > width:
                raise InputError(f"--bottleneck is {settings.bottleneck}, wider than the model's {width}")
            self.parameters = insert_adapters(self.model, settings.bottleneck, settings.seed)
        else:
            self.parameters = layer_parameters(self.model)
        dimensions = len(fisher_vector(self.parameters, settings.average_over))
        if dimensions > MOST_DIMENSIONS:
            raise InputError(
                f"--weights {settings.weights} --average_over {settings.average_over}: a vector would have "
                f"{dimensions} dimensions, more than {MOST_DIMENSIONS}; average over units or tensors"
            )
        self.keep_start()

    def vector_of(self, task: str) -> np.ndarray:
        self.train_on(task, self.encoded(task))
        return fisher_vector(self.fisher_of(task), self.settings.average_over).cpu().numpy()

    def fisher_of(self, task: str, compute=diagonal_fisher) -> dict:
        """Fisher information on a task's train examples, of the weights as they are now."""
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
