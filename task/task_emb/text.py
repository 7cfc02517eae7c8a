"""Text vectors: the mean encoder state of a task's train inputs, from a model that is not trained on them.

    routing-moe vectors text --train_dir data/gym --model facebook/bart-base \\
        --output_dir data/task_vectors/text
    routing-moe vectors text --train_dir data/gym --model models/moe --output_dir data/texts_of_moe

States are averaged over the tokens of an input (without padding, <s> and </s>), then over inputs; with
--pooling bos, the states at <s> are averaged over inputs. A mixture is run with average routes, as for the
comparison of tasks by --text_vectors of other commands. Task names (except with --task_names), answers, and
dev and test files are not read.
"""

import sys
from dataclasses import dataclass

from task.task_emb.command import compute_vectors
from task.task_emb.settings import PUBLISHED_TEXTS, GymSettings, pooling_flag, recipe_flag


@dataclass(frozen=True, kw_only=True)
class TextSettings(GymSettings):
    """The flags of `routing-moe vectors text`."""

    program = "routing-moe vectors text"
    method = "text"
    reads_answers = False
    takes_mixtures = True
    PUBLISHED_RECIPE = PUBLISHED_TEXTS | {"samples": "all"}

    recipe: str | None = recipe_flag(PUBLISHED_RECIPE)
    max_output_length: int = 64  # no flag: no answer is read
    pooling: str = pooling_flag()

    def extractor(self):
        from task.task_emb.extractors import TextExtractor  # imports torch, which takes seconds

        return TextExtractor(self)


def main(argv: list[str] | None = None) -> int:
    return compute_vectors(TextSettings, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
