"""The model that fine-tuning starts from: a plain model, or a mixture with one of its routes.

A route with an equivalent plain model is converted into it. With other routes the experts are kept, or merged
into the mean of their parameters (MHR-mu: Caccia et al. 2022, arXiv 2211.03831), or frozen, while the route's
logits are trained (MHR-z there, and LoraHub: Huang et al. 2023, arXiv 2307.13269).
"""

import copy
import zlib
from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor

from dataloader.encoded import EncodedExamples
from dataloader.gym import Gym
from routing_moe.checkpoints.find import SavedMixture, find_start
from routing_moe.checkpoints.tokenizer_files import load_start_tokenizer
from routing_moe.config.choices import BUILT_IN_SOURCES, kind_of
from routing_moe.config.finetune import FinetuneSettings
from routing_moe.config.shared import text_settings
from routing_moe.finetuning.checks import keeps_source, resolver_of, text_source
from routing_moe.io.accelerator import make_accelerator
from routing_moe.model.base import is_of_base, train_base
from routing_moe.model.injection import stacks
from routing_moe.model.mixtures import mixture_of
from routing_moe.model.route_sources import random_task_routes
from routing_moe.model.selection import route_logits
from routing_moe.model.task_routing import TaskVectors
from routing_moe.model.task_vectors import NOTHING, ROWS_OF_ONE, of_sample
from routing_moe.task_choice.choice import TaskChoice
from routing_moe.task_choice.choose import Chooser, vector_of
from routing_moe.task_choice.texts import TextsOfModel

PLAIN = {"plain": "plain model", "merged": "merged plain model"}
TRAINED = {"fixed": "fixed", "logits": "logits trained", "vector": "vector trained"}
TRAINED |= {"router": "router and vector trained"}
WITHOUT_VECTOR = {"random": "random for each example", "inputs": "by each input"}


class StartingModels:
    """Loads the start once; returns the model that the configurations of a sample start from."""

    def __init__(self, settings: FinetuneSettings, device: torch.device):
        self.settings, self.device = settings, device
        start = find_start(settings.start, settings.moe_init)
        self.loaded = start.load()
        self.config = config = self.loaded.config
        self._seen_at_start = dict(config.weights_seen)
        self.tokenizer = load_start_tokenizer(start.place, settings.model, config.vocab_size)
        is_mixture, self._sample, self._model, self._resolver = config.num_experts > 1, None, None, None
        self.tasks = kept_tasks(settings, config) if is_mixture else [settings.task]  # of each model
        if is_mixture and not keeps_source(settings, config):
            self._resolver = resolver_of(settings, config)
        ways = {self._resolver.way(settings.task, sample) for sample in settings.samples if self._resolver}
        self._needs_rows = not ways.isdisjoint(("learned", "lowest_loss"))
        self._choices = self._chosen(start, ways) if ways and not self._needs_rows else {}
        differ = self._needs_rows or not are_equal(self._choices.values())
        self._shared = len(settings.samples) == 1 or not differ

    def model_for(self, sample: str, examples: Callable[[], EncodedExamples]):
        """Returns (model, its route in words, what its vector has seen of the task or None without a vector).

        Samples that start from the same weights get the same model. examples: returns the train examples.
        """
        if self._model is None or (not self._shared and sample != self._sample):
            settings, (model, route, seen) = self.settings, self._adapted(sample, examples)
            model.to(self.device).config.task_names = self.tasks
            model.config.text_settings = text_settings(settings)
            model.config.input_templates = Gym(settings.gym_dir).templates([settings.task])
            if settings.label_smoothing is not None:
                model.config.label_smoothing = settings.label_smoothing
            set_trained(model, settings.route_training, settings.freeze_embeds, settings.base_lr > 0)
            self._model, self._route, self._seen, self._sample = model, route, seen, sample
            if self._shared:  # else the next sample needs the unchanged mixture
                self.loaded = None
        config, rows = self._model.config, self.settings.do_train and of_sample(ROWS_OF_ONE, sample)
        config.vectors_seen, config.weights_seen = self._seen or NOTHING, dict(self._seen_at_start)
        for seen in filter(None, (self._seen, rows)):
            config.note_seen({self.settings.task: seen})
        return self._model, self._route, self._seen

    def _chosen(self, start: SavedMixture, ways: Collection[str]) -> dict[str, TaskChoice]:
        """Returns {sample: its vector or route}, those that need no training and no losses."""
        settings, mixture, texts = self.settings, self.loaded, None
        if "nearest_task" in ways:
            source = text_source(settings, mixture.config)
            texts = TextsOfModel(source, mixture.to(self.device), self.tokenizer, start, settings.quiet, True)
        chooser = Chooser(mixture, self._resolver, texts)
        choices = {sample: chooser.choose(settings.task, sample) for sample in settings.samples}
        mixture.cpu()  # the copies that are trained need the memory of a GPU
        return choices

    def _adapted(self, sample: str, examples: Callable[[], EncodedExamples]):
        settings = self.settings
        if self.config.num_experts == 1:
            return (plain_of(self.loaded) if self.loaded.config.has_lora else self.loaded), "none", None
        choice = self._choices.get(sample)
        mixture = self.loaded if self._shared else self._copied().to(self.device)
        accelerator = make_accelerator(settings.mixed_precision)  # a process has a single precision
        if self._needs_rows:
            how = dict(steps=settings.vector_steps, rate=settings.task_model_lr, seed=settings.seed)
            rows, mixture = (lambda task, sample: (examples(), sample)), mixture.to(accelerator.device)
            chooser = Chooser(mixture, self._resolver, rows=rows, accelerator=accelerator, **how)
            choice = chooser.choose(settings.task, sample)
        return *along_route(mixture, settings, choice), choice and choice.seen

    def _copied(self):
        """Returns a copy of the mixture, with the same base of low-rank experts if that is not trained."""
        of_base = is_of_base if self.config.has_lora and not self.settings.base_lr else lambda name: False
        shared = {id(p): p for name, p in self.loaded.named_parameters() if of_base(name)}
        return copy.deepcopy(self.loaded, shared)


def kept_tasks(settings: FinetuneSettings, config) -> list[str]:
    """Returns the tasks of the fine-tuned mixture: a source of the user's reads their numbers, so all."""
    if (settings.chosen_source or config.route_source) in BUILT_IN_SOURCES:
        return [settings.task]
    return list(dict.fromkeys([*config.task_names, settings.task]))


def are_equal(choices: Collection[TaskChoice]) -> bool:
    """Returns whether all choices are the same, with the same description."""
    texts = {(choice.description, choice.seen) for choice in choices}
    values = [choice.route_LE if choice.vector_D is None else choice.vector_D for choice in choices]
    same_rows = len({choice.row for choice in choices}) <= 1
    return len(texts) <= 1 and same_rows and all(np.array_equal(value, values[0]) for value in values)


def along_route(mixture, settings: FinetuneSettings, choice: TaskChoice | None):
    """Returns (model, route in words) for the task. May change the mixture or return it as the model.

    choice: the task's vector if the router reads one, its route if it is given, else None.
    """
    config, task, training = mixture.config, settings.task, settings.route_training
    source = settings.chosen_source or config.route_source
    if kind_of(source).is_drawn and training:  # merged or logits
        source = "average"  # the expectation of a route that is drawn for each example
    kind = kind_of(source)
    config.exploration_epsilon = 0.0  # exploration is for training on many tasks
    route_LE, has_no_rows = None, not (kind.reads_vectors or kind.is_stored)
    if has_no_rows:
        description = WITHOUT_VECTOR.get(source, source)
        if kind.is_equal:
            size = config.num_layers, config.num_experts
            route_LE = torch.full(size, 1 / config.num_experts, device=mixture.device)
    elif choice is not None and choice.route_LE is not None:
        route_LE = torch.from_numpy(choice.route_LE).to(mixture.device, mixture.routing_dtype)
        description = choice.description
    elif kind.is_stored:
        route_LE, description = task_route(mixture, task, settings.seed)
    else:  # the mixture is reduced to one task with this vector
        vector_1D = vector_of(mixture, choice).detach()[None].clone()
        mixture.task_vectors = TaskVectors.from_pretrained(vector_1D, freeze=False)
        config.task_names, config.random_vectors = [task], []
        route_LE, description = mixture.routes_for([task])[0].detach(), choice.description
    if training is None:
        has_plain = route_LE is not None and mixture.has_plain_equivalent(route_LE[None])
        training = "plain" if has_plain else "fixed"
    if training in PLAIN:
        if training == "merged" and not config.has_lora:
            config.expert_mixing = "parameters"
        return plain_of(mixture, route_LE), f"{description}; {PLAIN[training]}"
    config.task_names = kept_tasks(settings, config)
    if training == "logits":
        mixture.use_table(route_logits(route_LE)[None])
    elif has_no_rows:
        mixture.use_routes(source)
        return mixture, description
    elif training == "fixed":
        mixture.use_routes("fixed", route_LE[None])
    return mixture, f"{description}; {TRAINED[training]}"


def plain_of(mixture, route_LE: Tensor | None = None):
    """Returns the plain model of a route as a mixture of one expert; no tensor is shared.

    In float32, in which no small update or step is lost in rounding. route_LE: None with one expert.
    """
    plain, shared = mixture.to_plain(route_LE, dtype=torch.float32), set(map(id, mixture.parameters()))
    plain = copy.deepcopy(plain, {id(t): t for t in plain.parameters() if id(t) not in shared}).float()
    smoothing, trained = mixture.config.label_smoothing, mixture.config.trained_tasks
    return mixture_of(plain, label_smoothing=smoothing, trained_tasks=trained)


def task_route(mixture, task: str, seed: int) -> tuple[Tensor, str]:
    """Returns the route (L, E) drawn for the task, in the run if that drew some, and its description."""
    config = mixture.config
    if config.has_random_fixed_routes and task in config.task_names:
        return mixture.task_routes[config.task_names.index(task)], "random for the task, drawn in the run"
    seed += zlib.crc32(task.encode())
    drawn = random_task_routes(1, config.num_layers, config.num_experts, n=1, seed=seed)[0]
    return drawn.to(mixture.device), "random for the task"


def set_trained(model, route_training: str | None, freeze_embeds: bool, trains_base: bool = False) -> None:
    """Sets `requires_grad` of the model's parts. trains_base: also of the model that experts share."""
    trained = route_training != "logits"
    for name, parameter in model.named_parameters():
        if not is_of_base(name):
            parameter.requires_grad_(trained)
    if trains_base:
        model.float()
    train_base(model, trained and (trains_base or not model.config.has_lora))
    if freeze_embeds:  # of tokens and positions, and the norms after them
        of_layers = tuple(f"{name}." for name in stacks(model))
        for name, parameter in model.named_parameters():
            if is_of_base(name) and not name.startswith(of_layers):
                parameter.requires_grad_(False)
    if model.config.has_router:
        model.router.requires_grad_(route_training == "router")
        model.task_vectors.requires_grad_(route_training in ("logits", "vector", "router"))
