"""RoutedModel: saving and loading, its base, adapters against peft, and checkpointing."""

import copy
import json
import shutil
from itertools import cycle

import pytest
import torch
from peft import PeftModel
from tiny_backbones import FAMILIES, MIXINGS, batch_of, make_differ, make_plain, make_routed, routes_of
from tiny_runs import assert_equal
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from dataloader.errors import InputError
from routing_moe import RoutedModel
from routing_moe.checkpoints.adapters import fill_expert, lora_fields, read_adapter
from routing_moe.model.base import is_of_base
from routing_moe.model.lora import LoraPlan

FIELDS = dict(num_experts=3, router_input_dim=8, router_mode="softmax", task_names=["a", "b"])
DRAWN = dict(route_source="average", task_names=["a"])
LORA = dict(expert_kind="lora", lora_rank=3, lora_alpha=6)
BARTS = {"lora": LORA, "layers": {}, "merged": dict(expert_mixing="parameters")}


# ---- new models


@pytest.mark.parametrize("family", ["flan-t5", "bart", "qwen3"])
def test_untrained_experts_leave_the_plain_model_as_it_is(family):
    plain = make_plain(family).double()
    before = copy.deepcopy(plain)
    model = RoutedModel.from_backbone(plain, **FIELDS).double()
    batch = batch_of(model)
    with torch.no_grad():  # a fused attention runs only then
        expected = before(**batch).logits
        found = model(**batch, task_ids=model.task_ids(["a", "b", "b", "a"])).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        assert torch.equal(model.to_plain(model.routes_for(["a"])[0])(**batch).logits, expected)
    factors = [parameter for name, parameter in model.named_parameters() if name.endswith("lora_A")]
    assert all((A[0] != A[1]).all() for A in factors)  # so that experts can become different
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert not any(map(is_of_base, trained))


@pytest.mark.parametrize("family", ["t5", "qwen2", *BARTS])
def test_wrong_routes_tasks_and_batches_are_errors(family, make_model, tmp_path):
    is_bart = family in BARTS
    model = (make_model(3, **BARTS[family]) if is_bart else make_routed(family)).eval()
    batch, routes = batch_of(model, vocabulary=40), routes_of("soft", model)
    inputs, three, negative = batch["input_ids"], 3 * routes, torch.zeros_like(routes)
    negative[..., 0], negative[..., 1] = 2, -1
    calls = [
        lambda: model(**batch, routes=three),
        lambda: model(**batch, routes=negative),
        lambda: model.generate(inputs, routes=three, max_new_tokens=2),
        lambda: model.to_plain(three[0]),
    ]
    calls += [lambda: model.to_adapter(three[0], tmp_path / "adapter")] if model.config.has_lora else []
    for call in calls:
        with pytest.raises(ValueError, match="must have weights that sum to 1"):
            call()
    with pytest.raises(ValueError, match="the batch has no examples"):
        model.generate(inputs[:0], routes=routes[:0], max_new_tokens=2)
    with pytest.raises(Exception, match="task_names names a more than once"):
        model.config.__class__(**model.config.to_dict() | {"task_names": ["a", "b", "a"]})


def test_the_steps_of_a_generation_use_one_plan(make_model, monkeypatch):
    planned, of = [], LoraPlan.of
    monkeypatch.setattr(LoraPlan, "of", lambda *values: planned.append(values) or of(*values))
    for model in (make_routed("t5"), make_routed("qwen2"), make_model(4, **LORA)):
        batch = batch_of(model, vocabulary=40)
        options = dict(routes=routes_of("soft", model), max_new_tokens=5, num_beams=3)
        model.generate(batch["input_ids"], attention_mask=torch.ones_like(batch["input_ids"]), **options)
    assert len(planned) == 3


# ---- saving and loading


@pytest.mark.parametrize(
    ("family", "from_folder"),
    [("t5", True), ("bart", True), ("phi3", True), ("flan-t5", False), ("llama", False), ("gemma3", False)],
)
def test_a_saved_model_is_loaded_as_it_was(family, from_folder, tmp_path):
    place = make_plain(family)
    if from_folder:
        place.save_pretrained(tmp_path / "base")
        place = tmp_path / "base"
    model = RoutedModel.from_backbone(place, **FIELDS)
    make_differ(model)
    model.generation_config.max_new_tokens = 7
    model.save_pretrained(tmp_path / "runs/saved")
    config = json.loads((tmp_path / "runs/saved/config.json").read_text())
    assert config["base_model"] == ("../../base" if from_folder else None)
    kind = AutoModelForSeq2SeqLM if model.config.is_encoder_decoder else AutoModelForCausalLM
    for cls in (RoutedModel, kind):
        loaded = cls.from_pretrained(tmp_path / "runs/saved")
        assert type(loaded) is RoutedModel
        assert_equal(loaded.state_dict(), model.state_dict())
        assert loaded.generation_config.max_new_tokens == 7
        batch, ids = batch_of(model), model.task_ids(["a", "b", "b", "a"])
        with torch.no_grad():  # a fused attention runs only then
            assert torch.equal(loaded(**batch, task_ids=ids).logits, model(**batch, task_ids=ids).logits)


def test_a_moved_tree_of_base_and_checkpoint_loads_and_a_missing_base_is_named(tmp_path):
    make_plain("qwen2").save_pretrained(tmp_path / "tree/base")
    model = RoutedModel.from_backbone(tmp_path / "tree/base", **FIELDS)
    model.save_pretrained(tmp_path / "tree/run/best")
    shutil.move(tmp_path / "tree", tmp_path / "moved")
    assert_equal(RoutedModel.from_pretrained(tmp_path / "moved/run/best").state_dict(), model.state_dict())
    shutil.rmtree(tmp_path / "moved/base")
    with pytest.raises(InputError, match=f"{tmp_path}/moved/base: not found; it has the model that"):
        RoutedModel.from_pretrained(tmp_path / "moved/run/best")


def test_arguments_of_loading_without_an_effect_are_refused(tmp_path):
    RoutedModel.from_backbone(make_plain("t5"), **FIELDS).save_pretrained(tmp_path)
    for cls in (RoutedModel, AutoModelForSeq2SeqLM):
        assert cls.from_pretrained(tmp_path, token=None, trust_remote_code=False).config.num_experts == 3
        for name, value, advice in (
            ("device_map", 0, r"then use \.to"),
            ("quantization_config", torch.ones(2), "it takes config, dtype, revision"),
        ):
            with pytest.raises(InputError, match=f"{name}: RoutedModel loads without it; {advice}"):
                cls.from_pretrained(tmp_path, **{name: value})
    with pytest.raises(InputError, match="torch_dtype: RoutedModel loads without it; give dtype"):
        RoutedModel.from_pretrained(tmp_path, torch_dtype=torch.float16)


def test_a_base_of_another_depth_is_refused(tmp_path):
    make_plain("qwen2").save_pretrained(tmp_path / "base")
    RoutedModel.from_backbone(tmp_path / "base", **FIELDS).save_pretrained(tmp_path / "saved")
    other = FAMILIES["qwen2"]()
    other.num_hidden_layers, other.layer_types = 4, None
    AutoModelForCausalLM.from_config(type(other)(**other.to_dict())).save_pretrained(tmp_path / "base")
    with pytest.raises(InputError, match=f"{tmp_path}/base: .*(other weights|no plain model can)"):
        RoutedModel.from_pretrained(tmp_path / "saved")


@pytest.mark.parametrize(
    "part",
    [
        *("model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"),
        *("model.layers.2.self_attn.q_proj.bias", "model.norm.weight", "model.embed_tokens.weight"),
    ],
)
def test_a_base_with_another_part_is_refused(part, tmp_path):
    plain = make_plain("qwen2")
    plain.save_pretrained(tmp_path / "base")
    RoutedModel.from_backbone(tmp_path / "base", **FIELDS).save_pretrained(tmp_path / "saved")
    tensor = plain.get_parameter(part).data
    tensor.copy_(tensor.roll(1, 0) if tensor.ndim == 2 else tensor + 0.1)  # also rows in another order
    plain.save_pretrained(tmp_path / "base")
    with pytest.raises(InputError, match=f"{tmp_path}/base: not the model that the experts were"):
        RoutedModel.from_pretrained(tmp_path / "saved")


def test_no_change_of_the_base_is_lost(tmp_path):
    """Also of a base that is frozen again, and of one weight."""
    make_plain("qwen2").save_pretrained(tmp_path / "base")
    for number in range(3):
        model = RoutedModel.from_backbone(tmp_path / "base", **FIELDS)
        with torch.no_grad():
            if number == 0:
                model.backbone.model.norm.weight[3] += 1
            elif number == 1:
                model.backbone.resize_token_embeddings(100)
        if number < 2:
            with pytest.raises(InputError, match="the base was trained"):
                model.to_adapter(torch.ones(3, 3) / 3, tmp_path / "adapter")
        model.save_pretrained(tmp_path / str(number))
        loaded = RoutedModel.from_pretrained(tmp_path / str(number))
        assert (loaded.config.base_model is None) == (number < 2)
        assert_equal(loaded.state_dict(), model.state_dict())
        assert not any(parameter.requires_grad for n, parameter in loaded.named_parameters() if is_of_base(n))


def test_a_base_in_16_bits_keeps_them_and_its_experts_have_32(tmp_path):
    for family, is_saved in (("t5", True), ("llama", False)):
        plain = make_plain(family).bfloat16()
        plain.save_pretrained(tmp_path / family)
        model = RoutedModel.from_backbone(tmp_path / family if is_saved else plain, **FIELDS)
        make_differ(model)
        model.save_pretrained(tmp_path / f"{family} saved")
        loaded = RoutedModel.from_pretrained(tmp_path / f"{family} saved")
        assert_equal(loaded.state_dict(), model.state_dict())
        for name, parameter in loaded.named_parameters():
            assert parameter.dtype == (torch.bfloat16 if is_of_base(name) else torch.float32)
        plain = loaded.to_plain(loaded.routes_for(["a"])[0])
        assert {parameter.dtype for parameter in plain.parameters()} == {torch.bfloat16}
        batch = batch_of(loaded)
        ids = loaded.task_ids(["a"] * 4)
        mixed, merged = loaded(**batch, task_ids=ids).logits, plain(**batch).logits
        torch.testing.assert_close(mixed.float(), merged.float(), rtol=0, atol=0.1)
        loaded.train()(**batch, task_ids=ids).loss.backward()
        assert all(p.grad is not None for n, p in loaded.named_parameters() if n.endswith("lora_A"))


# ---- adapters


@pytest.mark.parametrize(("family", "mixing"), list(zip(FAMILIES, cycle(MIXINGS), strict=False)))
@pytest.mark.usefixtures("attention_in_float64")
def test_an_exported_route_has_its_logits_in_peft_and_as_an_expert_again(family, mixing, tmp_path):
    model = make_routed(family, **MIXINGS[mixing])
    batch = batch_of(model)
    for kind in ("soft", "one_hot"):
        route_LE = routes_of(kind, model)[0]
        model.to_adapter(route_LE, tmp_path / kind, "a/base@v2")
        base = model.to_plain(torch.zeros_like(route_LE))
        own = PeftModel.from_pretrained(base, tmp_path / kind, autocast_adapter_dtype=False).eval()
        config = own.peft_config["default"]
        assert config.revision == "v2"
        assert config.r == (12 if (kind, mixing) == ("soft", "products") else 3)
        expected = model(**batch, routes=route_LE.expand(4, -1, -1)).logits
        torch.testing.assert_close(own(**batch).logits, expected, rtol=0, atol=1e-10)
        updates = read_adapter(base := model.to_plain(torch.zeros_like(route_LE)), tmp_path / kind)
        again = RoutedModel.from_backbone(base, 2, **lora_fields([updates]), **DRAWN).double().eval()
        fill_expert(again, 1, updates)
        logits = again(**batch, routes=torch.eye(2)[1].double().expand(4, again.config.num_layers, 2)).logits
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    with pytest.raises(InputError, match=r"has a file adapter_config\.json already"):
        model.to_adapter(route_LE, tmp_path / "soft")


# ---- checkpointing


@pytest.mark.parametrize("family", ["t5", "qwen2", *BARTS])
def test_checkpointed_gradients_are_equal(family, make_model):
    model = (make_model(4, **BARTS[family]) if family in BARTS else make_routed(family)).train()
    make_differ(model)
    batch = batch_of(model, vocabulary=40)
    routes_BLE = routes_of("soft", model).requires_grad_()

    def gradients() -> list[torch.Tensor]:
        model.zero_grad(set_to_none=True)
        routes_BLE.grad = None
        model(**batch, routes=routes_BLE).loss.backward()
        own = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        return [*own, routes_BLE.grad]

    expected = gradients()
    model.gradient_checkpointing_enable(dict(use_reentrant=True))
    torch.testing.assert_close(gradients(), expected, rtol=0, atol=1e-12)
    model = copy.deepcopy(model)
    torch.testing.assert_close(gradients(), expected, rtol=0, atol=1e-12)
