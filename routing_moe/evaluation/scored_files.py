"""The dev and test files of tasks, tokenized for scoring, and the settings of decoding."""

from collections import Counter
from dataclasses import dataclass, replace

from dataloader.encoding import EncodedExamples, EncodedOptions, TextFormat, encode, encode_options
from dataloader.errors import in_short
from dataloader.gym import Example, Gym, evenly_spread
from dataloader.options import SOURCES, OptionSource, find_options
from routing_moe.config.choices import MEASURES
from routing_moe.config.finetune import FinetuneSettings
from routing_moe.config.train import TrainSettings

SOURCE_WORDS = {
    "field": "options fields",
    "input": "lists in the input",
    "labels": "label sets of all samples' train files",
}


@dataclass(frozen=True)
class TaskFile:
    """One part of one sample of a task, with its metric.

    If options were read and the task has some: option_source, one of `dataloader.options.SOURCES`; options,
    those of each example, () for an example without options, whose answer is generated; encoded_options,
    their tokens.
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

    batch_size: as --predict_batch_size; None: what the device can do.
    scoring: "generate", or "rank" to select the most likely option of each example that has options.
    likelihoods: whether generated answers are scored like options, too. measures: those of `config.choices`
    that scores have.
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
    measures: tuple[str, ...] = MEASURES[:1]


def decoding_of(settings: TrainSettings | FinetuneSettings) -> Decoding:
    """Returns the Decoding of the settings of a run or a grid."""
    return Decoding(
        num_beams=settings.num_beams,
        max_output_length=settings.max_output_length,
        batch_size=settings.predict_batch_size,
        do_lowercase=settings.do_lowercase,
        generate_from_bos=settings.generate_from_bos,
        sampled_routes=settings.eval_sampled_routes,
        no_repeat_ngram_size=settings.no_repeat_ngram_size,
        random_draws=settings.random_eval_draws,
        seed=settings.seed,
        scoring=settings.scoring,
        measures=settings.measures,
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
    """Returns the tokenized files of a part of the chosen samples of all tasks.

    samples: as for `Gym.pool`. limit: maximum number of examples of each file, evenly spaced; None: all.
    with_options: whether to read answer options. train_gyms: gyms whose train files determine the options,
    the first with the task's files counts; (): `gym`. Raises InputError if files are missing or malformed.
    """
    files = []
    for task in sorted(tasks):
        by_sample: dict[str, list[Example]] = {}
        for example in gym.examples(task, part, samples):
            by_sample.setdefault(example.sample, []).append(example)
        source = None
        if with_options:
            every = [example for examples in by_sample.values() for example in examples]
            source = find_options(task, gym.metric(task), train_gyms or (gym,), every)
        for sample, examples in by_sample.items():
            examples = evenly_spread(examples, limit)
            encoded = encode(examples, tokenizer, text_format, task_ids)
            file = TaskFile(task, sample, part, gym.metric(task), examples, encoded)
            if source and source.name:
                file = _with_options(file, source, tokenizer, text_format)
            files.append(file)
    return files


def _with_options(file: TaskFile, source: OptionSource, tokenizer, text_format: TextFormat) -> TaskFile:
    options = [source.options(example) for example in file.examples]
    if text_format.do_lowercase:
        options = [tuple(dict.fromkeys(option.lower() for option in own)) for own in options]
    encoded = encode_options(options, tokenizer, text_format)
    return replace(file, option_source=source.name, options=options, encoded_options=encoded)


def described_scoring(files: list[TaskFile]) -> str:
    """Returns a line for the log: numbers of tasks with ranked options by source, and of generated tasks."""
    source_of = {file.task: file.option_source for file in files}
    counts = Counter(source for source in source_of.values() if source)
    sources = ", ".join(f"{SOURCE_WORDS[source]} {counts[source]}" for source in SOURCES if counts[source])
    generated = [task for task, source in source_of.items() if source is None]
    names = f" ({in_short(generated)})" if generated else ""
    line = f"tasks whose options are ranked: {counts.total()} ({sources}); generated: {len(generated)}{names}"
    without = sum(file.options.count(()) for file in files if file.option_source)
    return line + (f"; examples without options in ranked tasks, generated: {without}" if without else "")
