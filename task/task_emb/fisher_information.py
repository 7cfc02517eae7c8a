"""Diagonal empirical Fisher information: the mean over examples of the squared gradient of log p(y | x).

Task2Vec (Achille et al. 2019, arXiv 1902.03545) and Vu et al. (2020, arXiv 2005.00770) use it as a task
vector: it is large for weights that the task's answers depend on. Gradients are squared per example;
`torch.func` computes those of a whole batch in one backward pass.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from transformers.models.bart.modeling_bart import BartDecoderLayer, BartEncoderLayer, shift_tokens_right

from dataloader.batching import micro_batches
from dataloader.encoding import IGNORED_LABEL, EncodedExamples
from dataloader.errors import InputError
from routing_moe.model.lora import is_of_expert
from routing_moe.model.routed_layer import RoutePlan
from task.task_emb.extractors import MAX_DIMENSIONS, UPDATES, TrainingExtractor
from task.task_emb.settings import PARTS, TrainingSettings

MAX_GRADIENT_NUMBERS = 2**28  # in the gradients of all examples of a batch together: 1 GiB in float32

Parameters = dict[str, Tensor]
Batch = dict[str, Tensor]  # the first dimension of every tensor is the batch dimension
LogLikelihood = Callable[[Parameters, Batch], Tensor]  # of one example, without batch dimension; in nats


def diagonal_fisher(
    log_likelihood: LogLikelihood, parameters: Parameters, batches: Iterable[Batch]
) -> Parameters:
    """Returns the Fisher information of each parameter, in its shape, in float64.

    The log-likelihood must consist of operations that `torch.func.vmap` supports. Raises ValueError without
    examples.
    """
    gradients_of = vmap(grad(log_likelihood), in_dims=(None, 0))
    sums = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in parameters.items()}
    n = 0
    for batch in batches:
        for name, gradient_B in gradients_of(parameters, batch).items():  # of every example, (B, ...)
            sums[name] += gradient_B.square().sum(dim=0, dtype=torch.float64)
        n += len(next(iter(batch.values())))
    if n == 0:
        raise ValueError("no examples: Fisher information is a mean over examples")
    return {name: total / n for name, total in sums.items()}


# ---- BART


def bart_log_likelihood(model, route_plan: RoutePlan | None = None) -> LogLikelihood:
    """log p(answer | input) of a (routing) BART, summed over tokens, without label smoothing or dropout.

    parameters: any parameters of the model, by name; batch: from `fisher_batches`. The model must be in eval
    mode, with eager attention, whose operations vmap supports. route_plan: that of one route (1, L, E), for a
    model with several experts.
    """

    def log_likelihood(parameters: Parameters, example: Batch) -> Tensor:
        labels_T = example["labels"]
        T = len(labels_T)
        inputs = dict(
            input_ids=example["input_ids"][None],
            attention_mask=example["source_mask"][None],
            decoder_input_ids=example["decoder_input_ids"][None],
            decoder_attention_mask=blocked(torch.ones(T, T, device=labels_T.device).tril() == 0)[None, None],
        )
        named = {f"model.{name}": value for name, value in parameters.items()}
        with nullcontext({}) if route_plan is None else model.along(route_plan) as known:
            logits_TV = functional_call(_Logits(model), named, kwargs=inputs | known)
        return -nn.functional.cross_entropy(logits_TV, labels_T, ignore_index=IGNORED_LABEL, reduction="sum")

    return log_likelihood


class _Logits(nn.Module):
    """Logits (T, V) of one example."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, **inputs) -> Tensor:
        states_1TD = self.model.model(**inputs, use_cache=False)[0]
        return (self.model.lm_head(states_1TD) + self.model.final_logits_bias)[0]


def blocked(is_blocked: Tensor) -> Tensor:
    """Returns the additive attention mask: 0, and the most negative float where attention is blocked.

    A mask of 0 and 1 cannot be used: the library inspects its values to skip it, which vmap does not allow.
    """
    return is_blocked.float() * torch.finfo(torch.float32).min


def fisher_batches(examples: EncodedExamples, model, max_tokens: int, n_parameters: int) -> Iterator[Batch]:
    """All examples, each with its first accepted answer, in batches of similar length.

    max_tokens: most padded tokens of a batch, 0 for no limit; n_parameters: size of one example's gradient,
    which limits the number of examples of a batch.
    """
    config = model.config
    groups = micro_batches(
        examples.source_lengths_N,
        examples.target_lengths_N,
        max_tokens=max_tokens or None,
        max_examples=max(1, MAX_GRADIENT_NUMBERS // n_parameters),
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


# ---- vectors


def fisher_vector(fisher: Parameters, part: str) -> Tensor:
    """Returns the task vector (D,), float64: one number per part, in the order of the parameters.

    part: "weight": every weight; "unit": the mean over the inputs of each output unit (the filter of Achille
    et al. 2019); "tensor": the mean of each weight or bias tensor; "layer": the mean of all weights of each
    layer. Raises ValueError for another part.
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


# ---- the extractor


class FisherExtractor(TrainingExtractor):
    """Trains the weights, then computes their Fisher information.

    Raises InputError if the bottleneck is wider than the model or vectors would have too many dimensions.
    """

    def __init__(self, settings: TrainingSettings):
        settings = settings.resolved()
        super().__init__(settings)
        # vmap supports the operations of eager attention, but no fused attention kernel.
        self.model.set_attn_implementation("eager")
        if settings.weights == "adapters":
            width = self.model.config.d_model
            if settings.bottleneck > width:
                raise InputError(
                    f"--bottleneck is {settings.bottleneck}; it must be at most {width}, the hidden size of "
                    f"{settings.model}"
                )
            self.parameters = insert_adapters(self.model, settings.bottleneck, settings.seed)
        elif settings.weights == UPDATES:
            self.parameters = update_parameters(self.model)
        else:
            self.parameters = layer_parameters(self.model)
        dimensions = len(fisher_vector(self.parameters, settings.average_over))
        if dimensions > MAX_DIMENSIONS:
            raise InputError(
                f"--weights {settings.weights} --average_over {settings.average_over}: vectors would have "
                f"{dimensions} dimensions, more than {MAX_DIMENSIONS}; give --average_over unit or tensor"
            )
        self.save_initial_weights()

    def vector_of(self, task: str) -> np.ndarray:
        self.train_on(task, self.encoded(task))
        return fisher_vector(self.fisher_of(task), self.settings.average_over).cpu().numpy()

    def fisher_of(self, task: str) -> dict:
        """Returns {parameter: Fisher information} of the current weights on a task's train examples."""
        parameters = {name: p.detach() for name, p in self.parameters.items()}
        n_parameters = sum(p.numel() for p in parameters.values())
        examples, tokens = self.encoded(task), self.settings.max_tokens_per_micro_batch
        batches = fisher_batches(examples, self.model, tokens, n_parameters)
        return diagonal_fisher(bart_log_likelihood(self.model), parameters, batches)


# ---- bottleneck adapters (Houlsby et al. 2019): small trainable modules inside a frozen BART

# Every sub-layer is followed by an adapter, before the residual connection: two per encoder layer
# (self-attention, feed-forward), three per decoder layer (cross-attention as well). Adapters are initialised
# near the identity.


SUBLAYERS = {
    BartEncoderLayer: ("self_attn.out_proj", "fc2"),
    BartDecoderLayer: ("self_attn.out_proj", "encoder_attn.out_proj", "fc2"),
}
INIT_STD = 0.01  # of Houlsby et al.


class Adapter(nn.Module):
    """Wraps a `sublayer` with an adapter: h = sublayer(x), then h + up(gelu(down(h))).

    h has width D, the output of `down` has width `bottleneck`.
    """

    def __init__(self, sublayer: nn.Linear, bottleneck: int):
        super().__init__()
        D = sublayer.out_features
        self.sublayer = sublayer
        self.down, self.up = nn.Linear(D, bottleneck), nn.Linear(bottleneck, D)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.sublayer(hidden)
        return hidden + self.up(nn.functional.gelu(self.down(hidden)))


def insert_adapters(model: nn.Module, bottleneck: int, seed: int) -> dict[str, nn.Parameter]:
    """Inserts adapters into every BART layer of a model; returns their parameters by name.

    All other parameters are frozen. The same seed gives the same initial adapters, because Fisher information
    is compared between tasks weight by weight.
    """
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for layer in [module for module in model.modules() if type(module) in SUBLAYERS]:
        for path in SUBLAYERS[type(layer)]:
            owner, _, name = path.rpartition(".")
            owner = layer.get_submodule(owner)
            adapter = Adapter(getattr(owner, name), bottleneck)
            for linear in (adapter.down, adapter.up):
                nn.init.normal_(linear.weight, std=INIT_STD, generator=generator)
                nn.init.zeros_(linear.bias)
            setattr(owner, name, adapter.to(adapter.sublayer.weight))
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def layer_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of all encoder and decoder layers by name; all other parameters are frozen."""
    model.requires_grad_(False)
    for layer in model.modules():
        if type(layer) in SUBLAYERS:
            layer.requires_grad_(True)
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def update_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of the low-rank expert by name; all other parameters are frozen."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_of_expert(name))
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
