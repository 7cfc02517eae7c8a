"""Text vectors of tasks: means of encoder states, or a decoder-only model's last states, of their inputs.

The vector of a task is the mean, over its inputs, of each input's mean encoder state (or of its state at
`<s>`). Means exclude padding and the tokens that the tokenizer puts around every text (`<s>`, `</s>`).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dataloader.batching import micro_batches
from dataloader.encoding import TextFormat, encode
from dataloader.errors import InputError
from dataloader.gym import Example
from dataloader.progress import ProgressBar
from routing_moe.model.route_sources import average
from routing_moe.model.task_routing import RoutingModel

StatesOf = Callable[[Tensor, Tensor], Tensor]  # (input_ids (B, S), attention_mask (B, S)) -> states (B, S, D)
BARE = dict(no_prefix=True, prompt_format="crossfit")  # format of inputs without [task] or chat template
CUT_AT_ONCE = 1024  # texts that are split into batches together; limits the time of the optimal split


def text_vectors(
    states_of: StatesOf,
    tokenizer,
    inputs_by_task: Mapping[str, Sequence[str]],
    text_format: TextFormat,
    batch_tokens: int = 16384,
    quiet: bool = False,
    pooling: str = "mean",
    task_names: bool = False,
) -> np.ndarray:
    """Returns text vectors (N, D) as float32, in the order of the mapping.

    states_of: `encoder_states` of a model, or a similar function. batch_tokens: maximum of padded tokens per
    batch; 0: no limit. pooling: one of `config.choices.POOLINGS`. task_names: whether to put the task's name
    before each input, as in training. All inputs have equal weight, independent of their length.
    """
    for task, inputs in inputs_by_task.items():
        if not inputs:
            raise InputError(f"task '{task}' has no inputs to compute a text vector from")
    text_format = text_format if task_names else replace(text_format, **BARE)
    examples = [
        Example(task, task, text, ("",)) for task, inputs in inputs_by_task.items() for text in inputs
    ]
    rows = {task: row for row, task in enumerate(inputs_by_task)}
    encoded = encode(examples, tokenizer, text_format, rows)
    around = torch.tensor(tokenizer("")["input_ids"], dtype=torch.long)
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    means_ND: list = [None] * len(encoded)
    lengths_N = encoded.source_lengths_N
    order = np.argsort(-lengths_N, kind="stable")  # the longest first, so that memory runs out early
    batches = (
        part[group]
        for part in np.split(order, range(CUT_AT_ONCE, len(order), CUT_AT_ONCE))
        for group in reversed(micro_batches(lengths_N[part], np.zeros(len(part)), batch_tokens or None))
    )
    with ProgressBar(total=len(encoded), desc="encoding texts", unit="text", disable=quiet) as progress:
        for indices in batches:
            batch = encoded.prompts(indices, pad_token_id=pad)
            states_BSD = states_of(batch["input_ids"], batch["attention_mask"])
            counts_BS = (batch["attention_mask"] == 1) & ~torch.isin(batch["input_ids"], around)
            if pooling == "bos":
                counts_BS = torch.arange(states_BSD.shape[1]).expand(len(indices), -1) == 0
            weights_BS = counts_BS.to(states_BSD.device, torch.float32)
            sums_BD = torch.einsum("bsd,bs->bd", states_BSD.float(), weights_BS)
            means_BD = sums_BD / weights_BS.sum(dim=1, keepdim=True).clamp(min=1)
            for index, mean_D in zip(indices, means_BD.cpu().numpy(), strict=True):
                means_ND[index] = mean_D
            progress.update(len(indices))
    means_ND = np.stack(means_ND).astype(np.float64)
    vectors = [means_ND[encoded.task_ids_N == row].mean(axis=0) for row in range(len(inputs_by_task))]
    return np.stack(vectors).astype(np.float32)


def encoder_states(model) -> StatesOf:
    """Returns a function that computes the encoder's states without dropout, along average routes if any."""

    @torch.no_grad()
    def states_of(input_ids_BS: Tensor, attention_mask_BS: Tensor) -> Tensor:
        running = nullcontext({})
        if isinstance(model, RoutingModel):
            running = model.using_routes(model.plan_routes(average(model, input_ids_BS)))
        was_training = model.training
        model.eval()
        with running as plan:
            side, others = model.get_encoder(), plan
            if not model.config.is_encoder_decoder:
                side, others = model.get_decoder(), plan | {"use_cache": False}
            inputs = dict(input_ids=input_ids_BS, attention_mask=attention_mask_BS)
            states_BSD = side(**{name: t.to(model.device) for name, t in inputs.items()}, **others)[0]
        model.train(was_training)
        return states_BSD

    return states_of
