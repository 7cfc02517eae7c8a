"""Low-rank experts as adapters of peft, in both directions, against peft itself in float64."""

import json
import math

import pytest
import torch
from conftest import one_hot_routes, tiny_bart_config
from peft import LoraConfig, PeftModel, PolyConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BartForConditionalGeneration

from dataloader.errors import InputError
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.checkpoints.adapters import PREFIX, WEIGHTS_FILE, fill_expert, lora_fields, read_adapter
from routing_moe.config.assemble import ADAPTER_FILE
from routing_moe.model.lora import LoraLinear
from routing_moe.model.selection import select_routes

SEED_OF_BART = 3


def plain_bart() -> BartForConditionalGeneration:
    torch.manual_seed(SEED_OF_BART)
    return BartForConditionalGeneration(tiny_bart_config(init_std=0.3)).double().eval()


def peft_adapter(folder, seed=0, base=None, **fields):
    """Returns peft's model with an adapter whose B is not 0, which it has written to the folder."""
    chosen = dict(r=4, lora_alpha=8, target_modules="all-linear", task_type="SEQ_2_SEQ_LM") | fields
    base, config = base or plain_bart(), LoraConfig(**chosen)
    torch.manual_seed(seed)
    model = get_peft_model(base, config, autocast_adapter_dtype=False).double().eval()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return model


def as_bfloat16(model, folder) -> None:
    """Rounds peft's model, and writes its adapter to the folder in this precision."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(parameter.bfloat16())
    tensors = load_file(folder / WEIGHTS_FILE)
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, folder / WEIGHTS_FILE)


def linear_maps(model) -> dict[str, LoraLinear]:
    """Returns {name, such as "model.encoder.layers.0.fc1": linear map with experts} of a model."""
    linears = {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}
    return {name.removeprefix("backbone."): linear for name, linear in linears.items()}


def mixture(adapters, **fields):
    """Returns a mixture in float64 whose experts are the adapters."""
    fields |= lora_fields(adapters) | dict(router_input_dim=8, task_names=["a"])
    model = RoutingBartForConditionalGeneration.from_bart(plain_bart(), len(adapters), **fields)
    model = model.double().eval()
    for expert, adapter in enumerate(adapters):
        fill_expert(model, expert, adapter)
    return model


def along(model, expert: int, batch) -> torch.Tensor:
    routes_BLE = one_hot_routes(torch.full((4, 4), expert), model.config.num_experts)
    return model(**batch, routes=routes_BLE).logits


def one_hot_route(expert: int, E: int = 2) -> torch.Tensor:
    return one_hot_routes(torch.full((4,), expert), E)


def assert_close(found, expected) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


def test_one_hot_routes_give_the_logits_of_pefts_models(tmp_path, batch):
    """Other ranks and scales, patterns, targets as a regular expression or a list, some layers only.

    All are read in one base, which stays as it was.
    """
    kinds = [
        dict(),
        dict(r=2, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "v_proj"]),
        dict(r=6, rank_pattern={"fc1": 3}, alpha_pattern={"fc1": 5, "encoder.*q_proj": 2}),
        dict(target_modules=r".*decoder.*\.(fc2|k_proj)"),
        dict(target_modules=["fc1"], layers_to_transform=[1], layers_pattern="layers"),
    ]
    models = [peft_adapter(tmp_path / str(e), e, **fields) for e, fields in enumerate(kinds)]
    as_bfloat16(models[0], tmp_path / "0")
    base = plain_bart()
    adapters = [read_adapter(base, tmp_path / str(e)) for e in range(len(kinds))]
    states = base.state_dict(), plain_bart().state_dict()
    assert list(states[0]) == list(states[1])
    assert all(map(torch.equal, *(state.values() for state in states)))
    model = mixture(adapters)
    assert (model.config.lora_rank, model.config.lora_scale) == (6, 1)
    for expert, own in enumerate(models):
        assert_close(along(model, expert, batch), own(**batch).logits)
        place = tmp_path / "out" / str(expert)
        model.to_adapter(one_hot_route(expert, len(kinds)), place, "b")
        again = PeftModel.from_pretrained(plain_bart(), place)
        assert_close(again(**batch).logits, own(**batch).logits)
        assert again.peft_config["default"].r == own.peft_config["default"].r, "rows of zeros are left out"
    assert not torch.allclose(along(model, 0, batch), along(model, 1, batch))


def test_fields_are_the_smallest_that_all_adapters_fit(tmp_path):
    for name, fields in {
        "narrow": dict(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"]),
        "wide": dict(r=3, lora_alpha=6, target_modules=["k_proj"]),
        "fc1": dict(r=3, lora_alpha=3, target_modules=["fc1"]),
    }.items():
        peft_adapter(tmp_path / name, **fields)
    narrow, wide, fc1 = (read_adapter(plain_bart(), tmp_path / name) for name in ("narrow", "wide", "fc1"))
    kind = dict(expert_kind="lora", lora_rank=3)
    assert lora_fields([narrow, wide]) == kind | dict(lora_alpha=6, lora_targets="attention")
    assert lora_fields([narrow, fc1]) == kind | dict(lora_alpha=3, lora_targets="all")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (dict(use_dora=True), "changes model.encoder.layers.0.* by DoRA, a variant of LoRA"),
        (dict(modules_to_save=["fc2"]), "changes model.decoder.layers.*fc2.*weight"),
        (dict(target_modules=["q_proj", "embed_positions"]), "changes model.encoder.embed_positions; "),
        (dict(target_modules=["q_proj", "lm_head"]), "changes lm_head; "),
        (dict(trainable_token_indices={"shared": [1]}), "changes model.shared"),
        (dict(bias="lora_only"), "changes model.decoder.layers.*bias"),
        (dict(lora_bias=True), "changes model.decoder.layers.*lora_B.bias"),
        (dict(init_lora_weights="pissa"), "changes weights of the base .init_lora_weights 'pissa'"),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_what_experts_cannot_represent_is_refused(tmp_path, fields, problem):
    model = peft_adapter(tmp_path, base=plain_bart().float(), **fields)
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name or "magnitude" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=problem):
        read_adapter(plain_bart().float(), tmp_path)


def test_damaged_missing_and_pickled_files_are_refused(tmp_path):
    peft_adapter(tmp_path)
    with pytest.raises(InputError, match="peft cannot load it on the base"):
        read_adapter(BartForConditionalGeneration(tiny_bart_config(d_model=8)), tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    save_file({name.removeprefix(PREFIX): t for name, t in tensors.items()}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(InputError, match=r"such as model\.decoder\..*, do not begin with base_"):
        read_adapter(plain_bart(), tmp_path)
    save_file(dict(list(tensors.items())[1:]), tmp_path / WEIGHTS_FILE)
    with pytest.raises(InputError, match=f"{WEIGHTS_FILE} lacks model.decoder.layers.0.*, which adapter_"):
        read_adapter(plain_bart(), tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"broken")
    with pytest.raises(InputError, match="peft cannot load it on the base"):
        read_adapter(plain_bart(), tmp_path)
    (tmp_path / WEIGHTS_FILE).rename(tmp_path / "adapter_model.bin")
    with pytest.raises(InputError, match=f"{WEIGHTS_FILE}: no such file"):
        read_adapter(plain_bart(), tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("layer_replication", [[0, 1], [0, 1]], "repeats layers .layer_replication."),
        ("lora_alpha", math.inf, "adapter_config.json: the scale of model.* is inf"),
    ],
)
def test_settings_that_would_change_the_base_or_all_results_are_refused(tmp_path, field, value, problem):
    peft_adapter(tmp_path)
    content = json.loads((tmp_path / ADAPTER_FILE).read_text())
    (tmp_path / ADAPTER_FILE).write_text(json.dumps(content | {field: value}))
    with pytest.raises(InputError, match=problem):
        read_adapter(plain_bart(), tmp_path)


def test_what_was_written_is_read_as_it_was(make_model, tmp_path):
    model = make_model(2, expert_kind="lora", lora_rank=3, lora_alpha=0.7, lora_targets="attention")
    for linear in linear_maps(model).values():
        torch.nn.init.normal_(linear.lora_B)
    adapters = []
    for expert in range(2):
        model.to_adapter(one_hot_route(expert), tmp_path / str(expert), "base")
        adapters.append(read_adapter(model.to_bart(torch.zeros(4, 2)), tmp_path / str(expert)))
    again = mixture(adapters)
    for name, linear in linear_maps(again).items():
        assert torch.equal(linear.lora_A, linear_maps(model)[name].lora_A)
        assert_close(linear.lora_B, linear_maps(model)[name].lora_B)


@pytest.mark.parametrize("splits", [1, 4])
def test_mixed_factors_are_those_of_pefts_poly(batch, splits):
    E, tasks = 3, 2
    sizes = dict(r=4, n_tasks=tasks, n_skills=E, n_splits=splits, task_type="SEQ_2_SEQ_LM")
    poly_config = PolyConfig(**sizes, target_modules=["q_proj", "v_proj", "fc1"])
    poly = get_peft_model(plain_bart(), poly_config).double().eval()
    of_lora = dict(lora_rank=4, lora_alpha=1, lora_mixing="factors", lora_splits=splits)
    fields = dict(expert_kind="lora", task_names=["a"]) | of_lora
    model = RoutingBartForConditionalGeneration.from_bart(plain_bart(), E, **fields).double().eval()
    logits_NLE = torch.randn(tasks, 4 * splits, E, dtype=torch.float64)
    routes_NLE = select_routes(logits_NLE, "bernoulli", temperature=1.0, noise=False)
    with torch.no_grad():
        for name, linear in linear_maps(model).items():
            side, _, i = name.removeprefix("model.").split(".")[:3]
            layer = poly.base_model.model.get_submodule(name)
            if not hasattr(layer, "poly_router"):  # it is not a target of Poly
                continue
            row = int(i) + (2 if side == "decoder" else 0)
            rows_NHE = logits_NLE[:, row * splits : (row + 1) * splits]
            layer.poly_router["default"].module_logits.copy_(rows_NHE.flatten(1))
            A_HEdr, B_HErd = layer.poly_lora_A["default"], layer.poly_lora_B["default"]
            torch.nn.init.normal_(B_HErd, std=0.3)
            linear.lora_A.copy_(A_HEdr.permute(1, 3, 0, 2).flatten(2))
            linear.lora_B.copy_(B_HErd.permute(1, 2, 0, 3).flatten(2))
    task_ids = torch.tensor([0, 1, 1, 0])
    expected = poly(**batch, task_ids=task_ids).logits
    assert_close(model(**batch, routes=routes_NLE[task_ids]).logits, expected)
    assert not torch.allclose(expected, plain_bart()(**batch).logits)
