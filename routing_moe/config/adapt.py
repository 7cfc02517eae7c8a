"""The flags of `routing-moe adapt`."""

from dataclasses import dataclass
from pathlib import Path

from routing_moe.config.choices import LORA_TARGETS, PRECISIONS
from routing_moe.config.flags import AT_LEAST_1, POSITIVE, REQUIRED, SEED, Range, group
from routing_moe.config.shared import GivenReading

MODELS, ROWS, CHOICE = group("models"), group("rows"), group("what is written, and how it is chosen")
BASE = "(base)"  # the name of the model that low-rank experts share, alone
CHOOSE, MIX, TUNE = WAYS = ("choose", "mix", "tune")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class AdaptSettings(GivenReading):
    program = "routing-moe adapt"
    groups = ("models", "rows", "what is written, and how it is chosen")

    base: str = MODELS(REQUIRED, "plain model that the adapters were trained on: a folder, a hub name or a run with one expert", metavar="PLACE")
    adapters: tuple[str, ...] = MODELS(REQUIRED, "candidates beside the base: adapters of peft, folders or hub names owner/name[@revision] (default of NAME: the folder's name)", metavar="[NAME=]PLACE")
    mixed_precision: str | None = MODELS(None, "precision of matrix products, as for training", choices=PRECISIONS)

    rows: str = ROWS(REQUIRED, "table with a few rows of the new task: .csv, .tsv, .jsonl or .parquet", metavar="TABLE")
    input: str = ROWS("{input}", "the text of a row, with columns in braces", metavar="TEXT")
    output: str = ROWS("{output}", "its answer, with columns in braces", metavar="TEXT")
    options: tuple[str, ...] = ROWS((), "answers to choose from, texts or columns in braces, by which rank accuracy is measured (default: the column options, if there is one)", metavar="TEXT")
    task: str | None = ROWS(None, "name of the task, which begins every input unless --no_prefix (default: that of the file of --rows)")

    how: str = CHOICE(CHOOSE, "choose: the candidate of lowest loss. mix: weights of all candidates for each layer, learned from the rows. tune: an adapter trained on the rows. What mix and tune learn is judged on folds of the rows that it was not learned from; if the best candidate has a lower loss there, that is written", choices=WAYS)
    folds: int = CHOICE(4, "with mix and tune: parts of the rows; what is learned is learned once more without each", range=Range(lambda n: n >= 2, "at least 2"))
    steps: int = CHOICE(40, "with mix and tune: optimizer steps, of at most 32 rows", range=AT_LEAST_1)
    rate: float | None = CHOICE(None, "peak learning rate (default: 1 for weights, 3e-4 for an adapter, the best of those tried with 16 rows, 40 steps and SmolLM2-135M-Instruct: docs/results/pretrained.md)", range=POSITIVE)
    tune_from: str = CHOICE("best", "with tune: what is trained: the best adapter, a new one if the base is better; or a new one", choices=("best", "new"))
    lora_rank: int = CHOICE(8, "rank of a new adapter", range=AT_LEAST_1)
    lora_targets: str = CHOICE("all", "the linear maps that a new adapter changes", choices=LORA_TARGETS)
    seed: int = CHOICE(42, "seed of folds, batches and dropout", range=SEED)
    rank: int | None = CHOICE(None, "highest rank of the written adapter; it is then the nearest one, whose error is reported (default: that of what was chosen)", range=AT_LEAST_1)
    as_: str = CHOICE("adapter", "what is written: an adapter of peft, or of llama.cpp (gguf; of a Llama, Mistral, Qwen2 or Qwen3; needs the extra: pip install .[gguf])", choices=("adapter", "gguf"))
    output_dir: Path = CHOICE(REQUIRED, "folder of the adapter, adapt.json and losses/; the same call continues it")
# fmt: on
