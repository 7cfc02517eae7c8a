"""Checkpoints of the published code (INK-USC/CrossTaskMoE): `best/model.pt` in a run with `config.json`."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from dataloader.errors import InputError, in_brief
from dataloader.jsonfile import load_json_object
from routing_moe.model.configuration import RoutingBartConfig
from routing_moe.model.loading import check_finite, unfilled_model
from routing_moe.model.task_vectors import UNKNOWN, VECTORS_FILE, load_task_vectors

# Parts of routers in the published code, and their names in this one.
RENAMED = {"linear1": "hidden", "linear2": "output", "proj": "output", "rnn": "mixer", "transformer": "mixer"}
RENAMED |= {"pos_embed": "layer_embedding", "layer_specific_proj": "layer_projection"}
# Settings of generation that the BART of a run brings (bart-base: no repeated 3-grams).
KEPT = ("no_repeat_ngram_size", "min_length", "length_penalty", "repetition_penalty", "forced_bos_token_id")


@dataclass(frozen=True)
class PublishedMixture:
    """What `find.SavedMixture` is for checkpoints of this code. cls: the class of the loaded model."""

    cls: type
    place: Path

    def __post_init__(self):
        if not (weights := self.place / "model.pt").is_file():
            names = ", ".join(sorted(path.parent.name for path in self.place.parent.glob("*/model.pt")))
            raise InputError(f"{weights}: not found; checkpoints there: {names or 'none'}")

    @cached_property
    def config(self) -> RoutingBartConfig:
        path, (names, vectors_ND) = self.place.parent / "config.json", load_task_vectors(self.place)
        published = load_json_object(path, "the configuration of a run of the published code")
        if "router_block_num" not in published:
            raise InputError(f"{path}: lacks router_block_num; a run of the published code has it")
        return RoutingBartConfig.of(published_fields(published, names, vectors_ND.shape[1]), path)

    def load(self):
        """Returns the model in eval mode. Raises InputError; no object is unpickled."""
        path, weights = self.place.parent / "config.json", self.place / "model.pt"
        try:
            model = unfilled_model(self.cls, self.config)
            state = torch.load(weights, map_location="cpu", weights_only=True)
            check_finite(state, weights)
            renamed = {upstream_name(name): tensor for name, tensor in state.items()}
            renamed["lm_head.weight"] = renamed["model.shared.weight"]
            if model.config.has_router:
                renamed["task_vectors.weight"] = torch.from_numpy(load_task_vectors(self.place)[1])
            else:  # a single expert needs no router
                renamed = {name: renamed[name] for name in renamed if not name.startswith("router.")}
            model.load_state_dict(renamed)
        except InputError:
            raise
        except Exception as error:  # torch and transformers raise many types of errors
            what = f"not the weights of a run with this {path}"
            raise InputError(f"{weights}: {what} ({in_brief(error)})") from None
        settings = load_json_object(path, "the settings of generation")
        model.generation_config.update(**{name: settings[name] for name in KEPT if name in settings})
        return model.eval()

    def files(self) -> list[Path]:
        return [self.place / "model.pt", self.place / VECTORS_FILE]


def published_fields(published: dict, task_names: list[str], vector_dim: int) -> dict:
    """Returns the fields of a RoutingBartConfig from those of the published code."""
    kept = ("router_nn_type", "router_mode", "router_hidden_dim")
    fields = {k: v for k, v in published.items() if k in kept or not k.startswith("router_")}
    for side in ("encoder_vanilla_layers", "decoder_vanilla_layers"):
        if isinstance(layers := fields.get(side), str):  # numbers; `RoutingBartConfig.of` refuses others
            parts = layers.replace(",", " ").split()
            fields[side] = [int(part) if part.isdecimal() else part for part in parts]
    fields |= {"num_experts": published["router_block_num"], "router_input_dim": vector_dim}
    return fields | {"task_names": task_names, "weights_seen": dict.fromkeys(task_names, UNKNOWN)}


def upstream_name(name: str) -> str:
    """Returns our name for a parameter of the published code."""

    def renamed(match: re.Match) -> str:
        return f"router.{match[1] or ''}{RENAMED.get(match[2], match[2])}"

    part = r"^router\.model\.(?:router_(units\.\d+\.))?(\w+)"
    return re.sub(part, renamed, name.replace(".blocks.", ".experts."))
