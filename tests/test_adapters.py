"""Low-rank experts as adapters of peft, in both directions, against peft itself in float64."""

import json

import pytest
import torch
from conftest import one_hot_routes, tiny_bart_config
from peft import LoraConfig, PeftModel, PolyConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    BartForConditionalGeneration,
    Qwen2ForCausalLM,
    Qwen2Model,
    T5ForConditionalGeneration,
)

from dataloader.checksums import sha256
from dataloader.errors import InputError
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.checkpoints.adapters import (
    ADAPTER_FILE,
    WEIGHTS_FILE,
    fill_expert,
    linear_maps,
    lora_fields,
    read_adapter,
    read_factors,
)
from routing_moe.model.selection import noise_free_routes

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


def change_config(folder, **change) -> None:
    values = json.loads((folder / ADAPTER_FILE).read_text()) | change
    (folder / ADAPTER_FILE).write_text(json.dumps(values))


def mixture(adapters, **fields):
    """Returns a mixture in float64 whose experts are the adapters."""
    model = RoutingBartForConditionalGeneration.from_bart(
        plain_bart(), len(adapters), router_input_dim=8, task_names=["a"], **lora_fields(adapters) | fields
    )
    model = model.double().eval()
    for expert, adapter in enumerate(adapters):
        fill_expert(model, expert, adapter)
    return model


def along(model, expert: int, batch) -> torch.Tensor:
    routes_BLE = one_hot_routes(torch.full((4, 4), expert), model.config.num_experts)
    return model(**batch, routes=routes_BLE).logits


def one_hot_route(expert: int) -> torch.Tensor:
    return one_hot_routes(torch.full((4,), expert), 2)


def assert_close(found, expected) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


# ---- from peft


def test_one_hot_routes_give_the_logits_of_pefts_models(tmp_path, batch):
    """Other ranks and scales, patterns, targets as a regular expression or a list, some layers only."""
    kinds = [
        dict(),
        dict(r=2, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "v_proj"]),
        dict(r=6, rank_pattern={"fc1": 3}, alpha_pattern={"fc1": 5, "encoder.*q_proj": 2}),
        dict(target_modules=r".*decoder.*\.(fc2|k_proj)"),
        dict(target_modules=["fc1"], layers_to_transform=[1], layers_pattern="layers"),
    ]
    models = [peft_adapter(tmp_path / str(e), e, **fields) for e, fields in enumerate(kinds)]
    adapters = [read_adapter(tmp_path / str(e)) for e in range(len(kinds))]
    model = mixture(adapters)
    assert (model.config.lora_rank, model.config.lora_scale) == (6, 1)
    for expert, own in enumerate(models):
        assert_close(along(model, expert, batch), own(**batch).logits)
    assert not torch.allclose(along(model, 0, batch), along(model, 1, batch))


def test_patterns_match_the_names_of_the_model_that_peft_wrapped(tmp_path, batch):
    """Those of a BART without head have no "model."."""
    bart = plain_bart()
    alphas = {"^encoder.layers.0.self_attn.q_proj": 99, "^model": 7, "^decoder.*(k_proj|fc1)": 5, "k_proj": 3}
    peft_adapter(tmp_path, base=bart.model, task_type=None, alpha_pattern=alphas, use_rslora=True)
    adapter = read_adapter(tmp_path)
    assert {update.scale for update in adapter.updates.values()} == {99 / 2, 8 / 2, 5 / 2, 3 / 2}
    assert_close(along(mixture([adapter] * 2), 0, batch), bart(**batch).logits)


@pytest.mark.parametrize(
    ("architecture", "name", "targets", "kind"),
    [
        (T5ForConditionalGeneration, "encoder.block.0.layer.0.SelfAttention.q", ["q"], "attention"),
        (Qwen2ForCausalLM, "model.layers.1.mlp.up_proj", ["up_proj"], "feed_forward"),
        (Qwen2Model, "layers.1.self_attn.q_proj", ["q_proj", "up_proj"], "all"),
    ],
)
def test_updates_of_other_models_are_pefts(architecture, name, targets, kind, tmp_path):
    sizes = dict(hidden_size=16, intermediate_size=8, num_attention_heads=2, num_key_value_heads=2)
    base = architecture(architecture.config_class(**sizes, num_hidden_layers=2, vocab_size=9))
    own = peft_adapter(tmp_path, base=base, task_type=None, target_modules=targets, rank_pattern={"q": 3})
    adapter = read_adapter(tmp_path)
    update = adapter.updates[name.removeprefix("model.")]
    expected = own.get_submodule(f"base_model.model.{name}").get_delta_weight("default")
    assert_close(update.scale * update.B @ update.A, expected)
    assert lora_fields([adapter])["lora_targets"] == kind


def test_expressions_that_take_years_do_not(tmp_path, monkeypatch):
    peft_adapter(tmp_path)
    change_config(tmp_path, alpha_pattern={"(a+)+$x": 3, "(([a-z_0-9.]+)*)*Z": 9})
    assert {update.scale for update in read_adapter(tmp_path).updates.values()} == {2}
    monkeypatch.setattr(f"{read_adapter.__module__}.LONGEST", 0.1)
    change_config(tmp_path, alpha_pattern={"(?:[a-z_0-9.]|[a-z_0-9.]{2})*(?<!q_proj)(?<!fc1)": 3})
    with pytest.raises(InputError, match=r"adapter_config.json: alpha_pattern has '.*timed out"):
        read_adapter(tmp_path)


def test_what_was_read_does_not_change_with_the_file(tmp_path, monkeypatch):
    peft_adapter(tmp_path)
    weights = tmp_path / WEIGHTS_FILE
    adapter, checksum, content = read_adapter(tmp_path), sha256(weights), weights.read_bytes()
    A = adapter.updates["encoder.layers.0.fc1"].A
    before = A.clone()
    weights.write_bytes(bytes(len(content)))
    assert torch.equal(A, before)
    assert adapter.checksums[WEIGHTS_FILE] == checksum
    weights.write_bytes(content)

    def then_written(path):
        factors = read_factors(path)
        path.write_bytes(bytes(len(content)))
        return factors

    monkeypatch.setattr(f"{read_adapter.__module__}.read_factors", then_written)
    with pytest.raises(InputError, match=f"{tmp_path} has changed while it was read"):
        read_adapter(tmp_path)


def test_fields_of_a_later_version_that_are_not_set_are_no_problem(tmp_path, recwarn):
    peft_adapter(tmp_path)
    recwarn.clear()
    change_config(tmp_path, of_a_later_peft=None, also={})
    assert read_adapter(tmp_path).updates
    assert not recwarn


def test_pickled_weights_are_not_read(tmp_path):
    peft_adapter(tmp_path)
    torch.save(load_file(tmp_path / WEIGHTS_FILE), tmp_path / "adapter_model.bin")
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(InputError, match=f"{tmp_path / WEIGHTS_FILE}: no such file"):
        read_adapter(tmp_path)


def test_fields_are_the_smallest_that_all_adapters_fit(tmp_path):
    for name, targets in (("one", ["q_proj"]), ("two", ["fc1", "fc2"])):
        peft_adapter(tmp_path / name, r=2, lora_alpha=1, target_modules=targets)
    one, two = read_adapter(tmp_path / "one"), read_adapter(tmp_path / "two")
    expected = dict(expert_kind="lora", lora_rank=2, lora_alpha=1.0)
    assert lora_fields([one]) == expected | {"lora_targets": "attention"}
    assert lora_fields([two]) == expected | {"lora_targets": "feed_forward"}
    assert lora_fields([one, two]) == expected | {"lora_targets": "all"}


def test_names_may_have_the_name_of_the_adapter_and_lack_that_of_the_model(tmp_path):
    peft_adapter(tmp_path)
    before = read_adapter(tmp_path).updates
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    renamed = {
        name.replace("model.model.model.", "model.model.").replace(".weight", ".default.weight"): tensor
        for name, tensor in tensors.items()
    }
    assert not renamed.keys() & tensors.keys()
    save_file(renamed, tmp_path / WEIGHTS_FILE)
    after = read_adapter(tmp_path).updates
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name].B, before[name].B) for name in before)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (dict(use_dora=True), "use_dora is set"),
        (dict(bias="lora_only"), "bias is 'lora_only'"),
        (dict(modules_to_save=["layernorm_embedding"]), "modules_to_save is set"),
        (dict(trainable_token_indices=[3]), "trainable_token_indices is set"),
        (dict(target_modules=["q_proj", "lm_head"]), "lm_head.* is not a factor of a linear map"),
    ],
)
def test_what_experts_cannot_represent_is_refused_with_file_and_field(tmp_path, fields, problem):
    peft_adapter(tmp_path, **fields)
    with pytest.raises(InputError, match=f"{tmp_path}/adapter_[a-z.]*: .*{problem}"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (dict(peft_type="POLY"), "peft_type is 'POLY'"),
        (dict(lora_alpha="8"), "lora_alpha is '8'; must be a number"),
        (dict(alpha_pattern={"fc1": None}), "lora_alpha is None for fc1"),
        (dict(alpha_pattern=["fc1"]), r"alpha_pattern is \['fc1'\]"),
        (dict(alpha_pattern={"(fc1": 2}), r"alpha_pattern has '\(fc1': not a regular expression"),
        (dict(layer_replication=[[0, 2]]), "layer_replication is set"),
        (dict(of_a_later_peft={"a": 1}), "of_a_later_peft is set"),
        (dict(task_type="POEMS"), "not a configuration of peft .*'POEMS'"),
        (dict(init_lora_weights="olora"), "init_lora_weights is 'olora'"),
    ],
)
def test_a_field_with_another_value_is_refused(tmp_path, change, problem):
    peft_adapter(tmp_path)
    change_config(tmp_path, **change)
    with pytest.raises(InputError, match=f"{tmp_path / ADAPTER_FILE}: {problem}"):
        read_adapter(tmp_path)


def test_damaged_weights_and_those_of_another_size_are_refused(make_model, tmp_path):
    peft_adapter(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    name = next(name for name in tensors if ".lora_B." in name)
    adapter = read_adapter(tmp_path)
    for changed, problem in (
        ({name: tensors[name] * torch.nan}, "weights that are not finite"),
        ({name: tensors[name][:, 1:].contiguous()}, "lora_A and lora_B of .* do not match"),
    ):
        save_file(tensors | changed, tmp_path / WEIGHTS_FILE)
        with pytest.raises(InputError, match=problem):
            read_adapter(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"no tensors")
    with pytest.raises(InputError, match="not a file of tensors"):
        read_adapter(tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(InputError, match="no such file"):
        read_adapter(tmp_path)
    narrow = make_model(2, bart_fields=dict(d_model=8), expert_kind="lora")
    with pytest.raises(InputError, match="in the base it maps 8 to"):
        fill_expert(narrow, 0, adapter)


@pytest.mark.parametrize("alpha", [0, -3])
def test_adapters_may_have_a_scale_that_is_not_above_0(tmp_path, batch, alpha):
    own = peft_adapter(tmp_path, lora_alpha=alpha)
    assert_close(along(mixture([read_adapter(tmp_path)] * 2), 1, batch), own(**batch).logits)


# ---- to peft


def test_peft_gives_the_logits_of_the_expert_that_was_written(make_model, tmp_path, batch):
    fields = dict(expert_kind="lora", lora_rank=3, lora_alpha=6, encoder_vanilla_layers=[0])
    model = make_model(2, **fields)
    for linear in linear_maps(model).values():
        torch.nn.init.normal_(linear.lora_B, std=0.3)
    none_LE = torch.zeros(4, 2, dtype=torch.float64)
    for expert in range(2):
        model.to_adapter(one_hot_route(expert), tmp_path / str(expert), "a/base@v2")
        base = model.to_bart(none_LE)
        own = PeftModel.from_pretrained(base, tmp_path / str(expert), autocast_adapter_dtype=False).eval()
        config = own.peft_config["default"]
        assert (config.base_model_name_or_path, config.revision) == ("a/base", "v2")
        assert read_adapter(tmp_path / str(expert)).base == "a/base@v2"
        assert_close(own(**batch).logits, along(model, expert, batch))
        own.unload()


def test_what_was_written_is_read_as_it_was(make_model, tmp_path):
    model = make_model(2, expert_kind="lora", lora_rank=3, lora_alpha=0.7, lora_targets="attention")
    for linear in linear_maps(model).values():
        torch.nn.init.normal_(linear.lora_B)
    adapters = []
    for expert in range(2):
        model.to_adapter(one_hot_route(expert), tmp_path / str(expert), "base")
        adapters.append(read_adapter(tmp_path / str(expert)))
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
    model = RoutingBartForConditionalGeneration.from_bart(
        plain_bart(),
        E,
        expert_kind="lora",
        lora_rank=4,
        lora_alpha=1,
        lora_mixing="factors",
        lora_splits=splits,
        task_names=["a"],
    )
    model = model.double().eval()
    logits_NLE = torch.randn(tasks, 4 * splits, E, dtype=torch.float64)
    routes_NLE = noise_free_routes(logits_NLE, "bernoulli", temperature=1.0)
    with torch.no_grad():
        for name, linear in linear_maps(model).items():
            side, _, i = name.split(".")[:3]
            layer = poly.base_model.model.get_submodule(f"model.{name}")
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
