"""The dev and test files of tasks, tokenized for scoring, and the settings of decoding."""

from dataclasses import dataclass, fields, replace

import numpy as np
from torch import Tensor

from dataloader.encoded import EncodedExamples, EncodedOptions, Ragged
from dataloader.encoding import TextFormat, encode, encode_options
from dataloader.gym import Example, Gym, evenly_spread
from dataloader.options import OptionSource, find_options
from routing_moe.config.finetune import FinetuneSettings
from routing_moe.config.measures import PERFORMANCE
from routing_moe.config.train import TrainSettings


@dataclass(frozen=True)
class TaskFile:
    """One part of one sample of a task, with its metric.

    option_source: one of `dataloader.options.SOURCES`, None if options were not read or there are none.
    options: those of each example; () for an example without options, whose answer is generated.
    """

    task: str
    sample: str
    part: str
    metric: str
    examples: list[Example]
    encoded: EncodedExamples
    option_source: str | None = None
    options: list[tuple[str, ...]] | None = None
    encoded_options: EncodedOptions | None = None


@dataclass(frozen=True)
class Decoding:
    """How predictions are made. max_output_length includes `<s>` and `</s>`, as in training targets.

    batch_size: as --predict_batch_size; None: that of the device. likelihoods: whether generated answers get
    scores like those of options. measures: those that scores have.
    """

    num_beams: int = 4
    max_output_length: int = 64
    batch_size: int | None = None
    do_lowercase: bool = False
    generate_from_bos: bool = False
    sampled_routes: bool = False
    no_repeat_ngram_size: int | None = None  # None: as in the model's generation settings
    random_draws: int = 5  # number of draws of routes, with random routes
    seed: int = 42  # of the draws
    scoring: str = "generate"
    likelihoods: bool = False
    measures: tuple[str, ...] = (PERFORMANCE,)


def decoding_of(settings: TrainSettings | FinetuneSettings) -> Decoding:
    """Returns the Decoding of the settings of a run or a grid."""
    names = {field.name for field in fields(Decoding)} & {field.name for field in fields(settings)}
    return Decoding(
        **{name: getattr(settings, name) for name in names},
        batch_size=settings.predict_batch_size,
        sampled_routes=settings.eval_sampled_routes,
        random_draws=settings.random_eval_draws,
    )


def load_task_files(
    gym: Gym,
    tasks,
    part: str,
    samples: str,
    tokenizer,
    text_format: TextFormat,
    task_ids,
    limit=None,
    with_options: bool = False,
    train_gyms: tuple[Gym, ...] = (),
) -> list[TaskFile]:
    """Returns the tokenized files of a part of the chosen samples (`Gym.pool`) of all tasks."""
    files = []
    for task in sorted(tasks):
        of_task, metric = gym.examples(task, part, samples), gym.metric(task)
        by_sample: dict[str, list[Example]] = {}
        for example in of_task:
            by_sample.setdefault(example.sample, []).append(example)
        source = OptionSource()
        if with_options:
            source = find_options(task, metric, train_gyms or (gym,), of_task)
        for sample, examples in by_sample.items():
            examples = evenly_spread(examples, limit)
            encoded = encode(examples, tokenizer, text_format, task_ids)
            file = TaskFile(task, sample, part, metric, examples, encoded)
            if source.name:
                options = [source.options(example) for example in examples]
                if text_format.do_lowercase:
                    options = [tuple(dict.fromkeys(text.lower() for text in texts)) for texts in options]
                tokens = encode_options(options, tokenizer, text_format)
                file = replace(file, option_source=source.name, options=options, encoded_options=tokens)
            files.append(file)
    return files


class Pool:
    """The N examples of files, one file after the other."""

    def __init__(self, files: list[TaskFile]):
        self.files = files
        self.encoded = EncodedExamples.joined([file.encoded for file in files])
        self.sizes = [len(file.examples) for file in files]
        with_options = [file.encoded_options for file in files if file.encoded_options]
        self.option_tokens = Ragged.joined([options.tokens for options in with_options])
        self.options: list[tuple[str, ...]] = []
        self.option_rows: list[np.ndarray] = []
        first = 0
        for file in files:
            self.options += file.options or [()] * len(file.examples)
            if file.encoded_options:
                self.option_rows += [rows + first for rows in file.encoded_options.rows]
                first += len(file.encoded_options.tokens)
            else:
                self.option_rows += [np.zeros(0, dtype=np.int64)] * len(file.examples)

    def __len__(self) -> int:
        return len(self.encoded)

    def members(self, has_options: bool) -> np.ndarray:
        """Returns the indices of the examples that have answer options, or of those that have none."""
        return np.flatnonzero(np.array([bool(options) for options in self.options]) == has_options)

    def by_file(self, values: list) -> list[list]:
        """Returns a list for each file from one value per example."""
        ends = np.cumsum(self.sizes)
        return [values[end - size : end] for end, size in zip(ends, self.sizes, strict=True)]


def prompts_of(examples: EncodedExamples, indices: np.ndarray, model) -> dict[str, Tensor]:
    """Returns input_ids and attention_mask of some inputs; of a decoder-only model, padded at the left."""
    at_left = not model.config.is_encoder_decoder
    batch = examples.prompts(indices, pad_token_id=model.config.pad_token_id, at_left=at_left)
    return {name: tensor.to(model.device) for name, tensor in batch.items()}


def batch_of(examples: EncodedExamples, indices: np.ndarray, model) -> dict[str, Tensor]:
    """Returns input_ids, attention_mask and labels of some examples, on the model's device."""
    batch = examples.collate(indices, pad_token_id=model.config.pad_token_id)
    return {name: t.to(model.device) for name, t in batch.items() if name != "task_ids"}
