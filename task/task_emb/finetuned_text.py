"""Text vectors after fine-tuning: as `vectors text`, but the BART is first fine-tuned on the task.

    routing-moe vectors finetuned-text --train_dir data/gym --model facebook/bart-base \\
        --total_steps 100 --learning_rate 3e-5 --output_dir data/task_vectors/finetuned_text

Every task starts from the same BART. Only the inputs and answers of the task's train files are read.
"""

import sys
from dataclasses import dataclass

from task.task_emb.command import compute_vectors
from task.task_emb.settings import PUBLISHED_TRAINING, TrainingSettings, pooling_flag, recipe_flag


@dataclass(frozen=True, kw_only=True)
class FinetunedTextSettings(TrainingSettings):
    """The flags of `routing-moe vectors finetuned-text`."""

    program = "routing-moe vectors finetuned-text"
    method = "finetuned_text"
    PUBLISHED_RECIPE = PUBLISHED_TRAINING

    recipe: str | None = recipe_flag(PUBLISHED_RECIPE)
    pooling: str = pooling_flag()

    def extractor(self):
        from task.task_emb.extractors import FinetunedTextExtractor  # imports torch, which takes seconds

        return FinetunedTextExtractor(self)


def main(argv: list[str] | None = None) -> int:
    return compute_vectors(FinetunedTextSettings, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
