"""The micro-batches of a step: where a device cuts a step, and what the model gets of each.

A step's loss is a sum over target tokens, so the gradients of its micro-batches add up to that of the step:
the cut changes time and memory, but results only by rounding (and by the dropout masks, which are drawn for
each micro-batch). On a CPU a token costs much and a micro-batch little: many micro-batches of little padding.
On CUDA the cost of launching kernels dominates: few, as large as memory allows.

A GPU works behind the CPU, which launches its kernels; to read a value of the GPU, the CPU waits until all of
them are done. So what follows from the examples alone is prepared on the CPU (masks, positions of target
tokens), and one copy brings a step's micro-batches to the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from dataloader.batching import OVERHEAD_TOKENS, micro_batches
from dataloader.encoding import IGNORED_LABEL, EncodedExamples
from routing_moe.config.choices import ROUTING_BART
from routing_moe.config.shared import Recipe
from routing_moe.io.memory import ON_CPU
from routing_moe.io.transfer import sent
from routing_moe.model.flops import Work
from routing_moe.model.lora import runs_few
from routing_moe.optim.state_memory import BYTES, STATE_NUMBERS, free_memory

CUDA_OVERHEAD_TOKENS = 8192  # a step of 32 examples of 105 few-shot tasks: 1.5 micro-batches instead of 4
CUDA_MULTIPLE = 8  # tensor cores and attention masks want widths that are multiples of 8
MOST_TOKENS, LEAST_TOKENS = 32768, 1024  # range of the limit that is chosen on CUDA
SAFE_SHARE = 0.8  # of the memory that is free; the rest is for target tokens' logits and temporary tensors
# What a BART layer keeps of a token for the backward pass, in numbers per dimension of the model; found with
# torch's saved-tensor hooks, with dropout and a feed-forward width of 4 D. In bf16 these are half as many
# bytes, and the limit is on the safe side.
NUMBERS_PER_DIMENSION = 32
# What a layer keeps for each rank of each low-rank expert, before and after the weighting by routes: the ten
# linear maps of a decoder layer.
NUMBERS_PER_RANK = 2 * 10
# Mixed factors, and the matrices of few chosen experts, are kept for each example: for each rank, the widths
# of input and output of these maps, in dimensions of the model. SHORT_EXAMPLE: tokens of one, to be safe few.
MATRICES_PER_RANK = 8 * 2 + 2 * 5
SHORT_EXAMPLE = 16
ALIGNMENT = 8  # bytes of the largest numbers in a batch


@dataclass(frozen=True)
class Cut:
    """Where a step is cut into micro-batches.

    max_tokens: most padded source and target tokens of a micro-batch, None: no limit. overhead: the cost of a
    micro-batch, in padded tokens. multiple: widths are padded to multiples of it, but not beyond `longest`,
    the model's number of positions. reason: where max_tokens is from, for the log.
    """

    max_tokens: int | None
    overhead: int = OVERHEAD_TOKENS
    multiple: int = 1
    longest: int = 0
    reason: str = ""

    @classmethod
    def on(cls, accelerator: Accelerator, model, settings: Recipe) -> Cut:
        """Returns the cut of the settings; what they leave open is chosen for the device.

        It is the same in all processes, which share the micro-batches of a step.
        """
        max_tokens, overhead = settings.max_tokens_per_micro_batch, settings.micro_batch_overhead
        is_cuda, reason = accelerator.device.type == "cuda", ""
        if max_tokens is None and is_cuda:
            free = free_memory(accelerator)
            max_tokens, reason = tokens_that_fit(free, model), f" for {free / 1e9:.1f} GB of free GPU memory"
        elif max_tokens is None:
            max_tokens = ON_CPU["max_tokens_per_micro_batch"]
        if overhead is None:
            overhead = default_overhead(accelerator.device)
        multiple = CUDA_MULTIPLE if is_cuda else 1
        return cls(max_tokens or None, overhead, multiple, model.config.max_position_embeddings, reason)

    def width(self, lengths: np.ndarray) -> np.ndarray:
        """Returns the widths to which texts of these lengths (tokens) are padded, if they are the longest."""
        multiples = -(-lengths // self.multiple) * self.multiple
        return np.maximum(lengths, np.minimum(multiples, self.longest))

    def groups(
        self, source_lengths: np.ndarray, target_lengths: np.ndarray, max_examples: int
    ) -> list[np.ndarray]:
        """Returns the micro-batches of a step's examples, as `dataloader.batching.micro_batches` does."""
        widths = self.width(source_lengths), self.width(target_lengths)
        return micro_batches(*widths, self.max_tokens, max_examples, self.overhead)

    def __str__(self) -> str:
        limit = f"at most {self.max_tokens} padded tokens{self.reason}" if self.max_tokens else "any size"
        widths = f"; widths are multiples of {self.multiple}" if self.multiple > 1 else ""
        return f"micro-batches of {limit}, each at a cost of {self.overhead} tokens{widths}"


def default_overhead(device: torch.device) -> int:
    """Returns the default of --micro_batch_overhead, in padded tokens."""
    return CUDA_OVERHEAD_TOKENS if device.type == "cuda" else OVERHEAD_TOKENS


def tokens_that_fit(free_bytes: int, model) -> int:
    """Returns how many padded tokens go through the model at once: a power of 2, from 1024 to 32768.

    free_bytes: free memory next to the weights, in which gradients, AdamW's state and activations must fit.
    """
    config, work = model.config, Work.of(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    left = SAFE_SHARE * free_bytes - STATE_NUMBERS * BYTES * trained
    # An unselected expert of straight-through routes runs without a graph, but its output is kept.
    kept = NUMBERS_PER_DIMENSION * work.used + config.num_experts
    if config.has_lora:
        ranks = config.num_experts * config.lora_rank
        kept = NUMBERS_PER_DIMENSION + NUMBERS_PER_RANK * ranks / config.d_model
        if config.lora_mixing == "factors" or runs_few(work.used, config.num_experts):
            kept += MATRICES_PER_RANK * work.used * config.lora_rank / SHORT_EXAMPLE
    per_token = BYTES * max(config.encoder_layers, config.decoder_layers) * config.d_model * kept
    powers = [2**n for n in range(20) if LEAST_TOKENS <= 2**n <= MOST_TOKENS]
    return max([LEAST_TOKENS, *(tokens for tokens in powers if tokens * per_token <= left)])


# ---- what the model gets


def model_inputs(
    examples: EncodedExamples, indices: np.ndarray, choices: np.ndarray, config, cut: Cut
) -> dict[str, Tensor]:
    """Returns the inputs of the model for one micro-batch, on the CPU.

    indices: its examples; choices: the answer of each among the accepted ones.
    """
    lengths = examples.source_lengths_N[indices], examples.target_lengths(indices, choices)
    widths = [int(cut.width(own.max())) for own in lengths]
    batch = examples.collate(indices, choices, pad_token_id=config.pad_token_id, widths=widths)
    inputs = {"input_ids": batch["input_ids"], "labels": batch["labels"]}
    if config.model_type != ROUTING_BART:  # other attention functions read masks of (b, S)
        return inputs | {"attention_mask": batch["attention_mask"]}
    inputs["label_positions"] = (batch["labels"] != IGNORED_LABEL).flatten().nonzero()[:, 0]
    if config._attn_implementation == "sdpa":
        return inputs | ready_masks(batch["attention_mask"], widths[1])
    return inputs | {"attention_mask": batch["attention_mask"]}


def ready_masks(is_real_bS: Tensor, target_width: int) -> dict[str, Tensor]:
    """Returns the masks of encoder and decoder as scaled dot-product attention reads them.

    transformers makes the same masks of (b, S), but reads them on the device, to leave out those that mask
    nothing. Here, too, there is no mask of the encoder if no source is padded.
    """
    causal_TT = torch.ones(target_width, target_width, dtype=torch.bool).tril()
    masks = {"decoder_attention_mask": causal_TT[None, None]}
    if not is_real_bS.all():
        masks["attention_mask"] = is_real_bS[:, None, None].bool()
    return masks


def on_device(batches: list[dict[str, Tensor]], device: torch.device) -> list[dict[str, Tensor]]:
    """Returns the batches with their tensors on the device, where one copy brings all of them."""
    if device.type == "cpu" or not batches:
        return batches
    tensors = [tensor.contiguous() for batch in batches for tensor in batch.values()]
    as_bytes = [F.pad(t.flatten().view(torch.uint8), (0, -t.nbytes % ALIGNMENT)) for t in tensors]
    pieces = iter(sent(torch.cat(as_bytes), device).split([len(each) for each in as_bytes]))

    def moved(tensor: Tensor) -> Tensor:
        return next(pieces)[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)

    return [{name: moved(tensor) for name, tensor in batch.items()} for batch in batches]
