"""Gradient vectors: the direction in weight space that makes the answers of a task more probable.

    routing-moe vectors gradient --train_dir data/gym --model models/multitask --task_names \\
        --output_dir data/task_vectors/gradient
    routing-moe vectors gradient --train_dir data/gym --model models/no_names --hide_task_names \\
        --output_dir data/task_vectors/gradient_no_names
    routing-moe vectors gradient --train_dir data/gym --model models/multitask --task_names \\
        --weights layers --parts sides --output_dir data/task_vectors/gradient_sides

The vector is the mean over train examples of the gradient of the answer's log-probability (summed over its
tokens, without dropout or label smoothing) by the chosen weights of one model for all tasks, usually one that
was trained on all of them. Nothing is trained here. Inputs should be those of the training: give --task_names,
or --hide_task_names for a model that was trained with this flag. Without names, such a model cannot learn which
task has which answers, so its gradients still differ between tasks late in training.

Tasks with similar gradients benefit from the same steps: so task affinity grouping (Fifty et al. 2021, arXiv
2109.04617) groups tasks, and LESS (Xia et al. 2024, arXiv 2402.04333) selects examples. TASK2VEC (Achille et al.
2019, arXiv 1902.03545) squares the gradients instead, which loses their signs (routing-moe vectors fisher). As in
TRAK (Park et al. 2023, arXiv 2303.14186), a random projection makes them short; it is the same for all tasks.

Vectors are not mean-centred, since the mean would change when tasks are added: subtract the
mean of the train tasks before comparing them. Only train files are read.
"""

import sys
from dataclasses import dataclass

from routing_moe.config.flags import NOT_NEGATIVE, SEED, group
from task.task_emb.command import compute_vectors
from task.task_emb.settings import TEXTS, GymSettings

GRADIENT = group("gradients")

WEIGHTS = ("embeddings", "encoder", "decoder", "layers", "all", "updates")
DIVISIONS = ("whole", "sides", "layers")
GRADIENT_PRECISIONS = (
    "no",
    "auto",
    "bf16",
)  # not fp16: small gradients underflow, and nothing scales the loss


# fmt: off
@dataclass(frozen=True, kw_only=True)
class GradientSettings(GymSettings):
    """The flags of `routing-moe vectors gradient`."""

    program = "routing-moe vectors gradient"
    method = "gradient"
    takes_mixtures = True

    recipe: str | None = None  # no flag: the published code has no gradient vectors
    hide_task_names: bool = TEXTS(False, "begin every input with [task] instead of the task's name, as in training with this flag")
    weights: str = GRADIENT("embeddings", "weights to differentiate by: the token embeddings, which the output layer shares; the layers of encoder or decoder; the layers of both; all weights; or updates, the low-rank experts of a mixture, which the others leave out. Of a mixture of layers, the gradient by a layer is summed over its experts", choices=WEIGHTS)
    parts: str = GRADIENT("whole", "parts of the vector: one; one per side, encoder and decoder; or one per layer, in this order. meta.json says where each is, so that tasks can be compared per side or layer", choices=DIVISIONS)
    projection_dim: int = GRADIENT(4096, "dimension of the random projection of each part of a gradient; shorter parts are not projected; 0: no projection", range=NOT_NEGATIVE)
    projection_seed: int = GRADIENT(42, "seed of the projection, the same for all tasks", range=SEED)
    mixed_precision: str = GRADIENT("no", "precision of matrix products; gradients are summed in float32. auto: bf16 on a GPU that supports it, else no", choices=GRADIENT_PRECISIONS)
# fmt: on

    def problems(self) -> list[str]:
        """Returns errors in ranges, lengths and the model, and flags that do not fit together."""
        problems = super().problems()
        if self.task_names and self.hide_task_names:
            problems.append(
                "--task_names and --hide_task_names exclude each other; give the one that the model was trained with"
            )
        undivided = self.weights in WEIGHTS and self.weights not in ("layers", "updates")
        if self.parts in DIVISIONS[1:] and undivided:
            problems.append(
                f"--parts is {self.parts}, which needs --weights layers or updates, but --weights is "
                f"{self.weights}"
            )
        return problems

    def extractor(self):
        from task.task_emb.mean_gradient import GradientExtractor  # imports torch, which takes seconds

        return GradientExtractor(self)


def main(argv: list[str] | None = None) -> int:
    return compute_vectors(GradientSettings, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
