"""Diagonal empirical Fisher information: the mean over examples of the squared gradient of log p(y | x).

Task2Vec (Achille et al. 2019, arXiv 1902.03545) and Vu et al. (2020, arXiv 2005.00770) make vectors of tasks
of it: it is large where a weight matters for the task's answers. The gradient is squared example by example;
`torch.func` gives those of a whole batch in one backward pass.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from transformers.models.bart.modeling_bart import shift_tokens_right

from dataloader.batching import micro_batches
from dataloader.encoding import IGNORED_LABEL, EncodedExamples

PARTS = ("weight", "unit", "tensor", "layer")  # what one number of a vector stands for
GRADIENT_NUMBERS = 2**28  # of one batch, all its examples' gradients together: 1 GiB in float32

Parameters = dict[str, Tensor]
Batch = dict[str, Tensor]  # the first dimension of each counts examples
LogLikelihood = Callable[[Parameters, Batch], Tensor]  # of one example, without that dimension; in nats


def diagonal_fisher(
    log_likelihood: LogLikelihood, parameters: Parameters, batches: Iterable[Batch]
) -> Parameters:
    """For each parameter its Fisher information, of the same shape, in float64.

    The log-likelihood must be made of operations that `torch.func.vmap` knows. Raises ValueError if there is
    no example.
    """
    return _mean_square(vmap(grad(log_likelihood), in_dims=(None, 0)), parameters, batches)


def diagonal_fisher_one_by_one(
    log_likelihood: LogLikelihood, parameters: Parameters, batches: Iterable[Batch]
) -> Parameters:
    """The same by a backward pass for each example: slow and plain, what the fast way is tested against."""

    def gradients(parameters: Parameters, example: Batch) -> Parameters:
        given = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        found = torch.autograd.grad(log_likelihood(given, example), list(given.values()))
        return {name: gradient[None] for name, gradient in zip(given, found, strict=True)}

    examples = (
        {name: tensor[i] for name, tensor in batch.items()}
        for batch in batches
        for i in range(len(next(iter(batch.values()))))
    )
    return _mean_square(gradients, parameters, examples, is_batch=False)


def _mean_square(gradients, parameters: Parameters, batches: Iterable[Batch], is_batch=True) -> Parameters:
    """gradients(parameters, batch): those of each example, {name: (B, ...)}."""
    sums = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in parameters.items()}
    n = 0
    for batch in batches:
        for name, of_each in gradients(parameters, batch).items():
            sums[name] += of_each.square().sum(dim=0, dtype=torch.float64)
        n += len(next(iter(batch.values()))) if is_batch else 1
    if n == 0:
        raise ValueError("Fisher information is a mean over examples, and there is none")
    return {name: total / n for name, total in sums.items()}


# ---- of a BART


def bart_log_likelihood(model) -> LogLikelihood:
    """log p(answer | input) of a (routing) BART: over all answer tokens, without label smoothing or dropout.

    parameters: any of the model's, by their names; batch: of `fisher_batches`. The model must be in eval mode
    with eager attention, whose operations vmap knows.
    """

    def log_likelihood(parameters: Parameters, example: Batch) -> Tensor:
        labels_T = example["labels"]
        T = len(labels_T)
        states_TD = functional_call(
            _States(model),
            {f"model.{name}": value for name, value in parameters.items()},
            kwargs=dict(
                input_ids=example["input_ids"][None],
                attention_mask=example["source_mask"][None],
                decoder_input_ids=example["decoder_input_ids"][None],
                decoder_attention_mask=blocked(torch.ones(T, T, device=labels_T.device).tril() == 0)[
                    None, None
                ],
            ),
        )
        return -nn.functional.cross_entropy(states_TD, labels_T, ignore_index=IGNORED_LABEL, reduction="sum")

    return log_likelihood


class _States(nn.Module):
    """Logits (T, V) of one example."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, **inputs) -> Tensor:
        states_1TD = self.model.model(**inputs, use_cache=False)[0]
        return (self.model.lm_head(states_1TD) + self.model.final_logits_bias)[0]


def blocked(is_blocked: Tensor) -> Tensor:
    """What is added to attention scores: 0, and a very low number where nothing is to be seen.

    Not the usual mask of 0 and 1: the library looks into that to leave it out, which vmap does not allow.
    """
    return is_blocked.float() * torch.finfo(torch.float32).min


def fisher_batches(examples: EncodedExamples, model, max_tokens: int, n_parameters: int) -> Iterator[Batch]:
    """All examples, each with its first accepted answer, in batches of similar length.

    max_tokens: padded tokens of a batch; n_parameters: numbers of one example's gradient, which bound it too.
    """
    config = model.config
    groups = micro_batches(
        examples.source_lengths_N,
        examples.target_lengths_N,
        max_tokens=max_tokens or None,
        max_examples=max(1, GRADIENT_NUMBERS // n_parameters),
    )
    for indices in groups:
        batch = examples.collate(indices, pad_token_id=config.pad_token_id)
        targets_BT = batch["labels"].masked_fill(batch["labels"] == IGNORED_LABEL, config.pad_token_id)
        tensors = {
            "input_ids": batch["input_ids"],
            "source_mask": blocked(batch["attention_mask"] == 0)[:, None, None],
            "decoder_input_ids": shift_tokens_right(
                targets_BT, config.pad_token_id, config.decoder_start_token_id
            ),
            "labels": batch["labels"],
        }
        yield {name: tensor.to(model.device) for name, tensor in tensors.items()}


# ---- to a vector


def fisher_vector(fisher: Parameters, part: str) -> Tensor:
    """One number per part, (D,) float64, in the order of the parameters.

    part: "weight": every weight; "unit": the mean over the inputs of each output unit (Achille et al.'s
    filter); "tensor": the mean of each weight or bias tensor; "layer": the mean of all weights of each layer.
    """
    if part == "weight":
        return torch.cat([value.flatten() for value in fisher.values()])
    if part == "unit":
        return torch.cat(
            [value.flatten(1).mean(dim=1) if value.ndim > 1 else value for value in fisher.values()]
        )
    if part == "tensor":
        return torch.stack([value.mean() for value in fisher.values()])
    if part != "layer":
        raise ValueError(f"part is {part!r}; choose from {', '.join(PARTS)}")
    layers: dict[str, list[Tensor]] = {}
    for name, value in fisher.items():
        side, _, rest = name.partition(".layers.")
        layers.setdefault(f"{side} {rest.split('.')[0]}", []).append(value.flatten())
    return torch.stack([torch.cat(values).mean() for values in layers.values()])
