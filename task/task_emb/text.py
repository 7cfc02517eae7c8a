"""Text vectors: the mean encoder state of a task's train inputs, from a model that is not trained on them.

    python -m task.task_emb.text --train_dir data/gym --model facebook/bart-base \\
        --output_dir data/task_vectors/text
    python -m task.task_emb.text --train_dir data/gym --model models/moe --output_dir data/texts_of_moe

States are averaged over the tokens of an input (without padding, <s> and </s>), then over inputs; with
--pooling bos, the states at <s> are averaged over inputs. A mixture is run with average routes, as for the
comparison of tasks by --text_vectors of other commands. Task names (except with --task_names), answers, and
dev and test files are not read.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dataloader.gym import Example
from routing_moe.evaluation.text_vectors import encoder_states, text_vectors
from task.task_emb.arguments import gym_parser, with_pooling
from task.task_emb.command import compute_vectors
from task.task_emb.extractors import BartExtractor
from task.task_emb.settings import PUBLISHED_TEXTS, GymSettings


@dataclass(frozen=True, kw_only=True)
class TextSettings(GymSettings):
    """One field per flag of `python -m task.task_emb.text`, which documents them."""

    method: ClassVar[str] = "text"
    reads_answers: ClassVar[bool] = False
    takes_mixtures: ClassVar[bool] = True

    PUBLISHED_RECIPE: ClassVar[dict] = PUBLISHED_TEXTS | {"samples": "all"}

    pooling: str = "mean"

    def extractor(self) -> "TextExtractor":
        return TextExtractor(self)


class TextExtractor(BartExtractor):
    def vector_of(self, task: str) -> np.ndarray:
        return pooled_states(self.model, self.tokenizer, self.source.of(task), self.settings)


def pooled_states(model, tokenizer, examples: Sequence[Example], settings) -> np.ndarray:
    """The text vector (D,) of one task, given its examples."""
    inputs = {examples[0].task: [example.input for example in examples]}
    (vector_D,) = text_vectors(
        encoder_states(model),
        tokenizer,
        inputs,
        settings.text_format,
        settings.max_tokens_per_micro_batch,
        quiet=True,
        pooling=settings.pooling,
        task_names=settings.task_names,
    )
    return vector_D


def build_parser(description: str = "") -> argparse.ArgumentParser:
    return with_pooling(gym_parser(TextSettings, description))


def main(argv: list[str] | None = None) -> int:
    return compute_vectors(TextSettings, build_parser(__doc__), argv)


if __name__ == "__main__":
    sys.exit(main())
