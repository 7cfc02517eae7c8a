"""The micro-batches of a step: where a device cuts a step, and what the model gets of each.

A step's loss is a sum over target tokens, so the gradients of its micro-batches add up to that of the step:
the division changes time and memory, but results only by rounding and dropout masks. On a CPU a token costs
much and a micro-batch little; on CUDA launching kernels dominates: few, as large as memory allows.
To read a value of a GPU, the CPU waits for it. So what follows from the examples alone is prepared on the CPU
(masks, positions of target tokens), and one copy brings a step's micro-batches to the device.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dataloader.batching import OVERHEAD_TOKENS, micro_batches, overhead_on
from dataloader.encoded import IGNORED_LABEL, EncodedExamples
from routing_moe.config.choices import ROUTING_BART
from routing_moe.config.shared import StepSettings
from routing_moe.io.transfer import sent

CUDA_MULTIPLE = 8  # tensor cores and attention masks want widths that are multiples of 8
MOST_TOKENS, CUDA_MOST_TOKENS = 16384, 32768  # padded tokens of a micro-batch
ALIGNMENT = 8  # bytes of the largest numbers in a batch


@dataclass(frozen=True)
class MicroBatchLimits:
    """The limits by which a step is divided into micro-batches.

    max_tokens: most padded source and target tokens of a micro-batch, None: no limit. overhead: the cost of a
    micro-batch, in padded tokens. multiple: widths are padded to multiples of it, but not beyond `longest`,
    the model's number of positions.
    """

    max_tokens: int | None
    overhead: int = OVERHEAD_TOKENS
    multiple: int = 1
    longest: int = 0

    @classmethod
    def on(cls, device: torch.device, settings: StepSettings, longest: int) -> "MicroBatchLimits":
        """Returns the limits of the settings; those that they leave open depend on the device."""
        is_cuda = device.type == "cuda"
        max_tokens, overhead = settings.max_tokens_per_micro_batch, settings.micro_batch_overhead
        if max_tokens is None:
            max_tokens = CUDA_MOST_TOKENS if is_cuda else MOST_TOKENS
        if overhead is None:
            overhead = overhead_on(device.type)
        return cls(max_tokens or None, overhead, CUDA_MULTIPLE if is_cuda else 1, longest)

    def below(
        self, source_lengths: np.ndarray, target_lengths: np.ndarray, groups: list[np.ndarray]
    ) -> "MicroBatchLimits":
        """Returns limits with half of the tokens of the largest of these micro-batches."""
        widths = self.width(source_lengths), self.width(target_lengths)
        largest = max(len(group) * sum(int(sides[group].max()) for sides in widths) for group in groups)
        return replace(self, max_tokens=max(1, largest // 2))

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
        limit = f"at most {self.max_tokens} padded tokens" if self.max_tokens else "any size"
        widths = f"; widths are multiples of {self.multiple}" if self.multiple > 1 else ""
        return f"micro-batches of {limit}, each at a cost of {self.overhead} tokens{widths}"


# ---- what the model gets


def model_inputs(
    examples: EncodedExamples, indices: np.ndarray, choices: np.ndarray, config, limits: MicroBatchLimits
) -> dict[str, Tensor]:
    """Returns the inputs of the model for the examples `indices`, on the CPU. choices: each one's answer."""
    widths = [int(limits.width(own.max())) for own in examples.lengths(indices, choices)]
    batch = examples.collate(indices, choices, pad_token_id=config.pad_token_id, widths=widths)
    inputs = {"input_ids": batch["input_ids"], "labels": batch["labels"]}
    is_label = batch["labels"] != IGNORED_LABEL
    if examples.decoder_only:  # the state at a position predicts the next token; the first is of an input
        is_label = is_label.roll(-1, dims=1)
    inputs["label_positions"] = is_label.flatten().nonzero()[:, 0]
    # The attention functions of other models read masks of (b, S).
    plain = getattr(config, "backbone", config)
    if plain.model_type in ("bart", ROUTING_BART) and plain._attn_implementation == "sdpa":
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
