"""Generate, score, measure the loss: what is done with a model on the dev and test files of tasks.

Routes are noise-free, so scores are a function of the checkpoint alone (unless sampled routes are asked
for). With several processes each takes a share of the task files; every process gets all results.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from dataloader.encoding import EncodedExamples, TextFormat, encode
from dataloader.gym import Example, Gym
from dataloader.metrics import evaluate


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

    scores: DataFrame with task_prefix (the task's name), sample, metric, performance, n. predictions: for
    each file a list of strings, in the order of its examples.
    """
    model.eval()
    own = list(range(len(files)))[accelerator.process_index :: accelerator.num_processes]
    progress = tqdm(
        own, desc="predicting", unit="task", leave=False, disable=not accelerator.is_local_main_process
    )
    done = [(i, predict_file(model, tokenizer, files[i], decoding, accelerator)) for i in progress]
    if accelerator.num_processes > 1:
        done = gather_object(done)
    predictions = [texts for _, texts in sorted(done)]
    rows = [
        (f.task, f.sample, f.metric, score(f, texts, decoding.do_lowercase), len(texts))
        for f, texts in zip(files, predictions, strict=True)
    ]
    return pd.DataFrame(rows, columns=["task_prefix", "sample", "metric", "performance", "n"]), predictions


def mean_score(scores: pd.DataFrame) -> float:
    """Mean over tasks of the mean over a task's samples."""
    return float(scores.groupby("task_prefix")["performance"].mean().mean())


def score(file: TaskFile, predictions: list[str], do_lowercase: bool = False) -> float:
    """The file's metric. A model trained on lowercased text is scored against lowercased answers."""
    answers = [
        [answer.lower() if do_lowercase else answer for answer in example.outputs]
        for example in file.examples
    ]
    return evaluate(predictions, answers, file.metric)


@torch.no_grad()
def predict_file(model, tokenizer, file: TaskFile, decoding: Decoding, accelerator) -> list[str]:
    """Predictions for one file, longest inputs first (so that a lack of memory shows at once)."""
    route_1LE = model.routes_for([file.task], noise=decoding.sampled_routes)
    generate = generator(model, route_1LE)
    start = model.config.decoder_start_token_id
    # The sequence begins with </s>, which is not part of a target, so it may be one token longer.
    limits = dict(decoder_start_token_id=start, max_length=decoding.max_output_length + 1)
    if decoding.generate_from_bos:
        limits = dict(decoder_start_token_id=model.config.bos_token_id, max_length=decoding.max_output_length)
    if decoding.no_repeat_ngram_size is not None:
        limits["no_repeat_ngram_size"] = decoding.no_repeat_ngram_size
    predictions = [""] * len(file.examples)
    order = np.argsort(-file.encoded.source_lengths_N, kind="stable")
    for chosen in np.array_split(order, math.ceil(len(order) / decoding.batch_size)):
        batch = file.encoded.collate(chosen, pad_token_id=model.config.pad_token_id)
        with accelerator.autocast():
            sequences = generate(
                batch["input_ids"].to(model.device),
                attention_mask=batch["attention_mask"].to(model.device),
                num_beams=decoding.num_beams,
                do_sample=False,
                early_stopping=False,
                **limits,
            )
        texts = tokenizer.batch_decode(
            sequences, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        for index, text in zip(chosen.tolist(), texts, strict=True):
            predictions[index] = text.strip()
    return predictions


def generator(model, route_1LE):
    """`generate` along one route: for a one-hot route the plain BART's, assembled once for all batches."""
    if model.is_one_hot(route_1LE):
        return model.to_bart(route_1LE[0]).generate
    return lambda inputs, **kwargs: model.generate(
        inputs, routes=route_1LE.expand(len(inputs), -1, -1), **kwargs
    )


@torch.no_grad()
def loss_per_token(
    model, files: list[TaskFile], batch_size: int, sampled_routes: bool, accelerator: Accelerator
) -> float:
    """Mean label-smoothed loss (nats per target token) over all examples of the files."""
    model.eval()
    totals = torch.zeros(2, dtype=torch.float64)  # loss, tokens
    own = files[accelerator.process_index :: accelerator.num_processes]
    for file in tqdm(
        own, desc="dev loss", unit="task", leave=False, disable=not accelerator.is_local_main_process
    ):
        route_1LE = model.routes_for([file.task], noise=sampled_routes)
        order = np.argsort(file.encoded.source_lengths_N, kind="stable")
        for chosen in np.array_split(order, math.ceil(len(order) / batch_size)):
            batch = file.encoded.collate(chosen, pad_token_id=model.config.pad_token_id)
            tokens = int((batch["labels"] != -100).sum())
            inputs = {k: v.to(model.device) for k, v in batch.items() if k != "task_ids"}
            with accelerator.autocast():
                routes = route_1LE.expand(len(chosen), -1, -1)
                loss = model(**inputs, routes=routes, loss_only=True).loss
            totals += torch.tensor([float(loss), tokens], dtype=torch.float64)
    if accelerator.num_processes > 1:
        totals = accelerator.reduce(totals.to(accelerator.device), reduction="sum").cpu()
    return float(totals[0] / totals[1])
