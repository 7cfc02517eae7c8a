"""Gradient vectors: the direction in weight space that makes the answers of a task more probable.

    python -m task.task_emb.gradient --train_dir data/gym --model models/multitask --task_names \\
        --output_dir data/task_vectors/gradient
    python -m task.task_emb.gradient --train_dir data/gym --model models/no_names --hide_task_names \\
        --checkpoint_names 600-steps 800-steps 1000-steps --output_dir data/task_vectors/gradient
    python -m task.task_emb.gradient --train_dir data/gym --model models/multitask --task_names \\
        --weights layers --parts sides --clip 1 --output_dir data/task_vectors/gradient_sides

The vector is the mean over train examples of the gradient of the answer's log-probability (summed over its
tokens, without dropout or label smoothing) by the chosen weights of one model for all tasks, usually one that
was trained on all of them. Nothing is trained here. Texts must be those that the model was trained on: give
--task_names, or --hide_task_names for a model that was trained with this flag. Such a model cannot memorise
which answers a task has, so its gradients keep telling tasks apart.

Tasks with similar gradients gain from the same steps: so task affinity grouping (Fifty et al. 2021, arXiv
2109.04617) groups tasks, and LESS (Xia et al. 2024, arXiv 2402.04333) selects examples. As in LESS, gradients
at several checkpoints of a run can be combined: they are concatenated. TASK2VEC (Achille et al. 2019, arXiv
1902.03545) squares the gradients instead, which loses their signs (python -m task.task_emb.fisher). As in TRAK
(Park et al. 2023, arXiv 2303.14186), a random projection makes them short; it is the same for all tasks.

Vectors are not mean-centred, since the mean would change when tasks are added: whoever compares them
subtracts the mean of the train tasks. Only train files are read.
"""

import math
import sys
from dataclasses import dataclass

from dataloader.errors import Faults, InputError
from routing_moe.checkpoints.find import SavedMixture, find_mixture
from routing_moe.config.flags import NOT_NEGATIVE, POSITIVE_OR_INFINITE, SEED, group
from task.task_emb.command import compute_vectors
from task.task_emb.settings import DATA, TEXTS, GymSettings

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
    checkpoint_names: tuple[str, ...] = DATA((), "checkpoints of the run --model, such as 800-steps 1000-steps; the vector consists of the gradients at each (default: the best checkpoint)", metavar="NAME")
    hide_task_names: bool = TEXTS(False, "begin every input with [task], as in training with this flag")
    weights: str = GRADIENT("embeddings", "weights to differentiate by: the token embeddings, which the output layer shares; the layers of encoder or decoder; the layers of both; or all weights. Of a mixture, the gradient by a layer is summed over its experts", choices=WEIGHTS)
    parts: str = GRADIENT("whole", "parts of the vector: one; one per side, encoder and decoder; or one per layer, in this order. meta.json says where each is, so that tasks can be compared per side or layer", choices=DIVISIONS)
    clip: float = GRADIENT(math.inf, "maximum norm of an example's gradient, over all chosen weights; longer ones are scaled down before the mean; inf: no clipping", range=POSITIVE_OR_INFINITE)
    projection_dim: int = GRADIENT(4096, "dimension of the random projection of each part of a gradient; shorter parts are not projected; 0: no projection", range=NOT_NEGATIVE)
    projection_seed: int = GRADIENT(42, "seed of the projection, the same for all tasks", range=SEED, needs=("projection",))
# fmt: on

    def unmet_needs(self) -> dict[str, str]:
        return {} if self.projection_dim else {"projection": " --projection_dim 0"}

    def faults(self) -> list[str]:
        """Returns errors in ranges, lengths and the model, and parts that the weights do not have."""
        faults = Faults(super().faults())
        if self.task_names and self.hide_task_names:
            faults.append("--task_names and --hide_task_names exclude each other; give that of the training")
        if self.checkpoint_names:
            faults.of(self.found_models, flag="checkpoint_names")
        if self.parts in DIVISIONS[1:] and self.weights in WEIGHTS and self.weights != "layers":
            faults.append(
                f"--parts is {self.parts}, which needs --weights layers, but --weights is {self.weights}"
            )
        return list(faults)

    def found_models(self) -> list[SavedMixture]:
        """Returns the checkpoints of --checkpoint_names, found on disk but not loaded. Raises InputError."""
        repeated = [name for name in self.checkpoint_names if self.checkpoint_names.count(name) > 1]
        if repeated:
            raise InputError(f"{repeated[0]} is given more than once")
        return [find_mixture(self.model, name, "checkpoint_names") for name in self.checkpoint_names]

    def found_model(self):
        return self.found_models()[0] if self.checkpoint_names else super().found_model()

    def model_files(self) -> dict[str, str]:
        """Returns {file: SHA-256} of the model, with the checkpoint's name if several are given."""
        files = super().model_files()
        for found in self.found_models():
            files |= {f"{found.checkpoint.name}/{name}": sha for name, sha in found.checksums().items()}
        return files

    def extractor(self):
        from task.task_emb.gradient_extractor import GradientExtractor  # imports torch, which takes seconds

        return GradientExtractor(self)


def main(argv: list[str] | None = None) -> int:
    return compute_vectors(GradientSettings, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
