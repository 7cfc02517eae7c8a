"""Text vectors after fine-tuning: as task.task_emb.text, but the BART is first fine-tuned on the task.

    python -m task.task_emb.finetuned_text --train_dir data/gym --model facebook/bart-base \\
        --total_steps 100 --learning_rate 3e-5 --output_dir data/task_vectors/finetuned_text

Every task starts from the same BART. Only the inputs and answers of the task's train files are read.
"""

import argparse
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from task.task_emb.arguments import training_parser, with_pooling
from task.task_emb.command import compute_vectors
from task.task_emb.extractors import TrainingExtractor
from task.task_emb.settings import PUBLISHED_TRAINING, TrainingSettings
from task.task_emb.text import pooled_states


@dataclass(frozen=True, kw_only=True)
class FinetunedTextSettings(TrainingSettings):
    """One field per flag of `python -m task.task_emb.finetuned_text`, which documents them."""

    method: ClassVar[str] = "finetuned_text"

    PUBLISHED_RECIPE: ClassVar[dict] = PUBLISHED_TRAINING

    pooling: str = "mean"

    def extractor(self) -> "FinetunedTextExtractor":
        return FinetunedTextExtractor(self)


class FinetunedTextExtractor(TrainingExtractor):
    def __init__(self, settings: FinetunedTextSettings):
        super().__init__(settings)
        self.save_initial_weights()

    def vector_of(self, task: str) -> np.ndarray:
        self.train_on(task, self.encoded(task))
        return pooled_states(self.model, self.tokenizer, self.source.of(task), self.settings)


def build_parser(description: str = "") -> argparse.ArgumentParser:
    return with_pooling(training_parser(FinetunedTextSettings, description))


def main(argv: list[str] | None = None) -> int:
    return compute_vectors(FinetunedTextSettings, build_parser(__doc__), argv)


if __name__ == "__main__":
    sys.exit(main())
