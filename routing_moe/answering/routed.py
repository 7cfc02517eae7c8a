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
from dataloader.errors import InputError, did_you_mean, in_short
from dataloader.gym import Example, Gym, evenly_spread
from routing_moe.answering.chosen import find_model
from routing_moe.answering.export import export
from routing_moe.answering.queries import Query
from routing_moe.answering.tasks import Answer, RoutedTask
from routing_moe.checkpoints.find import SavedBart, SavedMixture
from routing_moe.checkpoints.start import load_tokenizer
from routing_moe.config.shared import TEXT_SETTINGS, TextFlags
from routing_moe.evaluation.scored_files import Decoding, TaskFile
from routing_moe.evaluation.scoring import answer
from routing_moe.evaluation.text_vectors import encoder_states, text_vectors
from routing_moe.io.accelerator import make_accelerator
from routing_moe.io.run_folder import load_run_settings
from routing_moe.model.selection import noise_free_routes
from routing_moe.task_choice.choice import TaskChoice
from routing_moe.task_choice.choose import Chooser
from routing_moe.task_choice.given_vectors import GivenVectors
from routing_moe.task_choice.learned import learn_route, learn_vector
from routing_moe.task_choice.texts import INPUTS_PER_TASK, TEXTS_FILE, KeptTexts, TextsOfModel, TextSource

CHUNK = 512  # texts that are tokenized and sorted by length together
LEARNING = {"steps": 100, "rate": 1e-2, "seed": 42}  # the defaults of fine-tuning's learned vectors

log = logging.getLogger("routing_moe")


class Routed:
    """A model with its tokenizer, and how it was trained to read texts and to answer."""

    def __init__(self, model, tokenizer, start: SavedMixture | SavedBart, texts: Mapping, accelerator):
        """texts: {name: value} of TEXT_SETTINGS."""
        self.model, self.tokenizer, self.start, self.texts = model.eval(), tokenizer, start, dict(texts)
        self.accelerator = accelerator
        self.text_format = TextFormat(**_known(TextFormat, texts))

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
        start = find_model(str(place), checkpoint_name)
        accelerator = make_accelerator(mixed_precision)
        model = start.load().to(accelerator.device)
        tokenizer = load_tokenizer(place_of(start), model.config.vocab_size)
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
        **learning,
    ) -> RoutedTask:
        """Returns the task with its route: the checkpoint's own, or by one of the following.

        inputs: unlabelled texts; the route is that of the train task with the most similar texts. examples:
        pairs of a text and its answer, from which a task vector, or a route where there is no router, is
        learned. vectors: folder of task vectors, with a row for the task. route: (L, E). gym: with inputs:
        the gym of the train tasks, for a checkpoint without their text vectors. learning: steps, rate and
        seed, which replace those of LEARNING. Raises InputError.
        """
        config = self.model.config
        depths = config.encoder_layers, config.decoder_layers
        if config.num_experts == 1:
            return RoutedTask(name, torch.ones(config.num_layers, 1), None, depths)
        if inputs is not None:
            choice = self._nearest(name, inputs, gym)
        elif examples is not None:
            choice = self._learned(name, examples, LEARNING | learning)
        else:
            choice = self._given(name, vectors, route)
        return RoutedTask(name, self._route_of(choice), choice, depths)

    def _given(self, name: str, vectors: str | Path | None, route: np.ndarray | None) -> TaskChoice:
        config, given, routes = self.model.config, None, {}
        if vectors is not None:
            if not (config.has_router or config.route_parts):
                raise InputError(f"{self.place} reads no task vectors: it has no router or clusters")
            given = GivenVectors.load(vectors)
            if faults := given.faults(self.start.checkpoint, config):
                raise InputError(faults)
            if given.of(name) is None:
                raise InputError(f"{vectors} has no vector for {name}{did_you_mean(name, given.names)}")
        if route is not None:
            size = (config.num_layers, config.num_experts)
            if np.shape(route) != size or not np.isfinite(route).all():
                raise InputError(f"the route of {name} must be (L, E) = {size} finite numbers")
            routes = {name: np.asarray(route, dtype=np.float32)}
        is_known = name in config.task_names and name not in config.random_vectors
        if given is None and not routes and not is_known and config.route_source != "average":
            if config.route_source == "random":
                raise InputError(f"{self.place} draws a route for each example: give a route, or examples")
            known = [task for task in config.task_names if task not in config.random_vectors]
            raise InputError(
                f"{self.place} was not trained on {name!r}{did_you_mean(name, known) or '.'} Its tasks: "
                f"{in_short(sorted(known))}. The route of another task is found by its texts (inputs=, "
                "--like), or learned from labelled rows (examples=, --examples)"
            )
        return Chooser(self.model, "stored", config.trained_tasks, given, routes).choose(name)

    def _nearest(self, name: str, inputs: Sequence[str], gym: str | Path | None) -> TaskChoice:
        config = self.model.config
        if not config.routes_by_task:
            return self._given(name, None, None)
        check_texts(inputs, f"texts of {name}")
        trained = config.trained_tasks or config.task_names
        chooser = Chooser(self.model, trained=trained)
        kept = self._kept_texts(chooser.table.seen, gym)
        shown = {name: evenly_spread(list(inputs), INPUTS_PER_TASK)}
        states_of = encoder_states(self.model)
        (text_D,) = text_vectors(states_of, self.tokenizer, shown, kept.text_format, quiet=True)
        counted = "1 unlabelled text" if len(inputs) == 1 else f"{len(inputs)} unlabelled texts"
        return chooser.nearest(name, text_D, counted, kept.vectors)

    def _kept_texts(self, tasks: Iterable[str], gym: str | Path | None) -> KeptTexts:
        """Returns the text vectors of those of the tasks that have one, in the checkpoint or by a gym."""
        folder, tasks = Path(self.place), set(tasks)
        if gym is not None:
            source = TextSource((Gym(gym),), self.text_format)
            TextsOfModel(source, self.model, self.tokenizer, self.start, keep=True).candidates(tasks)
        kept = KeptTexts.load(folder)
        vectors = {task: vector for task, vector in kept.vectors.items() if task in tasks} if kept else {}
        if not vectors:
            raise InputError(
                f"{folder} has no {TEXTS_FILE}, by which the nearest train task is found: give the gym that "
                "it was trained on once, as gym= or --train_dir, or examples"
            )
        return dataclasses.replace(kept, vectors=vectors)

    def _learned(self, name: str, examples: Sequence[tuple[str, str]], learning: dict) -> TaskChoice:
        if not examples:
            raise InputError(f"the route of {name} cannot be learned: there are no examples of it")
        rows = [Example(name, name, text, (output,)) for text, output in examples]
        encoded = encode(rows, self.tokenizer, self.text_format, {name: 0})
        config = self.model.config
        is_top_1 = config.router_mode == "top_k" and config.router_top_k == 1  # gives a vector no gradient
        learn = learn_vector if config.has_router and not is_top_1 else learn_route
        return learn(self.model, name, encoded, accelerator=self.accelerator, **learning)

    @torch.no_grad()
    def _route_of(self, choice: TaskChoice) -> torch.Tensor:
        """Returns the route (L, E) of a choice, on the model's device."""
        model, config = self.model, self.model.config
        if choice.route_LE is not None:
            return torch.from_numpy(choice.route_LE).to(model.device, model.dtype)
        vector_1D = torch.from_numpy(choice.vector_D).to(model.device, model.dtype)[None]
        logits_1LE = model.router(vector_1D)
        return noise_free_routes(
            logits_1LE, config.router_mode, config.router_temperature, config.router_top_k
        )[0]

    @property
    def place(self) -> Path | str:
        """The checkpoint's folder, or the source of a plain BART."""
        return place_of(self.start)

    # ---- answers

    def answer(
        self, task: RoutedTask | str, texts: Iterable[str], options: Sequence[str] = (), **decoding
    ) -> list[str]:
        """Returns the answer to each text: the most likely of the options, or generated without options.

        decoding: fields of `Decoding` to change, such as batch_size. Raises InputError.
        """
        queries = (Query(text, tuple(options)) for text in texts)
        return [found.answer for found in self.answers(task, queries, **decoding)]

    def answers(self, task: RoutedTask | str, queries: Iterable[Query], **decoding) -> Iterator[Answer]:
        """Yields the answer to each text in order, with its score; reads CHUNK texts ahead."""
        task = self.task(task) if isinstance(task, str) else task
        decoding = dataclasses.replace(self.decoding, **decoding)
        queries = iter(queries)
        while chunk := list(islice(queries, CHUNK)):
            yield from self._answered(task, chunk, decoding)

    @property
    def decoding(self) -> Decoding:
        """How answers are made: as in training, with scores."""
        return Decoding(**_known(Decoding, self.texts), likelihoods=True)

    def export(
        self, task: RoutedTask | str, folder: str | Path, argmax: bool = False, texts: Sequence[str] = ()
    ) -> float | None:
        """Writes the plain BART of a task's route to a new folder; see `export.export`."""
        return export(self, self.task(task) if isinstance(task, str) else task, Path(folder), argmax, texts)

    def _answered(self, task: RoutedTask, queries: list[Query], decoding: Decoding) -> Iterator[Answer]:
        file = self._file(task.name, queries)
        decoding = dataclasses.replace(decoding, scoring="rank" if any(file.options) else "generate")
        routes = {task.name: task.route_LE.to(self.model.device)}
        (found,) = answer(self.model, self.tokenizer, [file], decoding, self.accelerator, routes)[0]
        cut = self._cut(file.examples, file.encoded)
        for i, query in enumerate(queries):
            yield Answer(query.input, found.texts[i], found.scores[i], found.option_scores[i], i in cut)

    def _file(self, name: str, queries: list[Query]) -> TaskFile:
        """Returns the queries as a file of the task. Raises InputError for empty texts and wrong options."""
        check_texts([query.input for query in queries], "texts")
        examples = [Example(name, name, query.input, ("",), query.options) for query in queries]
        of_query = {own: checked_options(own, self.text_format) for own in {q.options for q in queries}}
        options = [of_query[query.options] for query in queries]
        encoded = encode(examples, self.tokenizer, self.text_format, {name: 0})
        tokens = encode_options(options, self.tokenizer, self.text_format)
        shortest = 3 + self.text_format.append_another_bos
        for own, rows in zip(options, tokens.rows, strict=True):
            for option, length in zip(own, tokens.tokens.lengths[rows], strict=True):
                if length < shortest or not option.strip():
                    raise InputError(f"the option {option!r} has no tokens; give a text")
        return TaskFile(name, name, "new", "EM", examples, encoded, "field", options, tokens)

    def _cut(self, examples: list[Example], encoded: EncodedExamples) -> set[int]:
        """Returns the indices of the texts that are longer than --max_input_length."""
        limit = self.text_format.max_input_length
        full = np.flatnonzero(encoded.source_lengths_N == limit)
        sources = [self.text_format.source(examples[i]) for i in full]
        lengths = self.tokenizer(sources, split_special_tokens=True)["input_ids"] if sources else []
        extra = self.text_format.append_another_bos
        return {int(i) for i, tokens in zip(full, lengths, strict=True) if len(tokens) + extra > limit}


def place_of(start: SavedMixture | SavedBart) -> Path | str:
    return start.checkpoint if isinstance(start, SavedMixture) else start.source


def settings_of(start: SavedMixture | SavedBart, config) -> dict[str, int | bool | None]:
    """Returns {name: value} of TEXT_SETTINGS: of the checkpoint, else of its run, else the defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(TextFlags)}
    own = config.text_settings
    if own is None:
        own = load_run_settings(Path(place_of(start)).parent) or {}
        if not own:
            log.info(
                "note: %s does not say how it was trained to read texts; defaults apply", place_of(start)
            )
    return {name: own.get(name, defaults[name]) for name in TEXT_SETTINGS}


def check_texts(texts: Sequence[str], what: str) -> None:
    """Raises InputError if there are no texts, or one is empty."""
    if not texts:
        raise InputError(f"there are no {what}")
    if empty := [i for i, text in enumerate(texts, start=1) if not text.strip()]:
        raise InputError(f"number {empty[0]} of the {what} is empty")


def checked_options(options: Sequence[str], text_format: TextFormat) -> tuple[str, ...]:
    """Returns the options in the letter case of the training. Raises InputError for less than two."""
    own = tuple(dict.fromkeys(option.lower() if text_format.do_lowercase else option for option in options))
    if len(own) == 1:
        raise InputError(f"{own[0]!r} is the only option; give at least two different ones, or none")
    return own


def _known(cls: type, values: Mapping) -> dict:
    """Returns those of the values that are fields of a dataclass."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: value for name, value in values.items() if name in names}
