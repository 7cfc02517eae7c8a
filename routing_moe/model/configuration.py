"""The configuration of a mixture of experts: of a BART's layers, or of low-rank experts of any model."""

import os
import sys
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, BartConfig, PreTrainedConfig

from dataloader.errors import InputError, counted, did_you_mean, in_brief, in_short
from dataloader.jsonfile import load_json_object
from routing_moe.config.choices import (
    EXPERT_KINDS,
    EXPERT_MIXINGS,
    LORA_MIXINGS,
    LORA_TARGETS,
    ROUTE_SOURCES,
    ROUTER_MODES,
    ROUTERS,
    ROUTING,
    ROUTING_BART,
    SourceKind,
    kind_of,
)
from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE, POSITIVE, PROBABILITY
from routing_moe.io.hub import is_hub_name
from routing_moe.model.given_routes import layer_names
from routing_moe.model.task_vectors import NAMES_FILE, NOTHING, ROWS_OF_ALL, read_names, seen_together

TRANSFORMER_HEADS = 4  # attention heads of transformer routers
CHOICES = {
    "route_source": ROUTE_SOURCES,
    "expert_kind": EXPERT_KINDS,
    "expert_mixing": EXPERT_MIXINGS,
    "lora_targets": LORA_TARGETS,
    "lora_mixing": LORA_MIXINGS,
    "router_nn_type": ROUTERS,
    "router_mode": ROUTER_MODES,
}
LARGEST = sys.float_info.max  # infinity is in no range
RANGES = {
    **dict.fromkeys(("num_experts", "encoder_layers", "decoder_layers"), AT_LEAST_1),
    **dict.fromkeys(("lora_rank", "lora_splits", "router_input_dim", "router_hidden_dim"), AT_LEAST_1),
    **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout", "lora_dropout"), PROBABILITY),
    **dict.fromkeys(("encoder_layerdrop", "decoder_layerdrop", "exploration_epsilon"), PROBABILITY),
    "lora_alpha": POSITIVE,
    "init_std": NOT_NEGATIVE,
}


@dataclass(kw_only=True)
class Mixture:
    """The fields of a mixture of experts. Raises ValueError, with a line per problem."""

    num_experts: int = 3  # of a routed layer (E); 1 is a plain model (of kind "lora": with a low-rank update)
    expert_kind: str = "layer"  # a complete "layer", or "lora": a low-rank update of its linear maps
    lora_rank: int = 16
    lora_alpha: float | int = 16  # the scale of an update, times its rank
    lora_targets: str = "all"  # the linear maps with experts
    lora_mixing: str = "products"  # a route mixes products of the two matrices of experts, or each factor
    lora_splits: int = 1  # with factors, blocks of features, each with its own row of the route (MHR)
    lora_dropout: float | int = 0.0  # of the inputs of updates
    # The folder, file or hub name (owner/name[@revision]) of a base that is not trained, and the checksum of
    # its weights (`base.py`); a saved model has then only the other weights.
    base_model: str | None = None
    base_sha256: str | None = None
    route_source: str = "learned"
    expert_mixing: str = "outputs"  # what a route mixes, the experts' "outputs" or their "parameters"
    router_nn_type: str = "linear_layer_specific"
    router_mode: str = "gumbel_softmax_st"
    router_top_k: int = 2  # in mode "top_k", experts with a weight above 0
    router_input_dim: int = 768  # width of a task vector (D), also of those beside given routes
    router_hidden_dim: int = 64
    encoder_vanilla_layers: list[int] | None = None  # that stay as they are, from 0
    decoder_vanilla_layers: list[int] | None = None
    exploration_epsilon: float | int = 0.0  # probability in training that a layer uses a random expert
    label_smoothing: float | int = 0.1  # as in the published code
    router_temperature: float | int = 1.0  # of the selection; training anneals and stores it
    task_names: list[str] | None = None  # in the order of `model.task_vectors` or `model.task_routes`
    random_vectors: list[str] | None = None  # tasks whose vector is random and untrained
    trained_tasks: list[str] | None = None  # of all training so far, if known
    given_routes: str | None = None  # the source of given routes, in words; None: they were drawn at random
    has_route_vectors: bool = False  # vectors beside given routes, by which other tasks are routed
    vectors_seen: str | None = None  # what loaded vectors are based on: one of `task_vectors.SEEN`
    weights_seen: dict[str, str] | None = None  # {task: what all other weights have seen of it}
    # {name: value} of `config.shared.TEXT_SETTINGS` in the training.
    text_settings: dict[str, int | bool | str | None] | None = None
    input_templates: dict[str, str | dict] | None = None  # {task: `Template.kept`} of `add-task`

    def __post_init__(self, **kwargs):
        self.encoder_vanilla_layers = sorted(set(self.encoder_vanilla_layers or []))
        self.decoder_vanilla_layers = sorted(set(self.decoder_vanilla_layers or []))
        self.task_names = list(self.task_names or [])
        self.random_vectors = list(self.random_vectors or [])
        self.trained_tasks = list(self.trained_tasks or [])
        self.weights_seen = (self.weights_seen or {}) | dict.fromkeys(self.trained_tasks, ROWS_OF_ALL)
        self.set_table_width()
        super().__post_init__(**kwargs)
        self.check()

    def set_table_width(self) -> None:
        """Sets the width of task vectors that are the logits of a table router."""
        if self.has_table:
            self.router_input_dim = self.num_layers * self.num_experts

    def note_training(self, tasks: Collection[str]) -> None:
        """Notes that the model was trained on these tasks, so that their vectors are no longer random."""
        self.random_vectors = sorted(set(self.random_vectors) - set(tasks))
        self.trained_tasks = sorted(set(self.trained_tasks) | set(tasks))
        self.note_seen(dict.fromkeys(tasks, ROWS_OF_ALL))

    def note_seen(self, *sources: dict[str, str] | None) -> None:
        """Adds what sources of the weights have seen, {task: words}, to what these have seen already."""
        for task, words in (item for seen in sources for item in (seen or {}).items()):
            self.weights_seen[task] = seen_together(self.weights_seen.get(task, NOTHING), words)

    # ---- reading

    def locate_base(self, checkpoint: str | Path) -> None:
        """Makes the path of `base_model` absolute, which a saved model has relative to its checkpoint."""
        if self.base_model is not None:
            place = os.path.normpath(Path(os.path.realpath(checkpoint), self.base_model))
            if os.path.exists(place) or not is_hub_name(self.base_model):
                self.base_model = place

    @classmethod
    def of(cls, values: dict, source: str | Path) -> Self:
        """Returns the configuration with the values of a config.json. Raises InputError (with `source`)."""
        try:
            return cls(**{name: value for name, value in values.items() if name != "model_type"})
        except Exception as error:  # `strict` wraps the error that __post_init__ raised
            reason = in_brief(error.__cause__ or error)
            raise InputError(f"{source}: not a valid configuration ({reason})") from None

    @staticmethod
    def load(checkpoint: Path) -> "Mixture":
        """Returns the configuration of a saved mixture. Raises InputError that names its config.json."""
        path = checkpoint / "config.json"
        values = load_json_object(path, "a model's configuration")
        classes = {cls.model_type: cls for cls in (RoutingBartConfig, RoutingConfig)}
        if values.get("model_type") not in classes:
            kind = values.get("model_type")
            raise InputError(f"{checkpoint} holds a {kind!r} model, not a mixture of experts")
        config, names_file = classes[values["model_type"]].of(values, path), checkpoint / NAMES_FILE
        config.locate_base(checkpoint)
        if names_file.is_file() and read_names(names_file) != config.task_names:
            raise InputError(f"{path}: task_names differ from those in {NAMES_FILE} of the same folder")
        return config

    def check(self) -> None:
        """Raises ValueError with a line for each invalid value or contradiction."""
        wrong = []
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                must = "add it (--plugin), or choose" if isinstance(choices, dict) else "it must be one of"
                wrong.append(f"{name} is {value!r}; {must} {', '.join(choices)}")
        for name, allowed in RANGES.items():
            value = getattr(self, name, 1)  # other models have other names of layers; 1 is in every range
            if not (allowed.holds(value) and value <= LARGEST):
                wrong.append(f"{name} is {value!r}; it must be {allowed.must_be}")
        for side, depth in zip(("encoder", "decoder"), self.depths, strict=True):
            if outside := [i for i in getattr(self, f"{side}_vanilla_layers") if not 0 <= i < depth]:
                known = f"the {side} has layers 0 to {depth - 1}" if depth else f"the model has no {side}"
                wrong.append(f"{side}_vanilla_layers names {outside}; {known}")
        if twice := [name for name, times in Counter(self.task_names).items() if times > 1]:
            wrong.append(f"task_names names {in_short(twice)} more than once")
        if wrong := wrong or self._contradictions():
            raise ValueError("\n".join(wrong))

    def _contradictions(self) -> list[str]:
        wrong, mixes_factors = [], self.has_lora and self.lora_mixing == "factors"
        if self.has_lora and self.model_type == ROUTING_BART:
            wrong.append("expert_kind is 'lora'; low-rank experts of a BART are those of a RoutedModel")
        if self.lora_splits > 1 and not mixes_factors:
            wrong.append(
                f"lora_splits is {self.lora_splits}, which needs low-rank experts with mixed factors"
            )
        if self.expert_mixing == "parameters" and (self.has_lora or not self.source_kind.mixes):
            what = "low-rank experts" if self.has_lora else "random routes, which do not mix experts"
            wrong.append(f"expert_mixing is 'parameters' with {what}; it must be 'outputs'")
        if self.num_experts > 1 and not self.routed_layers:
            wrong.append(
                "encoder_vanilla_layers and decoder_vanilla_layers name every layer; for a plain model, set "
                "num_experts to 1"
            )
        if self.has_router and self.router_mode == "top_k" and not 1 <= self.router_top_k <= self.num_experts:
            wrong.append(f"router_top_k is {self.router_top_k}; there are {self.num_experts} experts")
        widths = {"transformer": "router_input_dim", "transformer_layer_specific": "router_hidden_dim"}
        width = widths.get(self.router_nn_type)
        if width and getattr(self, width) % TRANSFORMER_HEADS:
            wrong.append(
                f"{width} is {getattr(self, width)}; it must be a multiple of {TRANSFORMER_HEADS}, the "
                f"number of attention heads of a {self.router_nn_type} router"
            )
        return wrong

    # ---- what follows from the fields

    @property
    def num_layers(self) -> int:
        """L: number of rows of a route, one for each split of each layer, vanilla layers included."""
        return sum(self.depths) * self.lora_splits

    @property
    def encoder_rows(self) -> int:
        """The number of rows of a route for the encoder, which come first."""
        return self.depths[0] * self.lora_splits

    @property
    def has_lora(self) -> bool:
        """Whether experts are low-rank updates of a model that they share."""
        return self.expert_kind == "lora"

    @property
    def experts_described(self) -> str:
        """The number and kind of a layer's experts, in words."""
        maps = {"all": "all linear maps", "attention": "attention", "feed_forward": "feed-forward maps"}
        kind = f" of rank {self.lora_rank} ({maps[self.lora_targets]})" if self.has_lora else ""
        return counted(self.num_experts, "expert") + kind

    @property
    def lora_scale(self) -> float:
        """The factor s of low-rank updates."""
        return self.lora_alpha / self.lora_rank

    @property
    def has_plain_routes(self) -> bool:
        """Whether every route has an equivalent plain model, not only a one-hot one."""
        return self.has_lora or self.expert_mixing == "parameters"

    @property
    def source_kind(self) -> type[SourceKind]:
        """What is known of the source of routes."""
        return kind_of(self.route_source)

    @property
    def has_router(self) -> bool:
        """Whether routes are learned, by several experts."""
        return self.source_kind.reads_vectors and self.num_experts > 1

    @property
    def has_table(self) -> bool:
        """Whether the router is a table: the task vectors are the logits, of one row per layer and expert."""
        return self.has_router and self.router_nn_type == "table"

    @property
    def is_top_1(self) -> bool:
        """Whether a route's only weight is always 1, which gives task vectors no gradient."""
        return self.router_mode == "top_k" and self.router_top_k == 1

    @property
    def routes_by_task(self) -> bool:
        """Whether only tasks in `task_names` have routes; False for average and random routes."""
        return self.has_router or (self.source_kind.is_stored and self.num_experts > 1)

    @property
    def has_random_fixed_routes(self) -> bool:
        """Whether each task has a fixed route that was drawn at random, not given."""
        return self.source_kind.is_stored and self.given_routes is None

    @property
    def routed_layers(self) -> list[int]:
        """The layers with experts, encoder first: all except vanilla layers."""
        vanilla = set(self.encoder_vanilla_layers)
        vanilla |= {self.depths[0] + i for i in self.decoder_vanilla_layers}
        return [layer for layer in range(sum(self.depths)) if layer not in vanilla]

    @property
    def routed_rows(self) -> list[int]:
        """The rows of a route (0 to L-1) that a layer uses: all except those of vanilla layers."""
        H = self.lora_splits
        return [layer * H + split for layer in self.routed_layers for split in range(H)]

    @property
    def row_names(self) -> tuple[str, ...]:
        """The names of `routed_rows`, such as "enc 0"; with several splits "enc 0s1"."""
        return layer_names(self.depths[0], self.routed_rows, self.lora_splits)

    @property
    def route_sizes(self) -> tuple[int, int, int, int]:
        """What given routes must fit: arguments of `GivenRoutes.matrices`."""
        return *self.depths, self.num_experts, self.lora_splits

    def mixture_fields(self) -> dict:
        """Returns {name: value} of the fields that a plain model does not have."""
        return {name: getattr(self, name) for name in MIXTURE_FIELDS}


@strict
class RoutingBartConfig(Mixture, BartConfig):
    """`BartConfig` plus the fields of a mixture of experts that are complete layers."""

    model_type = ROUTING_BART

    @property
    def depths(self) -> tuple[int, int]:
        """The numbers of layers of encoder and decoder."""
        return self.encoder_layers, self.decoder_layers

    def to_bart_config(self) -> BartConfig:
        """Returns the configuration of a plain BART of the same size."""
        other = MIXTURE_FIELDS | {"model_type", "architectures"}
        of_bart = {name: value for name, value in self.to_dict().items() if name not in other}
        return BartConfig(**of_bart, architectures=["BartForConditionalGeneration"])


@strict
class RoutingConfig(Mixture, PreTrainedConfig):
    """A mixture of low-rank experts of any model. backbone: the configuration of that model."""

    model_type = ROUTING
    # Not among `sub_configs`, whose attention transformers chooses again when it makes the routed model.
    backbone: dict | PreTrainedConfig | None = None
    expert_kind: str = "lora"
    label_smoothing: float | int | None = None  # 0.1 for a model with an encoder, else 0

    def __post_init__(self, **kwargs):
        if isinstance(self.backbone, dict):
            self.backbone = AutoConfig.for_model(**self.backbone)
        own = self.backbone  # None: transformers makes a configuration without arguments to compare with
        self.is_encoder_decoder = getattr(own, "is_encoder_decoder", False)
        if self.label_smoothing is None:
            self.label_smoothing = Mixture.label_smoothing if self.is_encoder_decoder else 0.0
        text = own and own.get_text_config(decoder=True)
        self.vocab_size, end = getattr(text, "vocab_size", None), getattr(text, "eos_token_id", None)
        pad = getattr(text, "pad_token_id", None)
        if pad is None or pad < 0:  # Llama has none, or -1; which token it is makes no difference
            pad = end[0] if isinstance(end, list) else end or 0
        self.pad_token_id = pad
        super().__post_init__(**kwargs)
        self.note_seen(getattr(own, "weights_seen", None))  # of a plain model of `export`

    def check(self) -> None:
        """Raises ValueError as for every mixture, and for experts that are complete layers."""
        if not self.has_lora and self.num_experts > 1:
            raise ValueError(
                f"expert_kind is {self.expert_kind!r}; only a BART has complete layers as experts, others "
                "have those of kind 'lora'"
            )
        if self.backbone is not None:
            super().check()

    @property
    def depths(self) -> tuple[int, int]:
        """The numbers of layers of encoder and decoder; without an encoder 0 and those of the model."""
        if self.backbone is None:
            return 0, 0
        encoder, decoder = (
            getattr(self.backbone.get_text_config(**{side: True}), "num_hidden_layers", 0)
            for side in ("encoder", "decoder")
        )
        if not self.is_encoder_decoder:
            return 0, decoder
        return encoder, getattr(self.backbone, "num_decoder_layers", None) or decoder

    @property
    def decoder_start_token_id(self) -> int | None:
        """The first token of every answer, which is not a part of it."""
        return getattr(self.backbone, "decoder_start_token_id", None)

    @property
    def init_std(self) -> float:
        """The standard deviation from which a router is drawn: that of a BART's own weights."""
        return getattr(self.backbone, "init_std", 0.02)

    @property
    def bos_token_id(self) -> int | None:
        return getattr(self.backbone, "bos_token_id", None)

    @property
    def max_position_embeddings(self) -> int:
        """The longest input; T5 has relative positions and no limit."""
        return getattr(self.backbone, "max_position_embeddings", 2**20)


MIXTURE_FIELDS = frozenset(field.name for field in fields(Mixture))


def check_fields(names: Iterable[str], config: type[Mixture] = Mixture) -> None:
    """Raises InputError for a name that is no field of a configuration."""
    known = {field.name for field in fields(config)}
    if unknown := sorted(set(names) - known):
        raise InputError(f"{unknown[0]} is no field of a mixture of experts{did_you_mean(unknown[0], known)}")
