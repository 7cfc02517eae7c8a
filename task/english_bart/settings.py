"""The flags of `task.english_bart.build` and `task.english_bart.denoise`."""

import argparse
from dataclasses import dataclass

from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE, REQUIRED, SEED, Range, group
from task.task_emb.descriptions import MINILM
from task.written_folder import FolderCommand

FILES = group("files")
LAYERS = group("layers")
TEXTS = group("texts")


def numbers(text: str) -> tuple[int, ...]:
    """Parses layer numbers in their order: "0,3,5" is (0, 3, 5)."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a comma-separated list of layer numbers") from None


# fmt: off
@dataclass(frozen=True, kw_only=True)
class BuildSettings(FolderCommand):
    program = "python -m task.english_bart.build"
    usage = "--output_dir FOLDER [flags, see --help]"

    encoder: str = FILES(MINILM, "BERT or RoBERTa to make it from: a folder or a hub name; the default is part of the extra [sentences]")
    output_dir: str = FILES(REQUIRED, "folder to write the BART into, new or empty", on_resume=True)
    encoder_layers: tuple[int, ...] | None = LAYERS(None, "layers of the source that the encoder keeps, numbered from 0 (default: all)", range=NOT_NEGATIVE, parse=numbers, metavar="0,2,5")
    decoder_layers: tuple[int, ...] | None = LAYERS(None, "the layer of the source that each decoder layer starts from (default: two layers, from the first and the last)", range=NOT_NEGATIVE, parse=numbers, metavar="0,5")


@dataclass(frozen=True, kw_only=True)
class DenoiseSettings(FolderCommand):
    program = "python -m task.english_bart.denoise"
    usage = "--gym FOLDER --output_dir FOLDER [flags, see --help]"

    gym: str = FILES(REQUIRED, "gym folder whose train inputs are the texts")
    split: str | None = FILES(None, "JSON with a task list train; other tasks are not read (default: split.json in --gym)")
    output_dir: str = FILES(REQUIRED, "folder to write the denoising gym into, new or empty", on_resume=True)
    skip_malformed: bool = FILES(False, "leave out malformed lines of task files instead of stopping")
    words: int = TEXTS(40, "most words of a text; longer inputs are cut into several", range=AT_LEAST_1)
    texts_per_task: int = TEXTS(400, "most texts of a task, evenly spread over its inputs", range=AT_LEAST_1)
    noises: int = TEXTS(4, "times that each text occurs, each with other masks", range=AT_LEAST_1)
    dev_rows: int = TEXTS(64, "texts for dev scores, which do not occur in training", range=AT_LEAST_1)
    mask: float = TEXTS(0.3, "share of the words that are masked", range=Range(lambda value: 0 < value < 1, "between 0 and 1"))
    span: float = TEXTS(3.0, "mean number of words that one [MASK] stands for", range=AT_LEAST_1)
    seed: int = TEXTS(0, "seed of the choice of dev texts and of the masks", range=SEED)
# fmt: on
