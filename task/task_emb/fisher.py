"""Fisher vectors: how much the answers of a task depend on each adapter weight in a frozen BART.

    routing-moe vectors fisher --train_dir data/gym --model facebook/bart-base \\
        --output_dir data/task_vectors/fisher
    routing-moe vectors fisher --train_dir data/gym --model facebook/bart-base --weights layers \\
        --average_over unit --output_dir data/task_vectors/fisher_layers
    routing-moe vectors reduce --taskvecs data/task_vectors/fisher --dim 64 \\
        --custom_tasks_splits split.json --output_dir data/task_vectors/fisher64

Bottleneck adapters in every layer, with the same initial weights for all tasks, are trained on the task. The
vector is the diagonal of their empirical Fisher information: the mean over train examples of the squared
gradient of the answer's log-probability (Achille et al. 2019, Vu et al. 2020). With --weights layers, the
weights of BART's own layers are used instead of adapters, with updates the low-rank expert of --model, a run with one.
Only train files are read.
"""

import dataclasses
import sys
from dataclasses import dataclass

from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE, group
from task.task_emb.command import compute_vectors
from task.task_emb.settings import (
    PARTS,
    PUBLISHED,
    PUBLISHED_TRAINING,
    TEXTS,
    TRAINING,
    TrainingSettings,
    recipe_flag,
)

FISHER = group("Fisher information")

DEFAULTS = {
    "adapters": {"bottleneck": 16, "average_over": "weight", "learning_rate": 1e-3},
    "layers": {"average_over": "unit", "learning_rate": 3e-5},
    "updates": {"average_over": "weight", "learning_rate": 1e-3},
}


# fmt: off
@dataclass(frozen=True, kw_only=True)
class FisherSettings(TrainingSettings):
    """The flags of `routing-moe vectors fisher`."""

    program = "routing-moe vectors fisher"
    method = "fisher"
    PUBLISHED_RECIPE = PUBLISHED_TRAINING | {"bottleneck": 8, "average_over": "weight"}

    recipe: str | None = recipe_flag(PUBLISHED_RECIPE)
    weights: str = FISHER("adapters", "weights to train and to compute Fisher information of: adapters in a frozen BART, all weights of its layers, or updates, the low-rank expert of a run with one", choices=tuple(DEFAULTS))
    bottleneck: int | None = FISHER(None, "hidden size of adapters (default: 16)", range=AT_LEAST_1)
    average_over: str | None = FISHER(None, "dimensions of the vector: each weight, or the mean of each output unit, of each weight or bias tensor, or of each layer (default: unit for layers, else weight)", choices=PARTS)
    learning_rate: float | None = TRAINING(None, "peak learning rate, which decays to 0; 0: weights do not change (default: 3e-5 for layers, else 1e-3)", range=NOT_NEGATIVE)
    total_steps: int = TRAINING(200, "optimizer steps", range=AT_LEAST_1)
    max_tokens_per_micro_batch: int = TEXTS(4096, "maximum padded tokens per micro-batch; limits the memory of each process of --num_workers; 0: no limit", range=NOT_NEGATIVE, on_resume=True)  # less than for text: one gradient per example is kept
# fmt: on

    def problems(self) -> list[str]:
        """Returns errors in ranges, lengths and the model."""
        problems = super().problems()
        if self.recipe == PUBLISHED and self.weights != "adapters":
            problems.append(f"--recipe published is for --weights adapters; omit it, or --weights {self.weights}")
        if self.weights == "updates" and not problems and not self.found_model().config.has_lora:
            problems.append(f"--weights updates: --model {self.model} has no low-rank expert")
        return problems

    def resolved(self) -> "FisherSettings":
        default = DEFAULTS.get(self.weights, {})  # {}: `problems` reports it
        missing = {name: value for name, value in default.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **missing)

    def extractor(self):
        from task.task_emb.fisher_information import FisherExtractor  # imports torch, which takes seconds

        return FisherExtractor(self)


def main(argv: list[str] | None = None) -> int:
    return compute_vectors(FisherSettings, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
