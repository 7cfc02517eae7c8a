"""Gradient vectors: the direction in weight space that makes the answers of a task more probable.

    python -m task.task_emb.gradient --train_dir data/gym --model models/multitask --task_names \\
        --output_dir data/task_vectors/gradient
    python -m task.task_emb.gradient --train_dir data/gym --model models/multitask --task_names \\
        --weights layers --parts sides --clip 1 --output_dir data/task_vectors/gradient_sides

The vector is the mean over train examples of the gradient of the answer's log-probability (summed over its
tokens, without dropout or label smoothing) by the chosen weights of one model for all tasks, usually one that
was trained on all of them. Nothing is trained here. Training puts task names in front of inputs, so give such
a model --task_names; by default, as for all methods, inputs have no names.

Tasks with similar gradients gain from the same steps: so task affinity grouping (Fifty et al. 2021, arXiv
2109.04617) groups tasks, and LESS (Xia et al. 2024, arXiv 2402.04333) selects examples. TASK2VEC (Achille et al. 2019, arXiv 1902.03545) squares the gradients instead,
which loses their signs (python -m task.task_emb.fisher). As in TRAK (Park et al. 2023, arXiv 2303.14186), a
random projection makes them short; it is the same for all tasks.

Vectors are not mean-centred, since the mean would change when tasks are added: whoever compares them
subtracts the mean of the train tasks. Only train files are read.
"""

import math
import sys
from dataclasses import dataclass

from routing_moe.config.flags import NOT_NEGATIVE, POSITIVE_OR_INFINITE, SEED, group
from task.task_emb.command import compute_vectors
from task.task_emb.settings import GymSettings

GRADIENT = group("gradients")

WEIGHTS = ("embeddings", "encoder", "decoder", "layers", "all")
DIVISIONS = ("whole", "sides", "layers")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class GradientSettings(GymSettings):
    """The flags of `python -m task.task_emb.gradient`."""

    program = "python -m task.task_emb.gradient"
    method = "gradient"
    takes_mixtures = True

    recipe: str | None = None  # no flag: the published code has no gradient vectors
    weights: str = GRADIENT("embeddings", "weights to differentiate by: the token embeddings, which the output layer shares; the layers of encoder or decoder; the layers of both; or all weights. Of a mixture, the gradient by a layer is summed over its experts", choices=WEIGHTS)
    parts: str = GRADIENT("whole", "parts of the vector: one; one per side, encoder and decoder; or one per layer, in this order. meta.json says where each is, so that tasks can be compared per side or layer", choices=DIVISIONS)
    clip: float = GRADIENT(math.inf, "maximum norm of an example's gradient, over all chosen weights; longer ones are scaled down before the mean; inf: no clipping", range=POSITIVE_OR_INFINITE)
    projection_dim: int = GRADIENT(512, "dimension of the random projection of each part; shorter parts are not projected; 0: no projection", range=NOT_NEGATIVE)
    projection_seed: int = GRADIENT(42, "seed of the projection, the same for all tasks", range=SEED, needs=("projection",))
# fmt: on

    def unmet_needs(self) -> dict[str, str]:
        return {} if self.projection_dim else {"projection": " --projection_dim 0"}

    def faults(self) -> list[str]:
        """Returns errors in ranges, lengths and the model, and parts that the weights do not have."""
        faults = super().faults()
        if self.parts in DIVISIONS[1:] and self.weights in WEIGHTS and self.weights != "layers":
            faults.append(
                f"--parts is {self.parts}, which needs --weights layers, but --weights is {self.weights}"
            )
        return faults

    def extractor(self):
        from task.task_emb.gradient_extractor import GradientExtractor  # imports torch, which takes seconds

        return GradientExtractor(self)


def main(argv: list[str] | None = None) -> int:
    return compute_vectors(GradientSettings, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
