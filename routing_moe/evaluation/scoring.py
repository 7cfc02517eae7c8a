"""Evaluates a model on dev and test files of tasks: generation or ranking, scores, and further measures.

Routes are noise-free (unless sampled routes are requested), so scores depend on the checkpoint only. Random
routes have no noise-free form: their score is the mean over several draws, each with a route per example,
seeded by the name of the file, so that it is the same at every call. The examples of all files go through
the model together, in batches of similar length; what an example is batched with does not change its answer
beyond rounding. With several processes, each evaluates some of the batches, and all get all results.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from accelerate.utils.memory import clear_device_cache
from torch import Tensor

from dataloader.metrics import evaluate
from dataloader.options import option_metric
from dataloader.progress import ProgressBar
from routing_moe.evaluation.batches import Batch, answering_batches, batch_size, own_share, with_models
from routing_moe.evaluation.generated_scores import GreedyScores, sequence_scores
from routing_moe.evaluation.option_ranking import best, encoded, option_scores
from routing_moe.evaluation.pool import Pool, Routes, draws_of
from routing_moe.evaluation.route_losses import losses_of_files
from routing_moe.evaluation.scored_files import Decoding, TaskFile
from routing_moe.io.memory import is_out_of_memory
from routing_moe.model.beams import SourceCache, SourceStates
from routing_moe.model.modeling import CACHE_ARGUMENT, generate_plain

COLUMN_WORDS = {"labels": "labels of all samples"}  # replace names of sources in tables


@dataclass(frozen=True)
class Answers:
    """A model's answers to the N examples of a file or a batch, for one draw of routes.

    option_scores: for each example {option: score of `option_ranking`}, or None if the answer was generated.
    scores: those of the answers themselves; None for a generated answer without `Decoding.likelihoods`.
    """

    texts: list[str]
    option_scores: list[dict[str, float] | None]
    scores: list[float | None]


def predict(
    model,
    tokenizer,
    files: list[TaskFile],
    decoding: Decoding,
    accelerator: Accelerator,
    losses: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, list, list]:
    """Returns (scores, predictions, option scores) of every file.

    scores: a `scores_table` with the columns of `Decoding.measures`. predictions: for each file a list of
    draws (usually one), each a list of strings in the order of the file's examples. option scores: those of
    the first draw. losses: `losses_of_files`, if they are known already; their columns are then added, too.
    """
    answers = answer(model, tokenizer, files, decoding, accelerator)
    scores = scores_table(model, files, answers, decoding)
    if "answer_loss" in decoding.measures and losses is None:
        losses = losses_of_files(model, files, decoding, accelerator)
    if losses is not None:
        scores = scores.assign(**answer_losses(losses))
    if "rank_accuracy" in decoding.measures:
        scores["rank_accuracy"] = rank_accuracies(model, tokenizer, files, answers, decoding, accelerator)
    texts = [[draw.texts for draw in draws] for draws in answers]
    return scores, texts, [draws[0].option_scores for draws in answers]


@torch.no_grad()
def answer(
    model,
    tokenizer,
    files: list[TaskFile],
    decoding: Decoding,
    accelerator: Accelerator,
    routes: Mapping[str, Tensor] | None = None,
) -> list[list[Answers]]:
    """Returns the answers to each file for each draw of routes (usually one).

    routes: {task: route (L, E)}, used instead of the model's own. Files are then not divided among processes.
    Raises ValueError if options are to be ranked and no file of the model's own evaluation has any.
    """
    alone = routes is not None
    if not files:
        return []
    if decoding.scoring == "rank" and not alone and not any(file.options for file in files):
        raise ValueError('no file has options to rank; load the files with_options for scoring="rank"')
    model.eval()
    pool = Pool(files)
    if alone:
        draws = [Routes.of_files([routes[file.task][None] for file in files], pool.sizes)]
    else:
        draws = draws_of(model, pool, decoding, accelerator)
    batches = answering_batches(model, pool, draws, decoding, batch_size(model, decoding))
    own = range(len(batches)) if alone else own_share(batches, accelerator)
    quiet = alone or len(files) == 1 or not accelerator.is_local_main_process
    total = sum(len(batches[i].indices) for i in own)
    with ProgressBar(total=total, desc="predicting", unit="example", disable=quiet) as progress:
        answered = _answer(model, tokenizer, pool, draws, [batches[i] for i in own], decoding, accelerator)
        done = []
        for i, answers in zip(own, answered, strict=True):
            done.append((i, answers))
            progress.update(len(batches[i].indices))
    if not alone and accelerator.num_processes > 1:
        done = gather_object(done)
    return _in_files(pool, len(draws), [(batches[i], answers) for i, answers in done])


def _answer(
    model, tokenizer, pool: Pool, draws: list[Routes], batches: list[Batch], decoding: Decoding, accelerator
) -> Iterator[Answers]:
    """Yields the answers of each batch."""
    for batch, bart, routes in with_models(model, batches, draws):
        answer_batch = partial(_rank if batch.ranked else _generate, bart, tokenizer, pool)
        yield _in_halves(answer_batch, batch.indices, routes, decoding, accelerator)


def _in_halves(answer_batch: Callable, indices: np.ndarray, routes: Tensor | None, *settings) -> Answers:
    """Returns the answers of a batch: if memory runs out, those of its two halves."""
    try:
        return answer_batch(indices, routes, *settings)
    except (RuntimeError, MemoryError) as error:
        if len(indices) == 1 or not is_out_of_memory(error):
            raise
    clear_device_cache(garbage_collection=True)
    middle, lists = len(indices) // 2, []
    for part in (slice(middle), slice(middle, None)):
        of_part = None if routes is None else routes[part]
        lists.append(vars(_in_halves(answer_batch, indices[part], of_part, *settings)))
    return Answers(**{name: lists[0][name] + lists[1][name] for name in lists[0]})


def _in_files(pool: Pool, draws: int, done: list[tuple[Batch, Answers]]) -> list[list[Answers]]:
    """Returns the answers of each file for each draw, in the order of the examples, from those of batches."""
    of_examples: list[list] = [[("", None, None)] * len(pool) for _ in range(draws)]
    for batch, found in done:
        of_batch = zip(found.texts, found.option_scores, found.scores, strict=True)
        for index, own in zip(batch.indices, of_batch, strict=True):
            of_examples[batch.draw][index] = own
    by_draw = [
        [Answers(*([own[i] for own in of_file] for i in range(3))) for of_file in pool.by_file(of_draw)]
        for of_draw in of_examples
    ]
    return [list(of_file) for of_file in zip(*by_draw, strict=True)]


def _generate(bart, tokenizer, pool: Pool, indices, routes, decoding: Decoding, accelerator) -> Answers:
    """Returns the generated answers of a batch. routes: (b, L, E), None for a plain BART."""
    batch = pool.batch(indices, bart)
    del batch["labels"]
    generate = partial(generate_plain, bart) if routes is None else partial(bart.generate, routes=routes)
    limits, scores = generation_limits(bart.config, decoding), [None] * len(indices)
    if not decoding.likelihoods:
        with accelerator.autocast():
            sequences = generate(**batch, **limits)
    elif decoding.num_beams == 1:
        with accelerator.autocast(), GreedyScores(bart) as chosen:
            sequences = generate(**batch, **limits, stopping_criteria=[chosen])
        scores = chosen.means()
    else:  # the encoder's states and the cross-attention's keys and values are used again for the scores
        states = encoded(bart, batch, routes, accelerator.autocast)
        sources = {"encoder_outputs": SourceStates(states)}
        if routes is None:
            sources[CACHE_ARGUMENT] = SourceCache()
        with accelerator.autocast():
            sequences = generate(**batch, **sources, **limits)
        cache = sources.get(CACHE_ARGUMENT)
        scores = sequence_scores(bart, states, batch, sequences, routes, accelerator.autocast, cache)
    texts = tokenizer.batch_decode(sequences, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Answers([text.strip() for text in texts], [None] * len(texts), scores)


def _rank(bart, tokenizer, pool: Pool, indices, routes, decoding: Decoding, accelerator) -> Answers:
    """Returns the best options of a batch, and the scores of all options. routes: as for `_generate`."""
    batch = pool.batch(indices, bart)
    del batch["labels"]
    rows = [pool.option_rows[i] for i in indices]
    scored = option_scores(bart, batch, rows, pool.option_tokens, routes, accelerator.autocast)
    options = [pool.options[i] for i in indices]
    return Answers(
        [best(own, scores) for own, scores in zip(options, scored, strict=True)],
        [dict(zip(own, scores, strict=True)) for own, scores in zip(options, scored, strict=True)],
        [max(scores) for scores in scored],
    )


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


def rank_accuracies(
    model, tokenizer, files: list[TaskFile], answers: list[list[Answers]], decoding: Decoding, accelerator
) -> list[float | None]:
    """Returns for each file the share of its examples with options whose best option is accepted, or None.

    None: no example has options. An option is accepted by the task's metric if that is EM or ACC, otherwise
    by ACC. Random routes: mean over the draws. answers: those of `decoding`; if they were generated, the
    options are ranked in addition, which costs what scoring "rank" costs.
    """
    with_options = [place for place, file in enumerate(files) if any(file.options or ())]
    ranked = {place: answers[place] for place in with_options}
    if decoding.scoring != "rank":
        chosen, ranking = [files[place] for place in with_options], replace(decoding, scoring="rank")
        again = answer(model, tokenizer, chosen, ranking, accelerator)
        ranked = dict(zip(with_options, again, strict=True))
    return [
        float(np.mean([rank_accuracy(file, draw) for draw in ranked[place]])) if place in ranked else None
        for place, file in enumerate(files)
    ]


def rank_accuracy(file: TaskFile, ranked: Answers) -> float:
    """Returns the share of the ranked examples of a file whose answer is accepted; see `rank_accuracies`."""
    rows = [i for i, scores in enumerate(ranked.option_scores) if scores]
    accepted = [list(file.examples[i].outputs) for i in rows]
    return evaluate([ranked.texts[i] for i in rows], accepted, option_metric(file.metric))


def dev_scores(
    model, tokenizer, files: list[TaskFile], decoding: Decoding, accelerator: Accelerator, select_by: str
) -> tuple[pd.DataFrame, float]:
    """Returns scores of dev files with answer losses, and the label-smoothed loss of all their tokens.

    select_by: the measure that has to be known; for answer_loss no answers are made.
    """
    losses = losses_of_files(model, files, decoding, accelerator)
    if select_by == "answer_loss":
        scores = scores_of_losses(files, losses)
    else:
        scores, *_ = predict(model, tokenizer, files, decoding, accelerator, losses)
    return scores, float(losses["smoothed_loss"].sum() / losses["tokens"].sum())


def scores_of_losses(files: list[TaskFile], losses: pd.DataFrame) -> pd.DataFrame:
    """Returns a table as `scores_table` that has answer losses (`losses_of_files`) instead of performance."""
    rows = [
        dict(task_prefix=file.task, sample=file.sample, metric=file.metric, n=len(file.examples))
        for file in files
    ]
    return pd.DataFrame(rows).assign(**answer_losses(losses))


def answer_losses(losses: pd.DataFrame) -> dict[str, pd.Series]:
    """Returns the columns of `losses_of_files` as nats per token and per answer."""
    return {
        "answer_loss": losses["loss"] / losses["tokens"],
        "loss_per_answer": losses["loss"] / losses["rows"],
    }


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
