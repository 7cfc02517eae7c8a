"""The flags of `routing-moe answer` and `routing-moe export`."""

import re
from dataclasses import dataclass
from pathlib import Path

from routing_moe.config.choices import PRECISIONS
from routing_moe.config.flags import AT_LEAST_1, POSITIVE, REQUIRED, SEED, group
from routing_moe.config.shared import GivenTexts

MODEL = group("the model")
ROUTE = group("the task and its route")
ANSWERS = group("texts and answers")
EXPORT = group("what is written")
SAMPLE_PART = r"_\d+_\d+_(train|dev|test)$"  # what follows the task's name in the files of a gym


# fmt: off
@dataclass(frozen=True, kw_only=True)
class TaskFlags(GivenTexts):
    """A trained model, and the route of a task through it."""

    checkpoint: str = MODEL(REQUIRED, "run, checkpoint, plain model, or hub name[@revision]")
    checkpoint_name: str | None = MODEL(None, "which checkpoint of a run (default: best)")
    mixed_precision: str | None = MODEL(None, "precision of matrix products, as for training", choices=PRECISIONS)

    task: str | None = ROUTE(None, "the task's name, which begins every input: a task of the training with its own route, or any name together with one of the following (default: that in the name of the file of --like or --examples)")
    like: str | None = ROUTE(None, "file with texts of the task, a text a line: the route is that of the train task with the most similar texts", metavar="FILE")
    input: str | None = ROUTE(None, "the texts of a table (.csv, .tsv, .jsonl, .parquet) of --inputs or --like, with columns in braces, such as \"review: {text}\" (default: as add-task made the task's inputs; else the column input, or the only one)", metavar="TEXT")
    examples: str | None = ROUTE(None, "file with a few texts and their answers, as a train file of a gym (.tsv or .jsonl): a task vector, or a route where there is no router, is learned from them", metavar="FILE")
    taskvecs: str | None = ROUTE(None, "folder of task vectors with one of the task, made like those of the training: read by the router, or for the nearest cluster of given routes")
    task_routes: str | None = ROUTE(None, "file with the task's route, .json or .npy, as for training", metavar="FILE")
    train_dir: str | None = ROUTE(None, "with --like: gym with the train tasks of the model, for checkpoints without text_vectors.npz, which is written then")
    steps: int = ROUTE(100, "with --examples: optimizer steps", range=AT_LEAST_1)
    rate: float | None = ROUTE(None, "with --examples: peak learning rate (default: 0.01 for a vector, 0.1 for a route)", range=POSITIVE)
    seed: int = ROUTE(42, "with --examples: seed of batches, routes and dropout", range=SEED)

    @property
    def ways(self) -> list[str]:
        """The given flags that each determine the route."""
        return [f"--{name}" for name in ("like", "examples", "taskvecs", "task_routes") if getattr(self, name)]

    @property
    def name(self) -> str | None:
        """The task's name."""
        stems = (Path(file).stem for file in (self.like, self.examples) if file)
        return self.task or next((re.sub(SAMPLE_PART, "", stem) for stem in stems), None)


@dataclass(frozen=True, kw_only=True)
class AnswerSettings(TaskFlags):
    program = "routing-moe answer"
    groups = ("the model", "the task and its route")

    inputs: str = ANSWERS(REQUIRED, "file of texts: .txt, a text a line; a table (--input); without columns .tsv, a text up to the first tab, and .jsonl with input and options; -: standard input")
    output_file: str = ANSWERS("-", "JSON lines: input, answer and score of each text; NAME.meta.json beside it says what they depend on. The same call continues it; other files are not overwritten. -: standard output")
    options: tuple[str, ...] = ANSWERS((), "answers to choose from, by mean log-probability per token (default: answers are generated)", metavar="ANSWER")
    predict_batch_size: int | None = ANSWERS(None, "texts of 512 tokens that are answered at once; of shorter ones as many as need the same memory (default: 32; on a GPU 128); halved where memory runs out", range=AT_LEAST_1)


@dataclass(frozen=True, kw_only=True)
class ExportSettings(TaskFlags):
    program = "routing-moe export"
    groups = ("the model", "the task and its route")

    output_dir: Path = EXPORT(REQUIRED, "new folder, which transformers, peft or llama.cpp loads without this package")
    as_: str = EXPORT("plain", "what the route becomes: a plain model, or of low-rank experts an adapter for the model that they share, of peft, or of llama.cpp (gguf; of a Llama, Mistral, Qwen2 or Qwen3; needs the extra: pip install .[gguf])", choices=("plain", "adapter", "gguf"))
    rank: int | None = EXPORT(None, "of adapters: at most this rank, of the nearest updates, whose error is logged (default: exact, of rank K r for a route over K experts of rank r)", range=AT_LEAST_1)
    argmax: bool = EXPORT(False, "of a route that mixes outputs of experts, take the expert of largest weight in each layer, whose answers differ")
    adapters: bool = EXPORT(False, "instead of one route, write every low-rank expert as an adapter (of peft, or --as gguf), to a folder named like its task, or expert0, ... if it is not that of one task; if the model that they share has no place of its own, also that, base")
# fmt: on
