"""Plain BART to experts and back: upcycling, assembling the BART of a route, the published checkpoints."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, BartConfig, BartForConditionalGeneration
from transformers import initialization as init

from dataloader.errors import InputError, in_brief, in_short
from dataloader.jsonfile import load_json_object
from routing_moe.configuration import RoutingBartConfig, dropout_faults
from routing_moe.routed_layer import RoutedLayer
from routing_moe.task_vectors import NAMES_FILE, load_task_vectors, read_names

# ---- plain BART -> experts

# Names that a plain BART's state dict may lack: what it has not, and what is tied to the shared embedding.
NOT_OF_A_BART = re.compile(
    r"^router\.|^task_vectors\.|^task_routes|\.layers\.|\.embed_tokens\.|^lm_head\.|final_logits_bias"
)


def bart_fields(config: BartConfig) -> dict:
    """The fields of a plain BART's configuration that a `RoutingBartConfig` takes over."""
    return {k: v for k, v in config.to_dict().items() if k not in ("model_type", "architectures")}


def from_bart(cls, bart, num_experts: int, init_eps: float, **config_fields):
    """A routing BART whose E experts per layer are copies of a BART's layer plus N(0, init_eps) noise.

    A single expert is an exact copy: the noise is there to tell experts apart.

    bart: a name or path for `load_bart`, or a `BartForConditionalGeneration` (left as it is). config_fields:
    fields of `RoutingBartConfig`. The noise is drawn from torch's global generator in the published order
    (encoder layers, experts, parameters; then decoder). Note that at 1e-8 it is below float32 resolution for
    weights near 1, such as layer norms: those start equal.
    """
    if not isinstance(bart, nn.Module):
        bart = load_bart(bart)
    config = RoutingBartConfig(**{**bart_fields(bart.config), "num_experts": num_experts, **config_fields})
    model = cls(config)
    model.generation_config = bart.generation_config
    load_plain_weights(model, bart.state_dict(), init_eps)
    return model


@torch.no_grad()
def load_plain_weights(model, plain: dict[str, Tensor], init_eps: float) -> None:
    """Copy a plain BART's weights into every expert, with noise; embeddings and vanilla layers without.

    Raises InputError when the names or shapes are not those of a BART of this size.
    """
    try:
        shared = {name: tensor for name, tensor in plain.items() if ".layers." not in name}
        missing, unexpected = model.load_state_dict(shared, strict=False)
        missing = [name for name in missing if not NOT_OF_A_BART.search(name)]
        unexpected += _layers_beyond(model.config, plain)
        if missing:
            raise RuntimeError(f"they lack {', '.join(missing[:3])}")
        if unexpected:
            raise RuntimeError(f"they have besides {', '.join(unexpected[:3])}")
        for side in ("encoder", "decoder"):
            for i, layer in enumerate(getattr(model.model, side).layers):
                prefix = f"model.{side}.layers.{i}."
                weights = {k.removeprefix(prefix): v for k, v in plain.items() if k.startswith(prefix)}
                for expert in layer.experts if isinstance(layer, RoutedLayer) else [layer]:
                    expert.load_state_dict(weights)
                    if isinstance(layer, RoutedLayer) and len(layer.experts) > 1:
                        for parameter in expert.parameters():
                            parameter.add_(torch.randn(parameter.shape).to(parameter) * init_eps)
    except RuntimeError as error:
        depths = f"{model.config.encoder_layers}+{model.config.decoder_layers} layers"
        raise InputError(
            f"these are not the weights of a plain BART with {depths}, width {model.config.d_model}: "
            f"{in_brief(error)}"
        ) from None


def _layers_beyond(config, plain: dict[str, Tensor]) -> list[str]:
    """Names of weights of layers that a BART of this configuration does not have."""
    depths = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    found = ((name, re.match(r"model\.(encoder|decoder)\.layers\.(\d+)\.", name)) for name in plain)
    return [
        name
        for name, match in found
        if ".layers." in name and (match is None or int(match[2]) >= depths[match[1]])
    ]


def load_bart(source: str | Path) -> BartForConditionalGeneration:
    """The plain BART in a folder or of a hub name, in float32. Raises InputError, naming it."""
    try:
        bart, report = BartForConditionalGeneration.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # the library's and the file formats' own ways to fail
        raise InputError(f"{source}: no plain BART can be loaded from there ({in_brief(error)})") from None
    check_generation(bart.generation_config, bart.config.vocab_size, source)
    # What the files lack, the library fills with random numbers.
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{source}: not a plain BART; it lacks {len(missing)} weights, such as {missing[0]}")
    check_finite(own_tensors(bart), source)
    return bart


def check_finite(tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Raises InputError, which names the file and the tensors, if there are values that are not finite.

    source: the file that the tensors come from, or a folder or hub name. If a folder has one file of weights,
    the error names that file.
    """
    floats = {name: t.detach() for name, t in tensors.items() if t.is_floating_point() and t.numel()}
    # Both extremes of a tensor with a NaN are NaN. isfinite() is 16 times slower on a CPU and needs memory.
    broken = {n: t for n, t in floats.items() if not all(math.isfinite(end) for end in t.aminmax())}
    if not broken:
        return
    files = sorted(Path(source).glob("*.safetensors")) or sorted(Path(source).glob("*.bin"))
    named = [f"{name} ({(~t.isfinite()).sum()} of {t.numel()} values)" for name, t in broken.items()]
    raise InputError(
        f"{files[0] if len(files) == 1 else source}: has weights that are not finite: {in_short(named)}; the "
        "model has diverged, or the file is damaged: name another checkpoint"
    )


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """{name: parameter or buffer}; tied ones under their first name."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def is_hub_name(model: str) -> bool:
    """Whether `model` has the form "name" or "organisation/name"; anything else can only be a path."""
    return model.count("/") <= 1 and not model.startswith((".", "/", "~")) and not model.endswith("/")


TOKEN_IDS = [
    f"{name}_token_id" for name in ("bos", "eos", "pad", "decoder_start", "forced_bos", "forced_eos")
]
OUTPUT_SWITCHES = ("output_attentions", "output_hidden_states", "output_scores", "output_logits")


def check_generation(config, vocab_size: int, source: str | Path) -> None:
    """Raises InputError for a `GenerationConfig` that loads but fails in generation. source: named in it."""
    for name in TOKEN_IDS:
        value = getattr(config, name, None)
        ids = value if isinstance(value, list) else [value]
        if not all(i is None or (type(i) is int and 0 <= i < vocab_size) for i in ids):
            raise InputError(
                f"{source}: generation_config.json has {name} {value!r}; it must be a token from 0 to "
                f"{vocab_size - 1}"
            )
    for name in OUTPUT_SWITCHES:
        value = getattr(config, name, None)
        if not isinstance(value, bool | None):
            raise InputError(
                f"{source}: generation_config.json has {name} {value!r}; it must be true or false"
            )


def load_bart_config(source: str | Path) -> BartConfig:
    """The configuration of the plain BART in a folder or of a hub name. Raises InputError, naming it."""
    is_folder = Path(source).is_dir()
    if not is_folder and not is_hub_name(str(source)):
        raise InputError(f"{source}: no such folder (nor a hub name such as facebook/bart-base)")
    try:
        config = AutoConfig.from_pretrained(source)
    except Exception as error:  # the library's own ways to fail
        place = "there" if is_folder else "the hub, and there is no such folder"
        raise InputError(f"{source}: no model can be loaded from {place} ({in_brief(error)})") from None
    if not isinstance(config, BartConfig) or isinstance(config, RoutingBartConfig):
        raise InputError(f"{source} is a {config.model_type!r} model; the experts are made from a 'bart'")
    if not isinstance(config.init_std, int | float) or not 0 <= config.init_std < float("inf"):
        raise InputError(f"{source}: config.json has init_std {config.init_std!r}; it must be 0 or greater")
    if faults := dropout_faults(config):
        raise InputError(f"{source}: config.json: {faults[0]}")
    return config


def load_vanilla_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a plain BART's .pt/.bin/.safetensors file or saved directory. Raises InputError.

    Files are never unpickled as objects (`weights_only=True`). A `module.` prefix, left by data-parallel
    training, is dropped; names without the `model.` prefix, as in the hub's files, get it.
    """
    path = Path(path)
    if path.is_dir():
        return load_bart(path).state_dict()
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise TypeError("it holds no dictionary of tensors")
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    except Exception as error:  # each format has its own ways to be broken; all are the same to the user
        raise InputError(f"{path}: not a checkpoint of a plain BART ({in_brief(error)})") from None
    check_finite(state, path)
    # Saved without the language-model head, as the hub's BARTs are, names lack "model.".
    return {re.sub(r"^(?=(shared|encoder|decoder)\.)", "model.", name): t for name, t in state.items()}


# ---- experts -> plain BART


@torch.no_grad()
def assemble_bart(model, routes_LE: Tensor) -> BartForConditionalGeneration:
    """The plain BART that a route amounts to.

    routes_LE: (L, E); rows of vanilla layers are ignored. Where outputs are mixed, each layer's argmax
    expert counts and all parameters are shared, not copied; where parameters are, layers are merged anew.
    Built on the meta device, so that sharing costs no memory and some milliseconds.
    """
    choices = routes_LE.argmax(dim=-1).tolist()
    with torch.device("meta"), init.no_init_weights():
        bart = BartForConditionalGeneration(_plain_config(model))
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name.startswith(("router.", "task_vectors.", "task_routes")) or ".experts." in name:
            continue
        state[name] = tensor
    for layer in model.routed_layers():
        if model.config.expert_mixing == "parameters":
            weights = layer.merged_parameters(routes_LE[layer.row])
        else:
            weights = layer.experts[choices[layer.row]].state_dict(keep_vars=True)
        side, i = _side_and_index(model.config, layer.row)
        state |= {f"model.{side}.layers.{i}.{name}": tensor for name, tensor in weights.items()}
    share_tensors(bart, state)
    bart.generation_config = model.generation_config
    return bart.train(model.training)


def share_tensors(meta_model, state: dict[str, Tensor]) -> None:
    """Fill a model that was built on the meta device with the tensors of `state`, without copying them.

    The tensors keep their `requires_grad`. torch alone would set the meta model's on them, and thereby change
    the model that they are shared with.
    """
    trained = {name: tensor.requires_grad for name, tensor in state.items()}
    meta_model.load_state_dict(state, assign=True)
    for name, tensor in state.items():
        tensor.requires_grad_(trained[name])
    meta_model.tie_weights()


def _plain_config(model) -> BartConfig:
    config = model.config.to_bart_config()
    config._attn_implementation = model.config._attn_implementation
    return config


def _side_and_index(config, row: int) -> tuple[str, int]:
    return ("encoder", row) if row < config.encoder_layers else ("decoder", row - config.encoder_layers)


# ---- the routes of one model, the experts of a plain BART


def with_fresh_experts(model, bart, init_eps: float):
    """A new model with the router and task vectors of `model`, its experts made of a BART as in `from_bart`.

    This is what lies between the two stages of training: the second learns the experts anew, under routes
    that are known from the start. bart: a `BartForConditionalGeneration` with as many layers; its width may
    differ, for the router reads task vectors and knows layers by their number only. All fields of the mixture
    are the model's. Raises ValueError if it has no router or the depths differ.
    """
    if not model.config.has_router:
        raise ValueError("the model has no router; its routes come from elsewhere")
    depths = (bart.config.encoder_layers, bart.config.decoder_layers)
    if depths != (model.config.encoder_layers, model.config.decoder_layers):
        raise ValueError(f"the BART has {depths} encoder and decoder layers, which the router does not route")
    mixture = {name: getattr(model.config, name) for name in RoutingBartConfig.__annotations__}
    fresh = from_bart(type(model), bart, init_eps=init_eps, **mixture)
    fresh.router.load_state_dict(model.router.state_dict())
    fresh.task_vectors.load_state_dict(model.task_vectors.state_dict())
    return fresh


def load_routing_config(checkpoint: str | Path) -> dict:
    """The fields in the config.json of a saved routing BART. Raises InputError, naming it."""
    checkpoint = Path(checkpoint)
    config = load_json_object(checkpoint / "config.json", "a model's configuration")
    if config.get("model_type") != RoutingBartConfig.model_type:
        raise InputError(f"{checkpoint} holds a {config.get('model_type')!r} model, not a routing BART")
    for field in ("task_names", "random_vectors", "trained_tasks"):
        names = config.get(field) or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{checkpoint / 'config.json'}: {field} is not a list of task names")
    names_file = checkpoint / NAMES_FILE
    if names_file.is_file() and read_names(names_file) != (config.get("task_names") or []):
        raise InputError(f"{checkpoint / 'config.json'}: task_names are not those of {NAMES_FILE} beside it")
    return config


def load_routing_bart(cls, checkpoint: str | Path):
    """The routing BART saved in a folder, in float32. Raises InputError, naming it."""
    try:
        model, report = cls.from_pretrained(checkpoint, dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # the library's and the file formats' own ways to fail
        reason = in_brief(error)
        raise InputError(f"{checkpoint}: not a sound checkpoint of a routing BART ({reason})") from None
    check_generation(model.generation_config, model.config.vocab_size, checkpoint)
    # What the files lack, the library fills with random numbers.
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{checkpoint}: its files lack {len(missing)} weights, such as {missing[0]}")
    check_finite(own_tensors(model), checkpoint)
    # Tensors of a safetensors file lie wherever it has them, and matrix products may round otherwise where
    # memory is not aligned: a resumed run would not go on bit for bit.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model


# ---- checkpoints of the published code

# What the published code calls the parts of a router (after "router.model."), and what we call them.
UPSTREAM_ROUTER_NAMES = (
    (r"^router_units\.(\d+)\.linear1\.", r"units.\1.hidden."),
    (r"^router_units\.(\d+)\.linear2\.", r"units.\1.output."),
    (r"^linear1\.", "hidden."),
    (r"^linear2\.", "output."),
    (r"^pos_embed\.", "layer_embedding."),
    (r"^layer_specific_proj\.", "layer_projection."),
    (r"^(rnn|transformer)\.", "mixer."),
    (r"^proj\.", "output."),
)


GENERATION_RULES = (
    "no_repeat_ngram_size",
    "min_length",
    "length_penalty",
    "repetition_penalty",
    "forced_bos_token_id",
)


def from_upstream(cls, run_dir: str | Path, checkpoint_name: str = "best"):
    """Load `run_dir/config.json` and `run_dir/<checkpoint_name>/{model.pt,id2task.json,task_vecs.npy}`.

    Raises InputError naming the file that is missing or does not fit.
    """
    run_dir = Path(run_dir)
    config_path, weights_path = run_dir / "config.json", run_dir / checkpoint_name / "model.pt"
    for path in (config_path, weights_path):
        if not path.is_file():
            raise InputError(f"{path}: not found; a run of the published code has it")
    names, vectors_ND = load_task_vectors(weights_path.parent)
    published = load_json_object(config_path, "the configuration of a run of the published code")
    if "router_block_num" not in published:
        raise InputError(f"{config_path}: lacks router_block_num; a run of the published code has it")
    try:
        model = cls(upstream_config(published, names, vectors_ND.shape[1]))
    except Exception as error:  # the library's own ways to fail
        raise InputError(f"{config_path}: no model can be made of it ({in_brief(error)})") from None
    try:
        state = torch.load(weights_path, map_location="cpu", weights_only=True)
        if not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise TypeError("it holds no dictionary of tensors")
        renamed = {upstream_name(name): tensor for name, tensor in state.items()}
        if not model.config.has_router:  # a single expert: there is nothing to route
            renamed = {name: tensor for name, tensor in renamed.items() if not name.startswith("router.")}
        renamed["lm_head.weight"] = renamed["model.shared.weight"]
    except InputError:
        raise
    except Exception as error:  # a broken file has many ways to fail; all are the same to the user
        raise InputError(f"{weights_path}: not the weights of a run ({in_brief(error)})") from None
    check_finite(state, weights_path)
    if model.config.has_router:
        renamed["task_vectors.weight"] = torch.from_numpy(vectors_ND)
    try:
        model.load_state_dict(renamed)
    except RuntimeError as error:
        raise InputError(f"{weights_path}: does not fit {config_path}: {in_brief(error)}") from None
    # A BART's own rules of generation (bart-base: no 3-gram twice) stand in its config.json.
    model.generation_config.update(**{k: v for k, v in published.items() if k in GENERATION_RULES})
    return model.eval()


def upstream_config(published: dict, task_names: list[str], vector_dim: int) -> RoutingBartConfig:
    """The published config.json as a RoutingBartConfig (vanilla layers are comma-separated strings there)."""
    ours = {k: v for k, v in published.items() if not k.startswith("router_") and k != "model_type"}
    for side in ("encoder", "decoder"):
        layers = published.get(f"{side}_vanilla_layers") or ""
        ours[f"{side}_vanilla_layers"] = (
            [int(i) for i in layers.split(",") if i.strip()] if isinstance(layers, str) else layers
        )
    ours |= {
        k: published[k] for k in ("router_nn_type", "router_mode", "router_hidden_dim") if k in published
    }
    ours |= {"num_experts": published["router_block_num"], "router_input_dim": vector_dim}
    return RoutingBartConfig(**ours, task_names=task_names)


def upstream_name(name: str) -> str:
    """Our name for one of the published code's parameters."""
    if not name.startswith("router."):
        return name.replace(".blocks.", ".experts.")
    part = name.removeprefix("router.model.")
    for published, ours in UPSTREAM_ROUTER_NAMES:
        renamed, n = re.subn(published, ours, part)
        if n:
            return "router." + renamed
    raise InputError(f"{name} is not a parameter of the published code's routers")
