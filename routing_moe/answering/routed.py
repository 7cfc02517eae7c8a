"""A trained model that answers new texts.

from routing_moe import Routed
model = Routed.load("models/moe")                # a run, a checkpoint, or a hub name
task = model.task("my_reviews", inputs=texts)    # the route of the train task with the most similar texts
print(task)
model.answer(task, ["The plot was thin."], options=["positive", "negative"])
model.export(task, "out/bart")                   # a plain BART, which needs transformers alone
"""

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from dataloader.encoding import EncodedExamples, TextFormat, encode, encode_options
from dataloader.errors import InputError, counted, did_you_mean, in_short
from dataloader.gym import Example, Gym, evenly_spread
from routing_moe.answering.export import export
from routing_moe.answering.queries import Answer, Query, RoutedTask, query_problem, text_problem
from routing_moe.checkpoints.find import SavedBart, SavedMixture, find_model
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.config.shared import TEXT_SETTINGS, TextFlags
from routing_moe.evaluation.scored_files import Decoding, TaskFile
from routing_moe.evaluation.scoring import answer
from routing_moe.evaluation.text_vectors import encoder_states, text_vectors
from routing_moe.io.accelerator import make_accelerator
from routing_moe.model.selection import noise_free_routes
from routing_moe.task_choice.choice import TaskChoice
from routing_moe.task_choice.choose import Chooser
from routing_moe.task_choice.given_vectors import GivenVectors
from routing_moe.task_choice.learned import learn_route, learn_vector
from routing_moe.task_choice.texts import (
    INPUTS_PER_TASK,
    TEXTS_FILE,
    KeptTexts,
    TextsOfModel,
    TextSource,
    kept_texts,
)

CHUNK = 512  # texts that are tokenized and sorted by length together

log = logging.getLogger("routing_moe")


class Routed:
    """A model with its tokenizer, and how it was trained to read texts and to answer."""

    def __init__(self, model, tokenizer, start: SavedMixture | SavedBart, texts: Mapping, accelerator):
        """texts: {name: value} of TEXT_SETTINGS."""
        self.model, self.tokenizer, self.start, self.texts = model.eval(), tokenizer, start, dict(texts)
        self.place, self.accelerator = start.place, accelerator
        self.text_format = TextFormat(**fields_of(TextFormat, texts))
        # How answers are made: as in training, with scores.
        self.decoding = Decoding(**fields_of(Decoding, texts), likelihoods=True)
        positions = model.config.max_position_embeddings
        for name in ("max_input_length", "max_output_length", "num_beams"):
            if not 1 <= texts[name] <= positions:
                raise InputError(f"{name} is {texts[name]}; it must be from 1 to {positions}")

    @classmethod
    def load(
        cls,
        place: str | Path,
        checkpoint_name: str | None = None,
        mixed_precision: str | None = None,
        **texts: int | bool,
    ) -> "Routed":
        """Returns the model of a run, a checkpoint, a plain BART or a hub name, on the GPU if there is one.

        checkpoint_name: which checkpoint of a run; None: best. texts: values of TEXT_SETTINGS that replace
        those of the training, such as num_beams=1. Raises InputError.
        """
        if unknown := sorted(set(texts) - set(TEXT_SETTINGS)):
            raise InputError(f"{unknown[0]!r} is no text setting{did_you_mean(unknown[0], TEXT_SETTINGS)}")
        start = find_model(str(place), checkpoint_name)
        accelerator = make_accelerator(mixed_precision)
        model = start.load().to(accelerator.device)
        tokenizer = load_tokenizer(start.place, model.config.vocab_size)
        return cls(model, tokenizer, start, settings_of(start, model.config) | texts, accelerator)

    # ---- the route of a task

    def task(
        self,
        name: str,
        *,
        inputs: Sequence[str] | None = None,
        examples: Sequence[tuple[str, str]] | None = None,
        vectors: str | Path | None = None,
        route: np.ndarray | None = None,
        gym: str | Path | None = None,
        steps: int = 100,
        rate: float | None = None,
        seed: int = 42,
    ) -> RoutedTask:
        """Returns the task with its route: the checkpoint's own, or by one of the following.

        inputs: unlabelled texts; the route is that of the train task with the most similar texts. examples:
        pairs of a text and its answer, from which a task vector, or a route where there is no router, is
        learned. vectors: folder of task vectors. route: (L, E). gym: that of the train tasks, with inputs for
        a checkpoint without their text vectors. rate: None: 0.01 for a vector, 0.1 for a route.
        """
        config = self.model.config
        depths = config.encoder_rows, config.num_layers - config.encoder_rows
        ways = dict(inputs=inputs, examples=examples, vectors=vectors, route=route)
        chosen = [way for way, value in ways.items() if value is not None]
        if len(chosen) > 1:
            raise InputError(f"{' and '.join(chosen)} each determine the route; give one of them")
        if config.num_experts == 1:
            return RoutedTask(name, torch.ones(config.num_layers, 1), None, depths)
        if examples is not None:
            choice = self._learned(name, list(examples), steps=steps, rate=rate, seed=seed)
        elif inputs is not None and config.routes_by_task:
            choice = self._nearest(name, list(inputs), gym)
        elif vectors is not None:
            choice = self._by_vector(name, vectors)
        elif route is not None:
            choice = TaskChoice(name, "given", "given route", route_LE=self._checked(route))
        else:
            self._check_known(name)
            choice = Chooser(self.model, "stored", config.trained_tasks).choose(name)
        return RoutedTask(name, self._route_of(choice), choice, depths)

    def _check_known(self, name: str) -> None:
        """Raises InputError if the model has no route of its own for a task."""
        config = self.model.config
        if config.route_source == "random":
            problem = "draws a route for each example; give the task's route, or examples"
            raise InputError(f"{self.place} {problem}")
        tasks = [task for task in config.task_names if task not in config.random_vectors]
        if config.route_source != "average" and name not in tasks:
            hint = did_you_mean(name, tasks) or "."
            raise InputError(
                f"{self.place} was not trained on {name!r}{hint} Its tasks: {in_short(sorted(tasks))}. The "
                "route of another task is found by its texts (--like, inputs=), or learned from labelled "
                "rows (--examples, examples=)"
            )

    def _checked(self, route: np.ndarray) -> np.ndarray:
        """Returns a given route as float32. Raises InputError unless its rows are weights of the experts."""
        size = (self.model.config.num_layers, self.model.config.num_experts)
        route_LE = np.asarray(route, dtype=np.float32)
        are_weights = route_LE.shape == size and (route_LE >= 0).all()
        if not are_weights or not np.allclose(route_LE.sum(axis=1), 1, atol=1e-4):
            raise InputError(f"the route must be (L, E) = {size}, rows of weights that sum to 1")
        return route_LE

    def _by_vector(self, name: str, folder: str | Path) -> TaskChoice:
        config = self.model.config
        if not (config.has_router or config.route_parts):
            raise InputError(f"{self.place} reads no task vectors: it has no router or clusters")
        task_vectors = GivenVectors.load(folder)
        task_vectors.check(self.place, config)
        if name not in task_vectors.names:
            raise InputError(f"{folder} has no vector for {name}{did_you_mean(name, task_vectors.names)}")
        return Chooser(self.model, vectors=task_vectors).choose(name)

    def _nearest(self, name: str, inputs: list[str], gym: str | Path | None) -> TaskChoice:
        check_texts(inputs, f"texts of {name}")
        chooser = Chooser(self.model, trained=self.model.config.trained_tasks or self.model.config.task_names)
        texts = self._kept_texts(chooser.table.seen, gym)
        candidates = {task: text_D for task, text_D in texts.vectors.items() if task in chooser.table.seen}
        if not candidates:
            raise InputError(f"{gym or self.place} has no texts of a task that {self.place} was trained on")
        shown, states_of = {name: evenly_spread(inputs, INPUTS_PER_TASK)}, encoder_states(self.model)
        (text_D,) = text_vectors(states_of, self.tokenizer, shown, texts.text_format, quiet=True)
        return chooser.nearest(name, text_D, counted(len(inputs), "unlabelled text"), candidates)

    def _kept_texts(self, tasks: Iterable[str], gym: str | Path | None) -> KeptTexts:
        """Returns the text vectors of a gym's tasks, else those that the checkpoint keeps."""
        if gym is not None:
            source = TextSource((Gym(gym),), self.text_format)
            texts = TextsOfModel(source, self.model, self.tokenizer, self.start, keep=True)
            return KeptTexts(texts.candidates(tasks), self.text_format)
        if texts := kept_texts(Path(self.place)):
            return texts
        raise InputError(
            f"{self.place} has no {TEXTS_FILE}, by which the nearest train task is found: give the gym "
            "that it was trained on once (--train_dir, gym=), or examples"
        )

    def _learned(self, name: str, examples: list[tuple[str, str]], **learning) -> TaskChoice:
        check_texts([text for text, _ in examples], f"examples of {name}")
        check_texts([output for _, output in examples], f"answers of {name}")
        rows = [Example(name, name, text, (output,)) for text, output in examples]
        encoded = encode(rows, self.tokenizer, self.text_format, {name: 0})
        config = self.model.config
        by_vector = config.has_router and not config.is_top_1
        learn, rate = (learn_vector, 0.01) if by_vector else (learn_route, 0.1)
        learning["rate"] = learning["rate"] or rate
        return learn(self.model, name, encoded, accelerator=self.accelerator, **learning)

    @torch.no_grad()
    def _route_of(self, choice: TaskChoice) -> torch.Tensor:
        """Returns the route (L, E) of a choice, on the model's device."""
        model, config = self.model, self.model.config
        if choice.route_LE is not None:
            return torch.from_numpy(choice.route_LE).to(model.device, model.dtype)
        logits_1LE = model.router(torch.from_numpy(choice.vector_D).to(model.device, model.dtype)[None])
        tau, k = config.router_temperature, config.router_top_k
        return noise_free_routes(logits_1LE, config.router_mode, tau, k)[0]

    # ---- answers

    def answer(
        self, task: RoutedTask | str, texts: Iterable[str], options: Sequence[str] = (), **decoding
    ) -> list[str]:
        """Returns the answer to each text: the most likely of the options, or generated without options."""
        if isinstance(texts, str) or isinstance(options, str):
            raise InputError("texts and options must be lists of texts, not a text")
        queries = (Query(text, tuple(options)) for text in texts)
        return [found.answer for found in self.answers(task, queries, **decoding)]

    def answers(self, task: RoutedTask | str, queries: Iterable[Query], **decoding) -> Iterator[Answer]:
        """Yields the answer to each text in order, with its score; reads CHUNK texts ahead."""
        task = self.task(task) if isinstance(task, str) else task
        decoding = dataclasses.replace(self.decoding, **decoding)
        queries, failed = iter(queries), None
        while failed is None:
            chunk: list[Query] = []
            try:
                chunk.extend(islice(queries, CHUNK))
            except InputError as error:  # of a line, after lines that can be answered
                failed = error
            if chunk:
                yield from self._answered(task, chunk, decoding)
            elif failed is None:
                return
        raise failed

    def _answered(self, task: RoutedTask, queries: list[Query], decoding: Decoding) -> Iterator[Answer]:
        file = self.task_file(task.name, queries)
        decoding = dataclasses.replace(decoding, scoring="rank" if any(file.options) else "generate")
        routes = {task.name: task.route_LE.to(self.model.device)}
        ((answers,),) = answer(self.model, self.tokenizer, [file], decoding, self.accelerator, routes)
        cut = self._cut(file.examples, file.encoded)
        for i, query in enumerate(queries):
            text, scores = answers.texts[i], answers.option_scores[i]
            if scores and self.text_format.do_lowercase:  # name the options as they were given
                typed = {option.lower(): option for option in reversed(query.options)}
                text, scores = typed[text], {typed[option]: score for option, score in scores.items()}
            yield Answer(query.input, text, answers.scores[i], scores, i in cut)

    def export(self, task: RoutedTask | str, folder: str | Path, argmax: bool = False) -> None:
        """Writes the plain BART of a task's route to a new folder; see `export.export`."""
        export(self, self.task(task) if isinstance(task, str) else task, Path(folder), argmax)

    def task_file(self, name: str, queries: list[Query]) -> TaskFile:
        """Returns the queries as a file of the task. Raises InputError for empty texts and wrong options."""
        for number, query in enumerate(queries, start=1):
            if problem := query_problem(query):
                raise InputError(f"text {number}: {problem}")
        lower = self.text_format.do_lowercase
        of_query = {  # the same texts of options are tokenized once
            options: tuple(dict.fromkeys(option.lower() if lower else option for option in options))
            for options in {query.options for query in queries}
        }
        options = [of_query[query.options] for query in queries]
        examples = [Example(name, name, query.input, ("",), query.options) for query in queries]
        encoded = encode(examples, self.tokenizer, self.text_format, {name: 0})
        tokens = encode_options(options, self.tokenizer, self.text_format)
        return TaskFile(name, name, "new", "EM", examples, encoded, "field", options, tokens)

    def _cut(self, examples: list[Example], encoded: EncodedExamples) -> set[int]:
        """Returns the indices of the texts that are longer than --max_input_length."""
        limit = self.text_format.max_input_length
        full = np.flatnonzero(encoded.source_lengths_N == limit)
        sources = [self.text_format.source(examples[i]) for i in full]
        lengths = self.tokenizer(sources, split_special_tokens=True)["input_ids"] if sources else []
        extra = self.text_format.append_another_bos
        return {int(i) for i, tokens in zip(full, lengths, strict=True) if len(tokens) + extra > limit}


def settings_of(start: SavedMixture | SavedBart, config) -> dict[str, int | bool | None]:
    """Returns {name: value} of TEXT_SETTINGS: of the checkpoint, else the defaults."""
    values = {field.name: field.default for field in dataclasses.fields(TextFlags)}
    for name in ("max_input_length", "max_output_length"):
        values[name] = min(values[name], config.max_position_embeddings)
    if not config.text_settings:
        log.info("note: %s does not say how it was trained to read texts: defaults apply", start.place)
    values |= config.text_settings or {}
    return {name: values[name] for name in TEXT_SETTINGS}


def check_texts(texts: Sequence[str], what: str) -> None:
    """Raises InputError if there are no texts, or for one that is empty or has characters of no file."""
    if not texts:
        raise InputError(f"there are no {what}")
    for number, text in enumerate(texts, start=1):
        if problem := text_problem(text):
            raise InputError(f"number {number} of the {what} {problem}")


def fields_of(cls: type, values: Mapping) -> dict:
    """Returns those of the values that are fields of a dataclass."""
    return {field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values}
