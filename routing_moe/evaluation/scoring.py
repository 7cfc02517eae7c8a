"""Evaluates a model on dev and test files of tasks: generation or ranking, scores, and further measures.

Routes are noise-free, unless sampled ones are requested; the score of random routes is the mean over draws,
seeded by the name of the file. The examples of all files go through the model together. With several
processes, each evaluates some batches, and all get all results.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from dataloader.encoded import IGNORED_LABEL
from dataloader.errors import problem_context
from dataloader.metrics import evaluate
from dataloader.progress import ProgressBar
from dataloader.task_files import trimmed
from routing_moe.config.measures import MEASURES, PERFORMANCE, Scored, further, needed, value_of
from routing_moe.evaluation.batches import (
    ExampleRoutes,
    answering_batches,
    batch_size,
    draws_of,
    own_share,
    run_batches,
)
from routing_moe.evaluation.option_ranking import (
    GreedyScores,
    encoded,
    is_answer_token,
    losses_of,
    option_scores,
    per_token,
    positions,
)
from routing_moe.evaluation.route_losses import losses_of_files
from routing_moe.evaluation.scored_files import Decoding, Pool, TaskFile, prompts_of
from routing_moe.model.beams import CACHE_ARGUMENT, SourceCache, SourceStates, generate_plain, shares_sources

# Settings that decoder-only models are published with. None is for greedy answers, or saved with them.
SAMPLING = ("temperature", "top_k", "top_p", "top_h", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
COLUMN_WORDS = {"labels": "labels of all samples"}  # replace names of sources in tables


@dataclass(frozen=True)
class Answers:
    """A model's answers to the N examples of a file, for one draw of routes.

    option_scores: for each example {option: score of `option_ranking`}, or None if the answer was generated.
    scores: those of the answers themselves; None for a generated answer without `Decoding.likelihoods`.
    """

    texts: list[str]
    option_scores: list[dict[str, float] | None]
    scores: list[float | None]


def predict(
    model, tokenizer, files: list[TaskFile], decoding: Decoding, accelerator: Accelerator
) -> tuple[pd.DataFrame, list, list]:
    """Returns (a `scores_table`, predictions, option scores of the first draw) of every file.

    predictions: for each file a list of draws (usually one), each a list of texts.
    """
    answers = answer(model, tokenizer, files, decoding, accelerator)
    measures = [PERFORMANCE, *further(decoding.measures)]
    scores = scores_table(model, tokenizer, files, decoding, accelerator, measures, answers)
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

    routes: {task: its route (1, L, E), or of its file's examples (n, L, E)}, used instead of the model's own;
    files are then not divided among processes.
    """
    alone = routes is not None
    if not files:
        return []
    if decoding.scoring == "rank" and not alone and not any(file.options for file in files):
        raise ValueError('no file has options to rank; load the files with_options for scoring="rank"')
    model.eval()
    pool = Pool(files)
    if alone:
        draws = [ExampleRoutes.of_files([routes[file.task] for file in files], pool.sizes)]
    else:
        draws = draws_of(model, pool, decoding, accelerator)
    batches = answering_batches(model, pool, draws, decoding, batch_size(model, decoding))
    share = range(len(batches)) if alone else own_share(batches, accelerator)
    quiet = alone or len(files) == 1 or not accelerator.is_local_main_process
    total, answered = sum(len(batches[i].indices) for i in share), []

    def answers_of(bart, indices: np.ndarray, routes_bLE: Tensor | None) -> list[tuple]:
        is_ranked = decoding.scoring == "rank" and pool.options[indices[0]]
        make = _rank if is_ranked else _generate
        return make(bart, tokenizer, pool, indices, routes_bLE, decoding, accelerator)

    with ProgressBar(total=total, desc="predicting", unit="example", disable=quiet) as progress:
        for batch, answers in run_batches(model, [batches[i] for i in share], draws, answers_of):
            answered.append((batch.draw, batch.indices, answers))
            progress.update(len(answers))
    if not alone and accelerator.num_processes > 1:
        answered = gather_object(answered)
    of_examples: list[list] = [[("", None, None)] * len(pool) for _ in draws]
    for draw, indices, answers in answered:
        for index, of_example in zip(indices, answers, strict=True):
            of_examples[draw][index] = of_example
    by_draw = [
        [Answers(*([values[i] for values in of_file] for i in range(3))) for of_file in pool.by_file(of_draw)]
        for of_draw in of_examples
    ]
    return [list(of_file) for of_file in zip(*by_draw, strict=True)]


def _generate(bart, tokenizer, pool: Pool, indices, routes, decoding: Decoding, accelerator) -> list[tuple]:
    """Returns (answer, None, score) of each example. routes: (b, L, E), None for a plain BART."""
    batch, end = prompts_of(pool.encoded, indices, bart), tokenizer.eos_token_id
    generate = partial(generate_plain, bart) if routes is None else partial(bart.generate, routes=routes)
    generate = partial(generate, **generation_limits(bart.config, decoding, tokenizer))
    scores = [None] * len(indices)
    if not decoding.likelihoods:
        with accelerator.autocast():
            sequences = generate(**batch)
    elif decoding.num_beams == 1:
        greedy = GreedyScores(end)
        generating = getattr(bart, "backbone", bart)
        with accelerator.autocast(), generating.register_forward_hook(greedy.keep):
            sequences = generate(**batch, stopping_criteria=[greedy])
        scores = (greedy.sums_B / greedy.lengths_B).tolist()
    else:
        sequences, scores = _scored_beams(bart, generate, batch, routes, end, accelerator.autocast)
    answers_BT = sequences[:, num_start_tokens(bart) :]
    rows = zip(answers_BT, is_answer_token(answers_BT, end), strict=True)
    tokens = [row[is_real].tolist() for row, is_real in rows]
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [(trimmed(text), None, score) for text, score in zip(texts, scores, strict=True)]


def num_start_tokens(bart) -> int:
    """Returns the number of tokens that begin what a model generates: that from which a decoder starts."""
    return int(bart.config.is_encoder_decoder)


def _scored_beams(
    bart, generate: Callable, batch: dict[str, Tensor], routes, end: int, autocast: Callable
) -> tuple[Tensor, list[float]]:
    """Returns (sequences, their scores). The scores read encoder states and cross-attention again, of a BART.

    The scores of beams themselves depend on settings of generation.
    """
    cached, shared = {}, {}
    if shares_sources(bart):
        cached = {CACHE_ARGUMENT: SourceCache()} if routes is None else {}
        states = encoded(bart, batch, routes, autocast)
        shared = {"encoder_outputs": SourceStates(states)}
    with autocast():
        sequences = generate(**batch, **shared, **cached)
        if cached:  # without the keys and values of the answers themselves
            cross = cached[CACHE_ARGUMENT].cross_attention_cache
            cached = {"cache": EncoderDecoderCache(DynamicCache(), cross)}
        if shared:
            batch = {"encoder_outputs": states, "attention_mask": batch["attention_mask"]}
        answers_BT = sequences[:, num_start_tokens(bart) :]
        labels = answers_BT.masked_fill(~is_answer_token(answers_BT, end), IGNORED_LABEL)
        if bart.config.is_encoder_decoder:
            batch["decoder_input_ids"] = sequences[:, :-1]
        else:
            batch, labels = continued(batch, labels)
        (losses,) = losses_of(bart, batch, labels, routes, **cached)
        return sequences, per_token(losses, labels).tolist()


def continued(prompts: dict[str, Tensor], labels_BT: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Returns the inputs and labels of a decoder-only model for answers after prompts that end together."""
    mask_BS, is_answer_BT = prompts["attention_mask"], (labels_BT != IGNORED_LABEL).long()
    mask_BZ = torch.cat([mask_BS, is_answer_BT], dim=1)
    inputs = {
        "input_ids": torch.cat([prompts["input_ids"], labels_BT.clamp(min=0)], dim=1),
        "attention_mask": mask_BZ,
        "position_ids": positions(mask_BZ),
    }
    return inputs, torch.cat([torch.full_like(mask_BS, IGNORED_LABEL), labels_BT], dim=1)


def _rank(bart, tokenizer, pool: Pool, indices, routes, decoding: Decoding, accelerator) -> list[tuple]:
    """Returns (best option, {option: score}, its score) of each example. routes: as of `_generate`."""
    batch = prompts_of(pool.encoded, indices, bart)
    rows = [pool.option_rows[i] for i in indices]
    scored = option_scores(bart, batch, rows, pool.option_tokens, routes, accelerator.autocast)
    answers = []
    for i, scores in zip(indices, scored, strict=True):
        by_option = dict(zip(pool.options[i], scores, strict=True))
        best = max(by_option, key=by_option.__getitem__)  # of equal scores, the first
        answers.append((best, by_option, by_option[best]))
    return answers


def generation_limits(config, decoding: Decoding, tokenizer) -> dict:
    """Returns arguments of `generate`."""
    limits = dict(num_beams=decoding.num_beams, do_sample=False, early_stopping=False)
    if not config.is_encoder_decoder:
        limits |= dict(max_new_tokens=decoding.max_output_length, pad_token_id=config.pad_token_id)
        limits |= dict(eos_token_id=tokenizer.eos_token_id, max_length=None)
        limits |= dict.fromkeys(SAMPLING)
    elif decoding.generate_from_bos:
        limits |= dict(decoder_start_token_id=config.bos_token_id, max_length=decoding.max_output_length)
    else:  # the sequence starts with </s>, which is not part of a target, so it may be one token longer
        start, longest = config.decoder_start_token_id, decoding.max_output_length + 1
        limits |= dict(decoder_start_token_id=start, max_length=longest)
    if decoding.no_repeat_ngram_size is not None:
        limits["no_repeat_ngram_size"] = decoding.no_repeat_ngram_size
    return limits


def scores_table(
    model, tokenizer, files: list[TaskFile], decoding: Decoding, accelerator, measures, answers=(), losses=()
) -> pd.DataFrame:
    """Returns a row per file: task_prefix (task name), sample, metric, n, measures; NaN without a value.

    answers: of `answer`, for measures that need them. losses: `losses_of_files`, if they are known already;
    with losses, also loss_per_answer. With random routes, values are means over draws, and there are
    performance_std (sample standard deviation), draws (their number) and the score of each, draw_1 and so on.
    With scoring "rank", the column scoring has "generate" or the source of options.
    """
    rows, needs = [], needed(measures)
    if "losses" in needs and not losses:
        losses = losses_of_files(model, files, decoding, accelerator)
    ranked = dict(enumerate(answers)) if decoding.scoring == "rank" else {}
    if "options" in needs and not ranked:
        places = [place for place, file in enumerate(files) if any(file.options or ())]
        chosen, ranking = [files[place] for place in places], replace(decoding, scoring="rank")
        ranked = dict(zip(places, answer(model, tokenizer, chosen, ranking, accelerator), strict=True))
    for place, file in enumerate(files):
        row = {"task_prefix": file.task, "sample": file.sample, "metric": file.metric}
        own, of_file = answers[place] if answers else (), losses[place] if losses else {}
        draws = scored_draws(file, own, ranked.get(place, ()), of_file, decoding.do_lowercase)
        with problem_context(f"task {file.task}: "):
            values = {name: pd.Series([value_of(name, draw) for draw in draws]) for name in measures}
        row |= {PERFORMANCE: values[PERFORMANCE].mean()} if answers else {}
        row["n"] = len(file.examples)
        if answers and model.source.is_drawn:
            scores = values[PERFORMANCE]
            row |= {"performance_std": scores.std(), "draws": len(scores)}
            row |= {f"draw_{i}": value for i, value in enumerate(scores, start=1)}
        if answers and decoding.scoring == "rank":
            source = COLUMN_WORDS.get(file.option_source, file.option_source)
            row["scoring"] = f"rank ({source})" if source else "generate"
        row |= {name: values[name].mean(skipna=False) for name in further(values)}
        rows.append(row | ({"loss_per_answer": np.mean(of_file["loss"])} if losses else {}))
    return pd.DataFrame(rows)


def scored_draws(file: TaskFile, answers, ranked, losses, do_lowercase: bool) -> list[Scored]:
    """Returns what is known of a file for each draw of routes: `Answers` to it, ranked ones, and losses."""
    known = dict(metric=file.metric, answers=accepted_answers(file, do_lowercase))
    known |= dict(losses_N=losses.get("loss"), tokens_N=losses.get("tokens"))
    unknown = [None] * len(file.examples)
    return [
        Scored(**known, predictions=draw and draw.texts, options=own.option_scores if own else unknown)
        for draw, own in list(zip_longest(answers, ranked)) or [(None, None)]
    ]


def dev_scores(
    model, tokenizer, files: list[TaskFile], decoding: Decoding, accelerator: Accelerator, select_by: str
) -> tuple[pd.DataFrame, float]:
    """Returns scores of dev files, and the label-smoothed loss of all their tokens.

    Scores have the measures that need just losses, and `decoding.measures`; but if select_by needs no
    answers, none are made, and measures that need more than it are left out.
    """
    losses, answers = losses_of_files(model, files, decoding, accelerator), ()
    known, wanted = {"losses"} | needed([select_by]), (PERFORMANCE, select_by, *decoding.measures)
    measures = [name for name in MEASURES if name in wanted or MEASURES[name].needs == ("losses",)]
    if "answers" in known:
        answers = answer(model, tokenizer, files, decoding, accelerator)
    else:
        measures = [name for name in measures if needed([name]) <= known]
    scores = scores_table(model, tokenizer, files, decoding, accelerator, measures, answers, losses)
    smoothed, tokens = (np.concatenate([own[name] for own in losses]) for name in ("smoothed_loss", "tokens"))
    return scores, float(smoothed.sum() / tokens.sum())


def accepted_answers(file: TaskFile, do_lowercase: bool) -> list[list[str]]:
    """Returns the accepted answers of each example. do_lowercase: for a model of lowercased text."""
    answers = [list(example.outputs) for example in file.examples]
    return [[text.lower() for text in accepted] for accepted in answers] if do_lowercase else answers


def score(file: TaskFile, predictions: list[str], do_lowercase: bool = False) -> float:
    """Returns the score of a file by its metric. do_lowercase: as of `accepted_answers`."""
    with problem_context(f"task {file.task}: "):
        return evaluate(predictions, accepted_answers(file, do_lowercase), file.metric)
