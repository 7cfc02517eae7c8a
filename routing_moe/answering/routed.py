"""A trained model that answers new texts.

from routing_moe import Routed
model = Routed.load("models/moe")                # a run, a checkpoint, or a hub name
task = model.task("my_reviews", inputs=texts)    # the route of the train task with the most similar texts
print(task)
model.answer(task, ["The plot was thin."], options=["positive", "negative"])
model.export(task, "out/bart")                   # a plain model, which needs transformers alone
"""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from dataloader.encoding import TextFormat, encode, encode_options
from dataloader.errors import InputError, counted, did_you_mean
from dataloader.gym import Example, Gym, evenly_spread
from routing_moe.answering.export import export
from routing_moe.answering.queries import CHUNK, Answer, Query, RoutedTask
from routing_moe.answering.training import train
from routing_moe.checkpoints.find import SavedMixture, SavedPlain, find_model
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.config.flags import flags_of, value_problems
from routing_moe.config.shared import TEXT_SETTINGS, TextFlags, text_problems, trained_texts
from routing_moe.evaluation.batches import routes_of_examples
from routing_moe.evaluation.scored_files import Decoding, TaskFile
from routing_moe.evaluation.scoring import answer
from routing_moe.evaluation.text_vectors import encoder_states, text_vectors
from routing_moe.io.accelerator import make_accelerator
from routing_moe.model.task_vectors import NOTHING, seen_together
from routing_moe.task_choice.choice import (
    GivenVectors,
    Resolver,
    TaskChoice,
    missing_row_error,
    seen_when_stored,
)
from routing_moe.task_choice.choose import Chooser
from routing_moe.task_choice.texts import (
    INPUTS_PER_TASK,
    TEXTS_FILE,
    KeptTexts,
    TextsOfModel,
    TextSource,
    kept_texts,
)

log = logging.getLogger("routing_moe")


def listed(name: str, values: Iterable, kind: Callable = list) -> Iterable:
    """Returns the values as a list, or of another kind. Raises InputError for a text or what is no list."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(f"{name} must be a list, not {values!r}")
    return kind(values)


class Routed:
    """A model with its tokenizer, and how it was trained to read texts and to answer."""

    def __init__(self, model, tokenizer, start: SavedMixture | SavedPlain, texts: Mapping, accelerator):
        """texts: {name: value} of TEXT_SETTINGS."""
        self.model, self.tokenizer, self.start, self.texts = model.eval(), tokenizer, start, dict(texts)
        self.place, self.accelerator = start.place, accelerator
        self.text_format = TextFormat.of(SimpleNamespace(**texts), model.config)
        names = {field.name for field in dataclasses.fields(Decoding)}.intersection(texts)
        # As in training, with scores.
        self.decoding = Decoding(**{name: texts[name] for name in names}, likelihoods=True)
        self._check(texts)

    def _check(self, texts: Mapping) -> None:
        """Raises InputError for values of text settings that are out of range or do not fit the model."""
        problems = value_problems(texts, flags_of(TextFlags))
        problems += text_problems(SimpleNamespace(**texts), self.model.config, self.place)
        if problems:
            raise InputError(problem.replace("--", "") for problem in problems)

    @classmethod
    def load(
        cls,
        place: str | Path,
        checkpoint_name: str | None = None,
        mixed_precision: str | None = None,
        **texts: int | bool,
    ) -> "Routed":
        """Returns the model of a run, a checkpoint, a plain model or a hub name, on the GPU if there is one.

        checkpoint_name: which checkpoint of a run; None: best. texts: values of TEXT_SETTINGS that replace
        those of the training, such as num_beams=1, but of FORMAT_FLAGS. Raises InputError.
        """
        if unknown := sorted(set(texts) - set(TEXT_SETTINGS)):
            raise InputError(f"{unknown[0]!r} is no text setting{did_you_mean(unknown[0], TEXT_SETTINGS)}")
        start = find_model(str(place), checkpoint_name)
        return cls.of(start.load(), start, make_accelerator(mixed_precision), **texts)

    @classmethod
    def of(cls, model, start: SavedMixture | SavedPlain, accelerator, **texts: int | bool) -> "Routed":
        """Returns a loaded model with the tokenizer of `start`. texts: as for `load`."""
        model.to(accelerator.device)
        tokenizer = load_tokenizer(start.place, model.config.vocab_size)
        defaults = {field.name: field.default for field in dataclasses.fields(TextFlags)}
        positions = model.config.max_position_embeddings
        if not model.config.is_encoder_decoder:  # which has them for an input and its answer together
            positions = max(2, positions - min(defaults["max_output_length"], positions // 2))
        for name in ("max_input_length", "max_output_length"):
            defaults[name] = min(defaults[name], positions)
        if not model.config.text_settings:
            log.info("note: %s does not say how it was trained to read texts: defaults apply", start.place)
        texts = defaults | trained_texts(model.config.text_settings, texts) | texts
        return cls(model, tokenizer, start, {name: texts[name] for name in TEXT_SETTINGS}, accelerator)

    @classmethod
    def train(cls, model, tokenizer, gym: str | Path, folder: str | Path, **settings) -> "Routed":
        """Trains a mixture on a gym, saves it to a new folder, and returns it.

        settings: those of `routing_moe.answering.training.train`.
        """
        train(model, tokenizer, gym, folder, **settings)
        return cls.load(folder, mixed_precision=settings.get("mixed_precision"))  # a process has a single one

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
        (text, answer) or (text, answer, turns before it), from which a task vector, or a route where there is
        no router, is learned. vectors: folder of task vectors. route: (L, E). gym: that of the train tasks,
        for a checkpoint without their text vectors. rate: None: 0.01 for a vector, 0.1 for a route.
        """
        model, config = self.model, self.model.config
        ways = dict(inputs=inputs, examples=examples, vectors=vectors, route=route)
        chosen = [way for way, value in ways.items() if value is not None]
        if len(chosen) > 1:
            raise InputError(f"{' and '.join(chosen)} each determine the route; give one of them")
        if steps < 1 or (rate is not None and rate <= 0):
            raise InputError(f"steps is {steps} and rate {rate}; nothing is learned unless both are above 0")
        texts = [] if inputs is None else listed("inputs", inputs)
        if not all(isinstance(t, str) and t.strip() for t in texts):
            raise InputError("inputs must be a list of texts, none empty")
        if config.num_experts == 1 and vectors is None and route is None:
            route_LE, seen = torch.ones(config.num_layers, 1), seen_when_stored(config, name)
            return self._task(name, route_LE, "none: one expert", seen, texts)
        if self.model.source.reads_inputs and vectors is None and route is None and examples is None:
            description = f"{config.route_source} routes, of each text"
            return self._task(name, None, description, seen_when_stored(config, name))
        if inputs is not None and not config.routes_by_task:
            how = f"{self.place} has {config.route_source} routes, which no texts determine"
            raise InputError(f"{how}; leave --like and inputs= out")
        trained, asked = config.trained_tasks or config.task_names, {"rule": "stored"}
        if examples is not None:
            examples, asked = listed("examples", examples), {"rule": "learned"}
        elif vectors is not None:
            asked = {"vectors": self._given_vectors(name, vectors)}
        elif route is not None:
            asked = {"routes": {name: checked_route(route, config.num_layers, config.num_experts)}}
        elif inputs is None:
            self._check_known(name)
        rows = partial(self._labelled, examples=examples)
        how = dict(steps=steps, rate=rate, seed=seed, accelerator=self.accelerator)
        chooser = Chooser(model, Resolver.of(config, trained, **asked), rows=rows, **how)
        choice = chooser.choose(name) if inputs is None else self._nearest(name, texts, gym, chooser)
        # Experts that were trained on the task have seen more than what its route is based on.
        seen = seen_together(choice.seen, config.weights_seen.get(name, NOTHING))
        texts = texts or [text for text, *_ in examples or ()]
        return self._task(name, chooser.route(choice), choice.description, seen, texts)

    def _task(self, name: str, route_LE, description: str, seen: str, texts=()) -> RoutedTask:
        where = self.model.config.encoder_rows, str(self.place)
        return RoutedTask(name, route_LE, description, seen, *where, texts)

    def _own(self, task: RoutedTask | str) -> RoutedTask:
        """Returns the task, looked up if a name is given. Raises InputError for a task of another model."""
        task = self.task(task) if isinstance(task, str) else task
        if os.path.realpath(task.model) != os.path.realpath(self.place):
            raise InputError(f"{task.name} is a task of {task.model}; make it with task() of {self.place}")
        return task

    def _check_known(self, name: str) -> None:
        """Raises InputError if the model has no route of its own for a task."""
        config = self.model.config
        if config.source_kind.is_drawn:
            problem = "draws a route for each example; give the task's route, or examples"
            raise InputError(f"{self.place} {problem}")
        resolver = Resolver.of(config)
        if not resolver.has(name):
            advice = "give --like or --examples, in Python inputs= or examples="
            raise missing_row_error(self.place, "route", [name], resolver.known, advice)

    def _given_vectors(self, name: str, folder: str | Path) -> GivenVectors:
        config = self.model.config
        if not (config.has_router or config.has_route_vectors):
            raise InputError(f"{self.place} reads no task vectors: it has no router or clusters")
        task_vectors = GivenVectors.load(folder)
        task_vectors.check(self.place, config)
        if name not in task_vectors.names:
            raise missing_row_error(folder, "vector", [name], task_vectors.names, "compute one for it")
        return task_vectors

    def _nearest(self, name: str, inputs: list[str], gym: str | Path | None, chooser: Chooser) -> TaskChoice:
        if gym is not None:
            source = TextSource((Gym(gym),), self.text_format)
            of_gym = TextsOfModel(source, self.model, self.tokenizer, self.start, keep=True)
            texts = KeptTexts(of_gym.candidates(chooser.resolver.seen), self.text_format)
        elif (texts := kept_texts(Path(self.place))) is None:
            advice = "give the gym that it was trained on once (--train_dir, gym=), or examples"
            raise InputError(f"{self.place} has no {TEXTS_FILE} to find the nearest train task; {advice}")
        candidates = {task: text_D for task, text_D in texts.vectors.items() if task in chooser.resolver.seen}
        if not candidates:
            raise InputError(f"{gym or self.place} has no texts of a task that {self.place} was trained on")
        shown, states_of = {name: evenly_spread(inputs, INPUTS_PER_TASK)}, encoder_states(self.model)
        (text_D,) = text_vectors(states_of, self.tokenizer, shown, texts.text_format, quiet=True)
        return chooser.nearest(name, text_D, counted(len(inputs), "unlabelled text"), candidates)

    def _labelled(self, name: str, sample: None, examples: Sequence[tuple[str, str]]):
        are_pairs = all(isinstance(pair, list | tuple) and len(pair) in (2, 3) for pair in examples)
        parts = [part for pair in examples for part in pair[:2]] if are_pairs else []
        if not parts or not all(isinstance(part, str) and part.strip() for part in parts):
            raise InputError(f"the examples of {name} must be pairs of a text and its answer, none empty")
        rows = [Example(name, name, text, (output,), (), *before) for text, output, *before in examples]
        return encode(rows, self.tokenizer, self.text_format, {name: 0}), sample

    # ---- answers

    def answer(
        self, task: RoutedTask | str, texts: Iterable[str], options: Sequence[str] = (), **decoding
    ) -> list[str]:
        """Returns the answer to each text: the most likely of the options, or generated without options."""
        options = tuple(listed("options", options or ()))
        queries = (Query(text, options) for text in listed("texts", texts, iter))
        return [reply.answer for reply in self.answers(task, queries, **decoding)]

    def answers(self, task: RoutedTask | str, queries: Iterable[Query], **decoding) -> Iterator[Answer]:
        """Yields the answer to each text in order, with its score; reads CHUNK texts ahead."""
        task = self._own(task)
        self._check(self.texts | decoding)
        decoding, queries = dataclasses.replace(self.decoding, **decoding), iter(queries)
        while chunk := list(islice(queries, CHUNK)):
            yield from self._answered(task, chunk, decoding)

    def _answered(self, task: RoutedTask, queries: list[Query], decoding: Decoding) -> Iterator[Answer]:
        file = self.task_file(task.name, queries)
        decoding = dataclasses.replace(decoding, scoring="rank" if any(file.options) else "generate")
        by_text = task.route_LE is None
        routes_KLE = routes_of_examples(self.model, file.encoded) if by_text else task.route_LE[None]
        routes = {task.name: routes_KLE.to(self.model.device)}
        ((answers,),) = answer(self.model, self.tokenizer, [file], decoding, self.accelerator, routes)
        limit = self.text_format.max_input_length
        for i, query in enumerate(queries):
            text, scores, was_cut = answers.texts[i], answers.option_scores[i], False
            if scores and self.text_format.do_lowercase:  # name the options as they were given
                typed = {option.lower(): option for option in reversed(query.options)}
                text, scores = typed[text], {typed[option]: score for option, score in scores.items()}
            if file.encoded.source_lengths_N[i] == limit or query.before:
                whole = self.text_format.without_limits()
                again = encode([file.examples[i]], self.tokenizer, whole, {file.task: 0})
                was_cut = bool(again.source_lengths_N[0] > limit)
            yield Answer(query.input, text, answers.scores[i], scores, was_cut)

    def route_of(self, task: RoutedTask) -> torch.Tensor:
        """Returns the route (L, E) of a task. Raises InputError if each text has its own."""
        return self.model.routes_for([task.name])[0] if task.route_LE is None else task.route_LE

    def export(self, task: RoutedTask | str, folder: str | Path, argmax: bool = False) -> None:
        """Writes the plain model of a task's route to a new folder; see `export.export`."""
        export(self, self._own(task), Path(folder), argmax)

    def task_file(self, name: str, queries: list[Query]) -> TaskFile:
        """Returns the queries as a file of the task. Raises InputError for empty texts and wrong options."""
        options = []
        for number, query in enumerate(queries, start=1):
            try:
                query.check()
            except ValueError as error:
                raise InputError(f"text {number}: {error}") from None
            lower = self.text_format.do_lowercase
            options.append(tuple(dict.fromkeys(o.lower() if lower else o for o in query.options)))
        examples = [Example(name, name, query.input, ("",), query.options, query.before) for query in queries]
        encoded = encode(examples, self.tokenizer, self.text_format, {name: 0})
        tokens = encode_options(options, self.tokenizer, self.text_format)
        return TaskFile(name, name, "new", "EM", examples, encoded, "field", options, tokens)


def checked_route(route: np.ndarray, *size: int) -> np.ndarray:
    """Returns a given route as float32. Raises InputError."""
    route_LE = np.asarray(route, dtype=np.float32)
    are_weights = route_LE.shape == size and (route_LE >= 0).all()  # which NaN is not
    if not are_weights or not np.allclose(route_LE.sum(axis=1), 1, rtol=0, atol=1e-4):
        raise InputError(f"the route must be (L, E) = {size}, rows of weights that sum to 1")
    return route_LE
