"""Low-rank experts of T5, BART and decoder-only models: every route equals a plain model, in float64."""

import json
import shutil
from itertools import cycle

import pytest
import torch
from tiny_backbones import (
    FAMILIES,
    MIXINGS,
    batch_of,
    make_plain,
    make_routed,
    padded_left,
    plain_models,
    routes_of,
)
from tiny_runs import contents, run
from torch.func import functional_call
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GPT2Config,
    LEDConfig,
)

from dataloader.errors import InputError
from routing_moe import RoutedModel

# Each family with one kind of mixing, and each kind with both kinds of models.
PAIRS = list(zip(FAMILIES, cycle(MIXINGS), strict=False))
in_each_family = pytest.mark.parametrize(("family", "mixing"), PAIRS)


@pytest.mark.usefixtures("attention_in_float64")
@in_each_family
def test_mixed_routes_give_the_logits_losses_and_gradients_of_their_plain_models(family, mixing):
    model = make_routed(family, **MIXINGS[mixing], label_smoothing=0.0)
    experts = [p for name, p in model.named_parameters() if name.endswith(("lora_A", "lora_B"))]
    batch, shift = batch_of(model), int(not model.config.is_encoder_decoder)  # to the label of a position
    for kind in ("soft", "one_hot"):
        routes_BLE, expected = routes_of(kind, model).requires_grad_(), 0.0
        logits = model.eval()(**batch, routes=routes_BLE).logits
        loss = model.train()(**batch, routes=routes_BLE).loss
        for i, route_LE in enumerate(routes_BLE):
            own = {name: tensor[i : i + 1] for name, tensor in batch.items()}
            plain, merged = model.to_plain(route_LE.detach()), {}
            assert not [name for name in plain.state_dict() if "lora" in name]
            is_real = own["attention_mask"][0].bool() if shift else own["labels"][0] != -100
            of_plain = plain(**own).logits[0]
            torch.testing.assert_close(logits[i][is_real], of_plain[is_real], rtol=0, atol=1e-10)
            for layer in model.lora_layers:  # the same weights, with gradients
                for name, linear in layer.linear_maps.items():
                    weight = linear.merged(route_LE[layer.rows], torch.arange(4))
                    merged[f"{layer.name}.{name}.weight"] = weight
            labels = own["labels"][0, shift:]
            merged_logits = functional_call(plain, merged, kwargs=own).logits
            expected += F.cross_entropy(merged_logits[0, : len(labels)], labels, reduction="sum")
        torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
        gradients = (torch.autograd.grad(each, [*experts, routes_BLE]) for each in (loss, expected))
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("attention_in_float64")
@in_each_family
def test_generation_along_mixed_routes_is_that_of_their_plain_models(family, mixing):
    model = make_routed(family, **MIXINGS[mixing])
    batch = batch_of(model)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    if not model.config.is_encoder_decoder:
        ids, mask = padded_left(ids, mask)
    options = dict(max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None)
    kind, options["num_beams"] = ("one_hot", 1) if mixing == "splits" else ("soft", 3)
    routes_BLE = routes_of(kind, model)
    found = model.generate(ids, attention_mask=mask, routes=routes_BLE, **options)
    for i, route_LE in enumerate(routes_BLE):
        source = ids[i][mask[i].bool()][None]
        plain = model.to_plain(route_LE)
        expected = plain.generate(source, attention_mask=torch.ones_like(source), use_cache=False, **options)
        if not model.config.is_encoder_decoder:
            expected = expected[:, source.shape[1] :]
        assert torch.equal(found[i, : expected.shape[1]], expected[0])


# ---- models that cannot have low-rank experts, or that transformers cannot run, are refused


plain = pytest.fixture(scope="module")(plain_models)
FIELDS = dict(num_experts=3, router_input_dim=8, router_mode="softmax", task_names=["a", "b"])


def test_matrices_that_are_no_linear_maps_are_refused_by_name():
    mixture = make_plain("mixtral")
    problem = r"layers\.0\.mlp\..*gate_up_proj \(MixtralExperts, .*other lora_targets"
    with pytest.raises(InputError, match=problem):
        RoutedModel.from_backbone(mixture, **FIELDS, lora_targets="all")
    assert RoutedModel.from_backbone(mixture, **FIELDS, lora_targets="attention").lora_layers
    transposed = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4))
    with pytest.raises(InputError, match=r"transformer\.h\.0\.attn\.c_attn\.weight \(Conv1D"):
        RoutedModel.from_backbone(transposed, **FIELDS)
    quantized = make_plain("qwen2")
    weight = quantized.model.layers[1].self_attn.v_proj.weight
    quantized.model.layers[1].self_attn.v_proj.weight = torch.nn.Parameter(weight.to(torch.int8), False)
    with pytest.raises(InputError, match=r"layers\.1\.self_attn\.v_proj\.weight \(Linear, torch\.int8\)"):
        RoutedModel.from_backbone(quantized, **FIELDS)


def test_a_model_whose_first_dimension_is_not_that_of_the_examples_is_refused():
    sizes = {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    sizes |= dict(vocab_size=96, d_model=16, attention_window=4, max_encoder_position_embeddings=32)
    plain = AutoModelForSeq2SeqLM.from_config(LEDConfig(**sizes))
    model = RoutedModel.from_backbone(plain, **FIELDS)
    ids = torch.randint(3, 96, (3, 8))
    routes_BLE = routes_of("soft", model, 3)
    with pytest.raises(InputError, match="first dimension is that of the examples"):
        model(ids, torch.ones_like(ids), labels=ids[:, :4], routes=routes_BLE)


def test_predictions_that_are_nan_are_refused():
    """In float64, transformers 5.24 gives NaN after padding: the softmax of eager attention is in float32."""
    model = make_routed("gemma2")
    batch, tasks = batch_of(model), model.task_ids(["a"] * 4)
    ids, mask = padded_left(batch["input_ids"], batch["attention_mask"])
    with pytest.raises(InputError, match="NaN after padding at the left: load it in float32"):
        model.generate(ids, attention_mask=mask, task_ids=tasks, max_new_tokens=3)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        *(("gpt2", " (its layers have Conv1D"), ("bert", "; the commands take models of the types bart, t5")),
        *(("gemma3", " (it reads images"), ("marian", " (inputs and answers have different"), ("t5", None)),
    ],
)
def test_other_models_are_refused(kind, why, world, plain, tmp_path, capsys):
    shutil.copytree(plain("t5"), tmp_path / kind)
    path = tmp_path / kind / "config.json"
    fields = json.loads(path.read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    path.write_text(json.dumps(fields | {"model_type": kind}))
    before = contents(tmp_path)
    assert run(world.gym, tmp_path / kind, tmp_path / "run", expert_kind="lora", init_eps=None) == 2
    refused = capsys.readouterr().err
    how = "has weights quantized by gptq; of quantized models, the commands take decoder-only ones in 4 bits"
    assert (f"is a '{kind}' model{why}" if why else how) in refused
    assert contents(tmp_path) == before
