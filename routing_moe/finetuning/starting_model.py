"""The model that fine-tuning starts from: a plain BART, or a mixture with one of its routes.

A route with an equivalent plain BART (one-hot, or merged parameters) is converted into it: training costs the
same as that of a plain BART. With other routes the experts are kept.
"""

import copy
import dataclasses
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dataloader.encoding import EncodedExamples
from dataloader.errors import InputError, fault_context
from dataloader.jsonfile import load_json_object
from routing_moe.checkpoints.find import SavedMixture, checksums, find_mixture, weight_files
from routing_moe.checkpoints.start import load_start_tokenizer, load_vanilla_weights
from routing_moe.evaluation.unseen_tasks import VectorChoice, learn_vector
from routing_moe.finetuning.settings import FinetuneSettings
from routing_moe.finetuning.vectors import GivenVectors, own_vector, starts_alike
from routing_moe.model.configuration import RoutingBartConfig
from routing_moe.model.loading import is_hub_name, load_bart
from routing_moe.model.modeling import RoutingBartForConditionalGeneration, TaskVectors
from routing_moe.model.route_sources import random_task_routes
from routing_moe.model.task_vectors import of_sample

TRAINED = {"fixed": "fixed", "vector": "vector trained", "router": "router and vector trained"}
WITHOUT_VECTOR = {"average": "average", "random": "random for each example"}


# ---- saved models, before they are loaded


@dataclass(frozen=True)
class SavedBart:
    """A plain BART: a folder or hub name, and optionally a file of weights that replaces its own."""

    source: str
    weights: str | None = None

    def load(self) -> RoutingBartForConditionalGeneration:
        """As a routing BART of one expert. Raises InputError."""
        model = as_one_expert(load_bart(self.source))
        if self.weights:
            load_vanilla_weights(model, self.weights, init_eps=0.0, flag="checkpoint")
        return model

    def files(self) -> list[Path]:
        return weight_files(self.weights or self.source)

    def checksums(self) -> dict[str, str]:
        """{name: SHA-256} of the files that determine its outputs."""
        return checksums(self.files(), self.source)


def find_start(settings: FinetuneSettings) -> SavedMixture | SavedBart:
    """The model that `--moe_init --init_dir`, `--checkpoint` or `--model` name. Raises InputError."""
    if settings.moe_init:
        with fault_context("--init_dir "):
            found = find_mixture(settings.init_dir, settings.init_checkpoint_name, "init_checkpoint_name")
            if found.config.num_experts == 1:
                raise InputError(f"{found.checkpoint} has one expert, a plain BART; give it as --checkpoint")
            return found
    if settings.checkpoint is None:
        return SavedBart(settings.model)
    with fault_context("--checkpoint "):
        return find_plain(settings.checkpoint, settings.model)


def find_plain(checkpoint: str, model: str) -> SavedMixture | SavedBart:
    """A file of weights, a saved plain BART, a hub name, or a run of ours with one expert."""
    path = Path(checkpoint)
    if path.is_file():
        beside = path.parent / "config.json"
        is_ours = beside.is_file() and load_json_object(beside, "a configuration").get("model_type")
        if is_ours == RoutingBartConfig.model_type:
            raise InputError(f"{checkpoint}: a file of a run's checkpoint; name its folder, {path.parent}")
        return SavedBart(model, weights=checkpoint)
    if not path.is_dir() and not is_hub_name(checkpoint):
        raise InputError(f"{checkpoint}: not found; name a file of weights, a folder or a hub name")
    found = find_saved(checkpoint)
    if isinstance(found, SavedBart):
        return found
    if found.config.num_experts > 1:
        raise InputError(
            f"{found.checkpoint} is a mixture of {found.config.num_experts} experts; start from it with "
            f"--moe_init --init_dir {checkpoint}"
        )
    return found


def find_saved(place: str, name_flag: str = "checkpoint") -> SavedMixture | SavedBart:
    """A saved plain BART, a hub name, or a run or checkpoint of any number of experts. Raises InputError."""
    path = Path(place)
    if not path.is_dir():
        if is_hub_name(place):
            return SavedBart(place)
        raise InputError(f"{place}: not found; name a folder or a hub name")
    config = path / "config.json"
    fields = load_json_object(config, "a model's configuration") if config.is_file() else {}
    if fields.get("model_type") == "bart" and "router_block_num" not in fields:
        return SavedBart(place)
    return find_mixture(path, None, name_flag)


# ---- the model of a route


class Starts:
    """Loads the start once; returns the model that the configurations of a sample start from.

    choices: {sample: the vector of its nearest task}, for samples that read one.
    """

    def __init__(
        self, settings: FinetuneSettings, choices: Mapping[str, VectorChoice] | None, device: torch.device
    ):
        self.settings, self.choices = settings, choices or {}
        start = find_start(settings)
        self.device, self.loaded = device, start.load()
        place = start.checkpoint if isinstance(start, SavedMixture) else start.source
        self.tokenizer = load_start_tokenizer(place, settings.model, self.loaded.config.vocab_size)
        self._given = GivenVectors.load(settings)
        self._sample = self._model = None
        self._alike = self._samples_start_alike()

    def of(self, sample: str, examples: Callable[[], EncodedExamples]):
        """(model, its route in words, what its vector has seen of the task, None without a vector).

        Samples that start from the same weights get the same model. examples: returns the sample's train
        examples, called if a vector is learned from them.
        """
        if self._model is None or (not self._alike and sample != self._sample):
            model, route, seen = self._adapted(sample, examples)
            model.to(self.device).config.task_names = [self.settings.task]
            train_what_is_asked(model, self.settings)
            self._model, self._route, self._seen, self._sample = model, route, seen, sample
            if self._alike:  # else the next sample needs the unchanged mixture
                self.loaded = None
        return self._model, self._route, self._seen

    def _samples_start_alike(self) -> bool:
        settings = self.settings
        if len(settings.samples) == 1 or not self._reads_vector:
            return True
        if settings.task_vector == "learned" or self.choices:
            return False
        return starts_alike(settings, self.loaded, self._given)

    @property
    def _reads_vector(self) -> bool:
        config = self.loaded.config
        return config.num_experts > 1 and (self.settings.route_source or config.route_source) == "learned"

    def _adapted(self, sample: str, examples: Callable[[], EncodedExamples]):
        settings = self.settings
        if self.loaded.config.num_experts == 1:
            return self.loaded, "none", None
        mixture = self.loaded if self._alike else copy.deepcopy(self.loaded).to(self.device)
        if not self._reads_vector:
            return *along_route(mixture, settings, None), None
        choice = self.choices.get(sample)
        if choice is None and settings.task_vector == "learned" and not settings.taskvecs:
            training = settings.vector_steps, settings.task_model_lr, settings.seed
            choice = learn_vector(mixture.to(self.device), settings.task, examples(), *training)
            choice = dataclasses.replace(choice, seen=of_sample(choice.seen, sample))
        choice = choice or own_vector(mixture, settings, sample, self._given)
        return *along_route(mixture, settings, choice), choice.seen


def along_route(mixture, settings: FinetuneSettings, choice: VectorChoice | None):
    """(model, route in words) for the task. The mixture may be changed, and shared with the model.

    choice: the task's vector if the router reads one, else None.
    """
    source = settings.route_source or mixture.config.route_source
    mixture.config.exploration_epsilon = 0.0  # that of training on many tasks
    if source in WITHOUT_VECTOR:
        route_LE = average_route(mixture) if source == "average" else None
        described = WITHOUT_VECTOR[source]
    elif source == "fixed":
        route_LE, described = task_route(mixture, settings)
    else:
        only_task(mixture, settings.task, choice.vector_D, choice.seen)
        route_LE, described = mixture.routes_for([settings.task])[0].detach(), choice.described()
    training = settings.route_training or default_training(mixture, route_LE)
    if training == "plain":
        smoothing = mixture.config.label_smoothing
        return as_one_expert(mixture.to_bart(route_LE), label_smoothing=smoothing), f"{described}; plain BART"
    mixture.config.task_names = [settings.task]
    if source in WITHOUT_VECTOR:
        mixture.use_routes(source)
        return mixture, described
    if training == "fixed":
        mixture.use_routes("fixed", route_LE[None])
    return mixture, f"{described}; {TRAINED[training]}"


def default_training(mixture, route_LE: Tensor | None) -> str:
    """ "plain" for a route with an equivalent plain BART, else "fixed"."""
    return "plain" if route_LE is not None and mixture.has_plain_equivalent(route_LE[None]) else "fixed"


def average_route(mixture) -> Tensor:
    config = mixture.config
    return torch.full((config.num_layers, config.num_experts), 1 / config.num_experts, device=mixture.device)


def task_route(mixture, settings: FinetuneSettings) -> tuple[Tensor, str]:
    """The route (L, E) drawn for the task: the mixture's own if it was trained with fixed routes."""
    config = mixture.config
    if config.route_source == "fixed" and settings.task in config.task_names:
        return mixture.task_routes[
            config.task_names.index(settings.task)
        ], "random for the task, drawn in the run"
    seed = settings.seed + zlib.crc32(settings.task.encode())
    drawn = random_task_routes(1, config.num_layers, config.num_experts, n=1, seed=seed)[0]
    return drawn.to(mixture.device), "random for the task"


def only_task(mixture, task: str, vector_D: Tensor, seen: str) -> None:
    """Reduces the mixture to one task with this vector (D,). seen: what the vector has seen of the task."""
    mixture.task_vectors = TaskVectors(1, mixture.config.router_input_dim).to(mixture.device)
    with torch.no_grad():
        mixture.task_vectors.weight.copy_(torch.as_tensor(vector_D))
    mixture.config.task_names, mixture.config.random_vectors = [task], []
    mixture.config.vectors_seen = seen


def as_one_expert(bart, **fields) -> RoutingBartForConditionalGeneration:
    """A copy of a plain BART as a routing BART of one expert; fields: of its configuration."""
    return RoutingBartForConditionalGeneration.from_bart(bart, 1, 0.0, **fields)


def train_what_is_asked(model, settings: FinetuneSettings) -> None:
    """Sets `requires_grad`: embeddings, router and task vector are trained only if the flags say so."""
    model.requires_grad_(True)
    if settings.freeze_embeds:  # of tokens and positions
        for module in model.model.modules():
            if isinstance(module, torch.nn.Embedding):
                module.requires_grad_(False)
    if model.config.has_router:
        model.router.requires_grad_(settings.route_training == "router")
        model.task_vectors.requires_grad_(settings.route_training in ("vector", "router"))
