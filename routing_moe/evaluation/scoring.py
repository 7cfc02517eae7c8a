"""Evaluates a model on dev and test files of tasks: generation or ranking, scores, and the loss.

Routes are noise-free (unless sampled routes are requested), so scores depend on the checkpoint only. Random
routes have no noise-free form: their score is the mean over several draws, each with a route per example,
seeded by the name of the file, so that it is the same at every call. With several processes, each evaluates
some of the files, and all get the results of all files.
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

from dataloader.batching import assign_to_ranks
from dataloader.metrics import evaluate
from routing_moe.evaluation.option_ranking import best, option_scores
from routing_moe.evaluation.scored_files import Decoding, TaskFile
from routing_moe.model.selection import random_one_hot

COLUMN_WORDS = {"labels": "labels of all samples"}  # replace names of sources in tables


@dataclass(frozen=True)
class Answers:
    """A model's answers to the N examples of a file, for one draw of routes.

    option_scores: for each example {option: score of `option_ranking`}, or None if the answer was generated.
    """

    texts: list[str]
    option_scores: list[dict[str, float] | None]


def predict(model, tokenizer, files: list[TaskFile], decoding: Decoding, accelerator: Accelerator):
    """Returns (scores, predictions) of every file.

    scores: a `scores_table`. predictions: for each file a list of draws (usually one), each a list of strings
    in the order of the file's examples.
    """
    answers = answer(model, tokenizer, files, decoding, accelerator)
    return scores_table(model, files, answers, decoding), texts_and_scores(answers)[0]


def texts_and_scores(answers: list[list[Answers]]) -> tuple[list, list]:
    """Returns the texts of each draw, and the option scores of the first draw, for each file."""
    return [[draw.texts for draw in draws] for draws in answers], [
        draws[0].option_scores for draws in answers
    ]


def answer(
    model, tokenizer, files: list[TaskFile], decoding: Decoding, accelerator: Accelerator
) -> list[list[Answers]]:
    """Returns the answers to each file for each draw of routes (usually one).

    Raises ValueError if options are to be ranked and no file has any.
    """
    if decoding.scoring == "rank" and not any(file.options for file in files):
        raise ValueError('no file has options to rank; load the files with scoring="rank"')
    model.eval()
    own = own_share([answering_cost(file, decoding) for file in files], accelerator)
    quiet = not accelerator.is_local_main_process or len(own) == 1
    progress = tqdm(own, desc="predicting", unit="task", leave=False, disable=quiet)
    done = [(i, predict_file(model, tokenizer, files[i], decoding, accelerator)) for i in progress]
    if accelerator.num_processes > 1:
        done = gather_object(done)
    return [draws for _, draws in sorted(done, key=lambda pair: pair[0])]


def scores_table(model, files: list[TaskFile], answers: list[list[Answers]], decoding: Decoding):
    """Returns a DataFrame with task_prefix (task name), sample, metric, performance, n of every file.

    With random routes, performance is a mean over draws, and there are more columns: performance_std (sample
    standard deviation; empty for a single draw), draws (their number) and the score of each draw, draw_1 and
    so on. With scoring "rank", the column scoring has "generate" or the source of options, such as "rank
    (labels of all samples)".
    """
    rows = []
    for file, draws in zip(files, answers, strict=True):
        values = pd.Series([score(file, draw.texts, decoding.do_lowercase) for draw in draws])
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
        if decoding.scoring == "rank":
            source = COLUMN_WORDS.get(file.option_source, file.option_source)
            row["scoring"] = f"rank ({source})" if source else "generate"
        rows.append(row)
    return pd.DataFrame(rows)


def mean_score(scores: pd.DataFrame, column: str = "performance") -> float:
    """Returns the mean over tasks of the mean over a task's samples."""
    return float(scores.groupby("task_prefix")[column].mean().mean())


def spread_over_draws(scores: pd.DataFrame) -> float:
    """Returns the sample standard deviation of `mean_score` over draws of random routes (NaN for one)."""
    columns = [name for name in scores if name.startswith("draw_")]
    return float(pd.Series([mean_score(scores, name) for name in columns]).std())


def score(file: TaskFile, predictions: list[str], do_lowercase: bool = False) -> float:
    """Returns the score of a file by its metric.

    do_lowercase: also lowercase the answers, for a model that is trained on lowercased text.
    """
    answers = [
        [answer.lower() if do_lowercase else answer for answer in example.outputs]
        for example in file.examples
    ]
    return evaluate(predictions, answers, file.metric)


def routes_of_file(model, file: TaskFile, decoding: Decoding) -> Iterator[Tensor]:
    """Yields the routes for a file: its task's route (1, L, E), or draws of random routes (n, L, E)."""
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


def batches_of_file(
    model, file: TaskFile, batch_size: int, members: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, dict]]:
    """Yields (indices, inputs on the device), longest first, so that out-of-memory errors occur early.

    members: indices of the examples to use; None: all.
    """
    members = np.arange(len(file.examples)) if members is None else members
    order = members[np.argsort(-file.encoded.source_lengths_N[members], kind="stable")]
    for chosen in np.array_split(order, math.ceil(len(order) / batch_size)) if len(order) else ():
        batch = file.encoded.collate(chosen, pad_token_id=model.config.pad_token_id)
        yield chosen, {name: t.to(model.device) for name, t in batch.items() if name != "task_ids"}


def of_examples(routes: Tensor, chosen: np.ndarray) -> Tensor:
    """Returns the routes of a batch: the route of the task for all examples, or each example's route."""
    return routes.expand(len(chosen), -1, -1) if len(routes) == 1 else routes[torch.from_numpy(chosen)]


def predict_file(model, tokenizer, file: TaskFile, decoding: Decoding, accelerator) -> list[Answers]:
    """Returns the answers to one file for each draw of routes."""
    return [
        answers_along(model, tokenizer, file, routes, decoding, accelerator)
        for routes in routes_of_file(model, file, decoding)
    ]


@torch.no_grad()
def answers_along(
    model, tokenizer, file: TaskFile, routes, decoding: Decoding, accelerator, members=None
) -> Answers:
    """Returns the answers to a file with one route (1, L, E), or with a route for each example (n, L, E).

    members: indices of the examples to answer; None: all. The texts of the others are empty.
    """
    # If the task's route has an equivalent plain BART, it is assembled once for all batches.
    whole_file = len(routes) == 1 and model.has_plain_equivalent(routes)
    bart = model.to_bart(routes[0]) if whole_file else model
    routes = None if whole_file else routes
    answers = Answers([""] * len(file.examples), [None] * len(file.examples))
    members = np.arange(len(file.examples)) if members is None else members
    ranked = members[:0] if decoding.scoring != "rank" else np.intersect1d(members, file.ranked)
    generated = np.setdiff1d(members, ranked)
    _generate(bart, tokenizer, file, generated, routes, decoding, accelerator, answers)
    _rank(bart, file, ranked, routes, decoding, accelerator, answers)
    return answers


def _generate(bart, tokenizer, file, members, routes, decoding, accelerator, answers: Answers) -> None:
    """Generates the answers of the file's `members` into `answers`. routes: None for a plain BART."""
    limits = generation_limits(bart.config, decoding)
    for chosen, batch in batches_of_file(bart, file, decoding.batch_size, members):
        del batch["labels"]
        along = {} if routes is None else {"routes": of_examples(routes, chosen)}
        with accelerator.autocast():
            sequences = bart.generate(**batch, **along, **limits)
        texts = tokenizer.batch_decode(
            sequences, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        for index, text in zip(chosen.tolist(), texts, strict=True):
            answers.texts[index] = text.strip()


def _rank(bart, file, members, routes, decoding, accelerator, answers: Answers) -> None:
    """Ranks the options of the file's `members`; the best are their answers.

    routes: None for a plain BART.
    """
    for chosen, batch in batches_of_file(bart, file, decoding.batch_size, members):
        del batch["labels"]
        rows = [file.encoded_options.rows[i] for i in chosen]
        along = None if routes is None else of_examples(routes, chosen)
        scored = option_scores(bart, batch, rows, file.encoded_options.tokens, along, accelerator.autocast)
        for index, scores in zip(chosen.tolist(), scored, strict=True):
            options = file.options[index]
            answers.texts[index] = best(options, scores)
            answers.option_scores[index] = dict(zip(options, scores, strict=True))


def generation_limits(config, decoding: Decoding) -> dict:
    """Returns arguments of `generate`."""
    # The sequence starts with </s>, which is not part of a target, so it may be one token longer.
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
    """Returns the mean label-smoothed loss (nats per target token) over examples and draws of routes."""
    model.eval()
    lengths = [file.encoded.source_lengths_N.sum() + file.encoded.target_lengths_N.sum() for file in files]
    own = own_share(lengths, accelerator)
    # One row of loss and tokens per file, so that sums do not depend on the assignment of files.
    totals_F2 = torch.zeros(len(files), 2, dtype=torch.float64)
    quiet = not accelerator.is_local_main_process
    for i in tqdm(own, desc="dev loss", unit="task", leave=False, disable=quiet):
        for routes in routes_of_file(model, files[i], decoding):
            for chosen, batch in batches_of_file(model, files[i], decoding.batch_size):
                tokens = int((batch["labels"] != -100).sum())
                with accelerator.autocast():
                    loss = model(**batch, routes=of_examples(routes, chosen), loss_only=True).loss
                totals_F2[i] += torch.tensor([float(loss), tokens], dtype=torch.float64)
    if accelerator.num_processes > 1:
        totals_F2 = accelerator.reduce(totals_F2.to(accelerator.device), reduction="sum").cpu()
    loss, tokens = totals_F2.sum(dim=0)
    return float(loss / tokens)


# ---- assignment of files to processes


def own_share(costs: list[int], accelerator: Accelerator) -> list[int]:
    """Returns ascending indices of this process's files. All processes get about the same total cost."""
    return assign_to_ranks(costs, accelerator.num_processes)[accelerator.process_index]


def answering_cost(file: TaskFile, decoding: Decoding) -> int:
    """Returns the approximate number of tokens that the model processes to answer a file.

    Assumes that a generated answer has the length of the first accepted answer, in every beam. An option
    costs its tokens and those of its input.
    """
    sources_N, targets_N = file.encoded.source_lengths_N, file.encoded.target_lengths_N
    ranked = file.ranked if decoding.scoring == "rank" else file.ranked[:0]
    generated = np.setdiff1d(np.arange(len(file.examples)), ranked)
    cost = sources_N.sum() + decoding.num_beams * targets_N[generated].sum()
    for i in ranked:
        rows = np.unique(file.encoded_options.rows[i])
        cost += len(rows) * sources_N[i] + file.encoded_options.tokens.lengths[rows].sum()
    return int(cost)
