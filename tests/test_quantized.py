"""Low-rank experts on a base in 4 bits of bitsandbytes: as on its dequantized weights, without merging."""

import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_backbones import LORA, batch_of, make_differ, plain_models, routes_of
from tiny_grids import QUICK, Grids
from tiny_runs import run, typed, weights
from tiny_vectors import run as compute_vectors
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from dataloader.errors import InputError
from routing_moe import Routed, RoutedModel
from routing_moe.cli.average import main as average
from routing_moe.cli.export import main as export

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install -e '.[quantized]'")
pytestmark = pytest.mark.usefixtures("quick_pictures")
plain = pytest.fixture(scope="module")(plain_models)
FIELDS = dict(num_experts=3, lora_targets="all", route_source="average", task_names=["a"])


@pytest.fixture(scope="module")
def base(plain) -> Path:
    """The folder of a Llama in 4 bits, with its tokenizer."""
    folder = Path(shutil.copytree(plain("llama"), plain("llama").with_name("llama_4bit")))
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    AutoModelForCausalLM.from_pretrained(folder, quantization_config=how).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(world, base) -> Path:
    """A run with soft routes on that base."""
    return world.run("quantized", bart=base, **LORA, router_mode="softmax", do_predict=True)


def test_logits_and_gradients_are_those_of_dequantized_weights_also_after_an_evaluation(base):
    slow = RoutedModel.from_backbone(AutoModelForCausalLM.from_pretrained(base).dequantize(), **FIELDS)
    make_differ(slow)
    fast = RoutedModel.from_backbone(base, **FIELDS)
    fast.load_state_dict({n: p for n, p in slow.state_dict().items() if "lora" in n}, strict=False)
    batch, found = batch_of(slow), []
    routes_BLE = routes_of("soft", slow).float().requires_grad_()
    for model in (fast, slow):
        with torch.no_grad():
            logits = model.eval()(**batch, routes=routes_BLE).logits
        experts = [p for p in model.train().parameters() if p.requires_grad]
        loss = model(**batch, routes=routes_BLE).loss
        found.append([logits, loss, *torch.autograd.grad(loss, [routes_BLE, *experts])])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_a_run_refers_to_its_base_and_its_adapters_are_those_of_peft_on_that_base(trained, base, tmp_path):
    assert not any("embed_tokens" in name or "absmax" in name for name in weights(trained / "best"))
    routed = Routed.load(trained)
    assert routed.model.backbone.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
    flags = dict(checkpoint=trained, task="colour", output_dir=tmp_path / "a") | {"as": "adapter"}
    assert export(typed(flags)) == 0
    own = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    own = PeftModel.from_pretrained(own, tmp_path / "a").train()  # some CPUs evaluate in bfloat16
    batch, route_LE = batch_of(routed.model), routed.route_of(routed.task("colour"))
    expected = routed.model(**batch, routes=route_LE.expand(4, -1, -1)).logits
    torch.testing.assert_close(own(**batch).logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["fixed", "logits", "vector"])
def test_few_shot_tuning_that_merges_no_route_trains_experts_or_the_route(how, trained, world):
    flags = dict(moe_init=True, init_dir=trained, route_training=how, task_vector="learned", vector_steps=1)
    flags |= QUICK | dict(learning_rate_list=[0.03], max_input_length=None, max_output_length=None)
    (file,) = Grids(world, "quantized").run(how, **flags, save_best=True).glob("models/*/model.safetensors")
    assert Routed.load(file.parent).answer("naming", ["sky"])
    tuned, before = weights(file.parent), weights(trained / "best")
    same = [torch.equal(tuned[name], tensor) for name, tensor in before.items() if "lora_B" in name]
    assert all(same) == (how == "logits")


def test_what_needs_the_weights_in_full_is_refused(trained, base, world, tmp_path, capsys):
    of_route, of_models = dict(checkpoint=trained, task="colour", argmax=True), dict(runs=[base, trained])
    for command, flags in ((export, of_route), (average, of_models)):
        assert command(typed(flags | dict(output_dir=tmp_path / "out"))) == 2
        assert "no route can be merged with it; export --as adapter" in capsys.readouterr().err
    for flags in (dict(LORA, base_lr=0.1), dict(num_experts=1, init_eps=None)):
        assert run(world.gym, base, tmp_path / "out", **flags) == 2
        assert "quantized weights: train low-rank experts (--expert_kind lora)" in capsys.readouterr().err
    assert compute_vectors("text", world.gym, base, tmp_path / "text", max_input_length=40) == 0
    assert compute_vectors("fisher", world.gym, base, tmp_path / "out") == 2
    assert "fisher vectors need those of a model in full" in capsys.readouterr().err
    model = RoutedModel.from_backbone(AutoModelForCausalLM.from_pretrained(base), **FIELDS)
    with pytest.raises(InputError, match="save the plain model, and make the mixture from its folder"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "out").exists()
