"""Token ids of many examples: a flat array with offsets. Padding is added per batch, to its longest text."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

IGNORED_LABEL = -100  # the label value that the losses of torch and transformers ignore


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths: row i is `flat[offsets[i]:offsets[i + 1]]`."""

    flat: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.flat[self.offsets[index] : self.offsets[index + 1]]

    @classmethod
    def of(cls, rows: Sequence[np.ndarray]) -> "Ragged":
        return cls(np.concatenate([np.zeros(0, dtype=np.int32), *rows]), offsets_of(list(map(len, rows))))

    @classmethod
    def joined(cls, parts: Sequence["Ragged"]) -> "Ragged":
        """Returns the rows of all parts, one part after the other."""
        flat = [part.flat for part in parts] or [np.zeros(0, dtype=np.int32)]
        return cls(np.concatenate(flat), _joined_offsets([part.offsets for part in parts]))

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def subset(self, indices: np.ndarray) -> "Ragged":
        """Returns the given rows, in this order."""
        return Ragged.of([self[i] for i in indices])

    def padded(
        self, indices: np.ndarray, fill: int, width: int | None = None, at_left: bool = False
    ) -> np.ndarray:
        """Returns the given rows as int64 (len(indices), width), padded on one side; None: the longest."""
        lengths = self.lengths[indices]
        width = lengths.max(initial=0) if width is None else width
        block = np.full((len(indices), width), fill, dtype=np.int64)
        for row, index, length in zip(block, indices, lengths, strict=True):
            start = width - length if at_left else 0
            row[start : start + length] = self[index]
        return block


@dataclass(frozen=True, eq=False)
class EncodedExamples:
    """N tokenized examples. The outputs of example i are `first_output[i]` to `first_output[i + 1]` - 1.

    decoder_only: whether a batch has each input and its answer as one sequence.
    """

    sources: Ragged
    outputs: Ragged
    first_output: np.ndarray
    task_ids_N: np.ndarray
    decoder_only: bool = False

    @classmethod
    def joined(cls, parts: Sequence["EncodedExamples"]) -> "EncodedExamples":
        """Returns the examples of all parts, one part after the other; at least one."""
        sources = Ragged.joined([part.sources for part in parts])
        outputs = Ragged.joined([part.outputs for part in parts])
        first_output = _joined_offsets([part.first_output for part in parts])
        task_ids_N = np.concatenate([part.task_ids_N for part in parts])
        return cls(sources, outputs, first_output, task_ids_N, parts[0].decoder_only)

    def subset(self, indices: np.ndarray) -> "EncodedExamples":
        """Returns the given examples, in this order."""
        starts, counts = self.first_output[indices], self.n_outputs_N[indices]
        outputs = np.concatenate([np.arange(0), *map(np.arange, starts, starts + counts)])
        tokens = self.sources.subset(indices), self.outputs.subset(outputs)
        return EncodedExamples(*tokens, offsets_of(counts), self.task_ids_N[indices], self.decoder_only)

    def __len__(self) -> int:
        return len(self.task_ids_N)

    @property
    def source_lengths_N(self) -> np.ndarray:
        """Number of tokens of each input, special tokens included."""
        return self.sources.lengths

    @property
    def target_lengths_N(self) -> np.ndarray:
        """Number of tokens of each example's first accepted output."""
        return self.outputs.lengths[self.first_output[:-1]]

    @property
    def n_outputs_N(self) -> np.ndarray:
        """Number of accepted outputs of each example, at least 1."""
        return np.diff(self.first_output)

    def target_lengths(self, indices, answer_choice=0) -> np.ndarray:
        """Returns the number of tokens of each example's chosen output; `answer_choice` as for `collate`."""
        return self.outputs.lengths[self.first_output[np.asarray(indices)] + answer_choice]

    def lengths(self, indices=None, answer_choice=0) -> tuple[np.ndarray, np.ndarray]:
        """Returns the numbers of tokens of the examples' inputs and chosen outputs; None: of all examples.

        Of a decoder-only model, those of the joint sequences, and zeros.
        """
        indices = np.arange(len(self)) if indices is None else np.asarray(indices)
        sources, targets = self.source_lengths_N[indices], self.target_lengths(indices, answer_choice)
        return (sources + targets, 0 * targets) if self.decoder_only else (sources, targets)

    def fingerprint(self) -> int:
        """Returns a checksum of all tokens, answers and tasks, to detect changed data."""
        arrays = (self.sources.flat, self.sources.offsets, self.outputs.flat, self.outputs.offsets)
        checksum = 0
        for array in (*arrays, self.first_output, self.task_ids_N):
            checksum = zlib.crc32(np.ascontiguousarray(array), checksum)
        return checksum

    def collate(self, indices, answer_choice=0, *, pad_token_id: int, widths=(None, None)) -> dict:
        """Returns one batch of torch LongTensors, padded to its longest input and output, or to `widths`.

        input_ids and attention_mask (b, S), labels (b, T) with IGNORED_LABEL as padding, task_ids (b,). Of a
        decoder-only model all are (b, S): inputs with their answers; only tokens of answers are labels.
        answer_choice: the index of each example's target among its accepted outputs, or one index for all.
        """
        import torch  # imported here, so that checks of files and flags do not wait for it

        indices = np.asarray(indices, dtype=np.int64)
        chosen = self.first_output[indices] + answer_choice
        if self.decoder_only:
            pairs = [self.sources.subset(indices), self.outputs.subset(chosen)]
            batch = _joint_sequences(*pairs, pad_token_id, widths[0])
        else:
            batch = _padded_with_mask(self.sources, indices, pad_token_id, widths[0])
            batch["labels"] = self.outputs.padded(chosen, IGNORED_LABEL, widths[1])
        batch["task_ids"] = self.task_ids_N[indices]
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def prompts(self, indices, *, pad_token_id: int, at_left: bool = False) -> dict:
        """Returns input_ids and attention_mask (b, S) of inputs without answers. at_left: the padding."""
        import torch

        batch = _padded_with_mask(self.sources, np.asarray(indices), pad_token_id, None, at_left)
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def _padded_with_mask(rows: Ragged, indices, pad: int, width: int | None, at_left: bool = False) -> dict:
    input_ids = rows.padded(indices, pad, width, at_left)
    positions, lengths = np.arange(input_ids.shape[1]), rows.lengths[indices][:, None]
    is_real = positions >= input_ids.shape[1] - lengths if at_left else positions < lengths
    return {"input_ids": input_ids, "attention_mask": is_real.astype(np.int64)}


def _joint_sequences(sources: Ragged, answers: Ragged, pad: int, width: int | None) -> dict:
    """Returns the batch of sources with answers after them. Labels are found by lengths alone."""
    rows = [part for i in range(len(sources)) for part in (sources[i], answers[i])]
    joint = Ragged(np.concatenate(rows), offsets_of(sources.lengths + answers.lengths))
    batch = _padded_with_mask(joint, np.arange(len(joint)), pad, width)
    positions = np.arange(batch["input_ids"].shape[1])
    is_answer = (positions >= sources.lengths[:, None]) & (batch["attention_mask"] == 1)
    batch["labels"] = np.where(is_answer, batch["input_ids"], IGNORED_LABEL)
    return batch


@dataclass(frozen=True, eq=False)
class EncodedOptions:
    """Tokenized options: those of example i are the rows `rows[i]` of `tokens`; equal ones share a row."""

    tokens: Ragged
    rows: list[np.ndarray]


def offsets_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _joined_offsets(parts: Sequence[np.ndarray]) -> np.ndarray:
    lengths = [np.diff(offsets) for offsets in parts] or [np.zeros(0, dtype=np.int64)]
    return offsets_of(np.concatenate(lengths))
