"""Shared by the tests of evaluation: files of encoded examples, a tokenizer, an accelerator."""

import numpy as np
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tiny_steps import encoded, ragged

from dataloader import Example
from dataloader.encoded import EncodedOptions
from routing_moe.evaluation.scored_files import TaskFile

LONGEST = 9  # tokens of an answer
# Models with every kind of routes.
ROUTES = {
    "one-hot": dict(router_mode="gumbel_softmax_st"),
    "soft": dict(router_mode="softmax"),
    "average": dict(route_source="average"),
    "merged parameters": dict(router_mode="softmax", expert_mixing="parameters"),
    "random for each example": dict(route_source="random"),
    "one expert": dict(num_experts=1),
    "a vanilla layer": dict(router_mode="softmax", decoder_vanilla_layers=[0]),
}


class Words:
    """A tokenizer whose texts are the ids of the tokens, without special ones."""

    eos_token_id = 2

    def batch_decode(self, sequences, **kwargs):
        return [" ".join(str(int(i)) for i in row if i > 2) for row in sequences]


def accelerator(**precision) -> Accelerator:
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=True, **precision)


def file_of(task: str, n: int, n_options: int = 0) -> TaskFile:
    """Returns a file of n examples with inputs of 3 to 20 and answers of 3 to LONGEST tokens.

    n_options: options of every second example.
    """
    draw = np.random.default_rng(n)

    def text(longest: int) -> list[int]:
        return [0, *draw.integers(4, 60, draw.integers(1, longest - 1)), 2]

    inputs = encoded([text(20) for _ in range(n)], [text(LONGEST) for _ in range(n)], [0] * n)
    sample = f"{task}_{n}_13"
    examples = [Example(task, sample, f"input {i}", (f"{i}",)) for i in range(n)]
    if not n_options:
        return TaskFile(task, sample, "dev", "EM", examples, inputs)
    own = [np.arange(n_options) if i % 2 else np.zeros(0, dtype=np.int64) for i in range(n)]
    words = [tuple(f"option {row}" for row in rows) for rows in own]
    options = EncodedOptions(ragged([text(LONGEST) for _ in range(n_options)]), own)
    return TaskFile(task, sample, "dev", "ACC", examples, inputs, "field", words, options)
