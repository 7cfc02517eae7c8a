"""Generate, score, measure the loss: what is done with a model on the dev and test files of tasks.

Routes are noise-free, so scores are a function of the checkpoint alone (unless sampled routes are asked
for). Random routing has nothing noise-free: its score is the mean over several draws of a route for each
example, seeded by the file's name, so that it too is the same at every call. With several processes each
takes a share of the task files; every process gets all results.
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm

from dataloader.encoding import EncodedExamples, TextFormat, encode
from dataloader.gym import Example, Gym
from dataloader.metrics import evaluate
from routing_moe.selection import random_one_hot
from routing_moe.settings import Settings


@dataclass(frozen=True)
class TaskFile:
    """One part of one sample of a task, with its metric."""

    task: str
    sample: str
    part: str
    metric: str
    examples: list[Example]
    encoded: EncodedExamples


@dataclass(frozen=True)
class Decoding:
    """How predictions are generated. max_output_length counts `<s>` and `</s>`, as in training targets."""

    num_beams: int = 4
    max_output_length: int = 64
    batch_size: int = 64
    do_lowercase: bool = False
    generate_from_bos: bool = False
    sampled_routes: bool = False
    no_repeat_ngram_size: int | None = None  # None: as the model's generation settings say
    random_draws: int = 5  # of all routes, where they are random for each example
    seed: int = 42  # of these draws


def decoding_of(settings: Settings) -> Decoding:
    """How the run's settings say to generate predictions."""
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
    )


def load_task_files(
    gym: Gym, tasks, part: str, samples: str, tokenizer, text_format: TextFormat, task_ids, limit=None
) -> list[TaskFile]:
    """The part's files of the chosen samples of every task, tokenized; `limit` caps the examples of each."""
    files = []
    for task in sorted(tasks):
        by_sample: dict[str, list[Example]] = {}
        for example in gym.examples(task, part, samples):
            by_sample.setdefault(example.sample, []).append(example)
        for sample, examples in by_sample.items():
            examples = examples[:limit]
            encoded = encode(examples, tokenizer, text_format, task_ids)
            files.append(TaskFile(task, sample, part, gym.metric(task), examples, encoded))
    return files


def predict(model, tokenizer, files: list[TaskFile], decoding: Decoding, accelerator: Accelerator):
    """Predict and score every file. Returns (scores, predictions).

    scores: DataFrame with task_prefix (the task's name), sample, metric, performance, n; with random routes
    the performance is a mean over draws, and performance_std (sample standard deviation; empty for a single
    draw), draws (their number) and each draw's score, draw_1 and so on, follow. predictions: for each file
    a list of draws (mostly one), each a list of strings in the order of the file's examples.
    """
    model.eval()
    own = list(range(len(files)))[accelerator.process_index :: accelerator.num_processes]
    progress = tqdm(
        own, desc="predicting", unit="task", leave=False, disable=not accelerator.is_local_main_process
    )
    done = [(i, predict_file(model, tokenizer, files[i], decoding, accelerator)) for i in progress]
    if accelerator.num_processes > 1:
        done = gather_object(done)
    predictions = [draws for _, draws in sorted(done)]
    rows = []
    for file, draws in zip(files, predictions, strict=True):
        values = pd.Series([score(file, texts, decoding.do_lowercase) for texts in draws])
        row = {
            "task_prefix": file.task,
            "sample": file.sample,
            "metric": file.metric,
            "performance": values.mean(),
            "n": len(file.examples),
        }
        if model.config.route_source == "random":
            row |= {"performance_std": values.std(), "draws": len(draws)}
            row |= {f"draw_{i}": value for i, value in enumerate(values, start=1)}
        rows.append(row)
    return pd.DataFrame(rows), predictions


def mean_score(scores: pd.DataFrame, column: str = "performance") -> float:
    """Mean over tasks of the mean over a task's samples."""
    return float(scores.groupby("task_prefix")[column].mean().mean())


def spread_over_draws(scores: pd.DataFrame) -> float:
    """Sample standard deviation of `mean_score` over the draws of random routes; NaN for a single draw."""
    columns = [name for name in scores if name.startswith("draw_")]
    return float(pd.Series([mean_score(scores, name) for name in columns]).std())


def score(file: TaskFile, predictions: list[str], do_lowercase: bool = False) -> float:
    """The file's metric. A model trained on lowercased text is scored against lowercased answers."""
    answers = [
        [answer.lower() if do_lowercase else answer for answer in example.outputs]
        for example in file.examples
    ]
    return evaluate(predictions, answers, file.metric)


def routes_of_file(model, file: TaskFile, decoding: Decoding) -> Iterator[Tensor]:
    """What a file is evaluated along: the task's route (1, L, E), or several draws of routes (n, L, E)."""
    config = model.config
    if config.route_source != "random" or config.num_experts == 1:
        yield model.routes_for([file.task], noise=decoding.sampled_routes)
        return
    size = (len(file.examples), config.num_layers)
    seed = decoding.seed + zlib.crc32(f"{file.sample} {file.part}".encode())
    generator = torch.Generator().manual_seed(seed)
    for _ in range(decoding.random_draws):
        routes_nLE = random_one_hot(size, config.num_experts, generator=generator)
        yield routes_nLE.to(model.device, model.dtype)


def batches_of_file(model, file: TaskFile, batch_size: int) -> Iterator[tuple[np.ndarray, dict]]:
    """(indices, inputs on the model's device), longest first, so that a lack of memory shows at once."""
    order = np.argsort(-file.encoded.source_lengths_N, kind="stable")
    for chosen in np.array_split(order, math.ceil(len(order) / batch_size)):
        batch = file.encoded.collate(chosen, pad_token_id=model.config.pad_token_id)
        yield chosen, {name: t.to(model.device) for name, t in batch.items() if name != "task_ids"}


def of_examples(routes: Tensor, chosen: np.ndarray) -> Tensor:
    """The routes of a batch: the task's one for all, or each example's own."""
    return routes.expand(len(chosen), -1, -1) if len(routes) == 1 else routes[torch.from_numpy(chosen)]


@torch.no_grad()
def predict_file(model, tokenizer, file: TaskFile, decoding: Decoding, accelerator) -> list[list[str]]:
    """For each draw of routes, the predictions for one file."""
    limits = generation_limits(model.config, decoding)
    draws = []
    for routes in routes_of_file(model, file, decoding):
        # The plain BART that a task's route may amount to is assembled once for all batches.
        whole_file = len(routes) == 1 and model.amounts_to_bart(routes)
        plain = model.to_bart(routes[0]) if whole_file else None
        predictions = [""] * len(file.examples)
        for chosen, batch in batches_of_file(model, file, decoding.batch_size):
            del batch["labels"]
            along = {} if plain else {"routes": of_examples(routes, chosen)}
            with accelerator.autocast():
                sequences = (plain or model).generate(**batch, **along, **limits)
            texts = tokenizer.batch_decode(
                sequences, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            for index, text in zip(chosen.tolist(), texts, strict=True):
                predictions[index] = text.strip()
        draws.append(predictions)
    return draws


def generation_limits(config, decoding: Decoding) -> dict:
    """Arguments of `generate`."""
    # The sequence begins with </s>, which is not part of a target, so it may be one token longer.
    start = dict(
        decoder_start_token_id=config.decoder_start_token_id, max_length=decoding.max_output_length + 1
    )
    if decoding.generate_from_bos:
        start = dict(decoder_start_token_id=config.bos_token_id, max_length=decoding.max_output_length)
    if decoding.no_repeat_ngram_size is not None:
        start["no_repeat_ngram_size"] = decoding.no_repeat_ngram_size
    return dict(num_beams=decoding.num_beams, do_sample=False, early_stopping=False) | start


@torch.no_grad()
def loss_per_token(model, files: list[TaskFile], decoding: Decoding, accelerator: Accelerator) -> float:
    """Mean label-smoothed loss (nats per target token) over the files' examples, and over draws of routes."""
    model.eval()
    totals = torch.zeros(2, dtype=torch.float64)  # loss, tokens
    own = files[accelerator.process_index :: accelerator.num_processes]
    for file in tqdm(
        own, desc="dev loss", unit="task", leave=False, disable=not accelerator.is_local_main_process
    ):
        for routes in routes_of_file(model, file, decoding):
            for chosen, batch in batches_of_file(model, file, decoding.batch_size):
                tokens = int((batch["labels"] != -100).sum())
                with accelerator.autocast():
                    loss = model(**batch, routes=of_examples(routes, chosen), loss_only=True).loss
                totals += torch.tensor([float(loss), tokens], dtype=torch.float64)
    if accelerator.num_processes > 1:
        totals = accelerator.reduce(totals.to(accelerator.device), reduction="sum").cpu()
    return float(totals[0] / totals[1])
