"""One BART of several models or of a mixture: their mean, mergers of peft, and a merger as a plug-in."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from test_assemble import batch_of, logits_of
from test_task_routes import FIXED, ONLY
from tiny_backbones import make_differ
from tiny_grids import ONE_EXPERT
from tiny_runs import NO_LEARNING, ROOT, TRAIN_TASKS, run, typed, weights, write_bart
from transformers import AutoTokenizer, BartForConditionalGeneration

from routing_moe import RoutedModel, RoutingBartForConditionalGeneration
from routing_moe.checkpoints.assemble import plain_of_merged_factors
from routing_moe.checkpoints.find import find_model
from routing_moe.cli.average import main
from routing_moe.config.choices import MERGERS
from routing_moe.config.plugins import REGISTRIES
from routing_moe.finetuning.starting_model import along_route
from routing_moe.model.mergers import merged

pytestmark = pytest.mark.usefixtures("no_gpu", "quick_pictures")
GUIDE = (ROOT / "docs/extending.md").read_text()
NAMES_OF_GUIDE = ("dot", "floored_softmax", "by_number", "same-length", "extreme", "bits_per_byte")
PLUGIN = re.search(r"```python\n(# my_routing.py\n.*?)```", GUIDE, re.DOTALL)[1]


def averaged(place, *runs, **changed):
    """Returns the model of the mean of runs, and its folder."""
    assert main(typed(dict(runs=list(runs), output_dir=place / "mean") | changed)) == 0
    return RoutingBartForConditionalGeneration.from_pretrained(place / "mean"), place / "mean"


def by_peft(merger: str, differences: list, scale: float, density: float) -> torch.Tensor:
    """What peft makes of differences, with the random numbers of seed 42."""
    peft = pytest.importorskip("peft.utils.merge_utils", reason="peft is an extra: pip install .[peft]")
    function = getattr(peft, "dare_linear" if merger == "dare" else merger)
    torch.manual_seed(42)
    more = {} if merger == "task_arithmetic" else dict(density=density)
    return function(differences, torch.full((len(differences),), scale), **more)


@pytest.fixture(scope="module")
def barts(world, tmp_path_factory):
    """Folders of plain BARTs of the size of `world.bart`."""
    folder = tmp_path_factory.mktemp("plain")
    return [write_bart(folder / str(seed), seed) for seed in (1, 2, 3)]


def write_mixture(folder, bart, kind: str, **fields):
    """Writes a mixture of three experts, whose embeddings are not those of the base."""
    fields |= dict(num_experts=3, route_source="average")
    torch.manual_seed(4)
    if kind == "layer":
        fields |= dict(init_eps=0.1, encoder_vanilla_layers=[1])
        model = RoutingBartForConditionalGeneration.from_bart(bart, **fields)
    else:
        model = RoutedModel.from_backbone(bart, lora_rank=2, **fields)
        make_differ(model)
    model.get_input_embeddings().weight.data += 1
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(bart).save_pretrained(folder)
    return folder


def weights_of(place) -> dict[str, torch.Tensor]:
    model = BartForConditionalGeneration.from_pretrained(place)
    return {name: tensor.detach() for name, tensor in model.named_parameters()}


# ---- the mean


@pytest.fixture(scope="module")
def dense(world):
    """Two runs of one expert with other seeds."""
    seeds = {"average/one": 42, "average/other": 43}
    flags = ONE_EXPERT | dict(learning_rate=0.01)
    return [world.run(name, **flags, seed=seed) for name, seed in seeds.items()]


def test_the_mean_of_runs_is_trained_further_and_costs_what_they_cost(dense, world, tmp_path, capsys):
    model, folder = averaged(tmp_path, *dense)
    barts = [find_model(place).load().to_bart() for place in dense]
    for name, tensor in model.to_bart().state_dict().items():
        expected = torch.stack([bart.state_dict()[name] for bart in barts]).mean(dim=0)
        torch.testing.assert_close(tensor, expected)
    assert not torch.equal(*(bart.model.shared.weight for bart in barts))
    assert f"mean of 2 models written to {folder}" in capsys.readouterr().out
    assert model.config.task_names == model.config.trained_tasks == TRAIN_TASKS
    assert model.config.text_settings == find_model(dense[0]).config.text_settings
    start = ONE_EXPERT | NO_LEARNING | dict(vanilla_checkpoint=folder)
    further = tmp_path / "further"
    assert run(world.gym, world.bart, further, **start) == 0
    assert all(torch.equal(t, weights(folder)[name]) for name, t in weights(further / "best").items())
    assert f"no cost.json with {folder}" in json.loads((further / "cost.json").read_text())["start_unknown"]
    assert run(world.gym, world.bart, tmp_path / "scored", **ONLY, checkpoint=folder) == 0
    assert list(tmp_path.glob("scored/*/eval-test_tasks-test-performance.csv"))


@pytest.mark.parametrize("kind", ["layer", "lora"])
def test_a_mixture_counts_as_the_mean_of_its_experts_as_in_fine_tuning(kind, world, tmp_path):
    flags = dict(expert_kind=kind, task_level_random_routing=True, num_experts=3, total_steps=1)
    flags |= dict(lora_rank=2) if kind == "lora" else {}
    mixture = world.run(f"average/{kind}", **FIXED | flags)
    model, _ = averaged(tmp_path, mixture)
    if kind == "layer":
        saved, own = weights(mixture / "best"), model.to_bart().state_dict()
        for name in ("encoder.layers.0.{}fc1.weight", "decoder.layers.0.{}self_attn.k_proj.bias"):
            experts = [saved["model." + name.format(f"experts.{e}.")] for e in range(3)]
            torch.testing.assert_close(own["model." + name.format("")], torch.stack(experts).mean(0))
            assert not torch.equal(experts[0], experts[1])

    class Flags:
        chosen_source, route_training, task = "average", "merged", "colour"

    start, words = along_route(find_model(mixture).load(), Flags, None)
    assert words == "average; merged plain model"
    inputs = batch_of(world.bart)
    torch.testing.assert_close(logits_of(model, inputs), logits_of(start, inputs))


# ---- mergers


@pytest.mark.parametrize("merger", [name for name in MERGERS if name != "mean"])
def test_mergers_are_those_of_peft(merger):
    states, base = torch.randn(3, 4, 5).unbind(), torch.randn(4, 5)
    expected = base + by_peft(merger, [state - base for state in states], 0.7, 0.3)
    how = dict(scale=0.7, density=0.3, generator=torch.Generator().manual_seed(42))
    found = merged([{"w": state} for state in states], {"w": base}, merger, **how)["w"]
    torch.testing.assert_close(found, expected)


def test_differences_from_a_base_of_low_precision_have_the_precision_of_the_models():
    base, difference = torch.ones(3, dtype=torch.bfloat16), torch.tensor([1e-4, 2e-4, -3e-4])
    found = merged([{"w": base + difference}], {"w": base}, "task_arithmetic", density=1.0, generator=None)
    torch.testing.assert_close(found["w"], base + difference, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("trim", "a", "b"), [("model", [3.0, 5.0], [0.0, 0.0]), ("tensor", [4.0, 5.0], [0.0, 1.0])]
)
def test_ties_keeps_the_largest_that_agree_of_the_model_or_of_each_tensor(trim, a, b):
    states = [{"a": torch.tensor([4.0, -3.0]), "b": torch.tensor([0.1, -0.2])}]
    states += [{"a": torch.tensor([2.0, 5.0]), "b": torch.tensor([-0.4, 1.0])}]
    found = merged(states, {"a": torch.zeros(2), "b": torch.zeros(2)}, "ties", trim=trim, density=0.5)
    torch.testing.assert_close(found, {"a": torch.tensor(a), "b": torch.tensor(b)})


@pytest.mark.parametrize(("merger", "trim"), [("ties", "model"), ("ties", "tensor"), ("dare", "model")])
def test_runs_are_merged_as_peft_merges_their_differences(merger, trim, barts, world, tmp_path):
    flags = dict(merger=merger, base=str(world.bart), scale=0.5, density=0.3, trim=trim, seed=42)
    model, folder = averaged(tmp_path, *barts, **flags)
    plain, base, *states = model.to_bart(), *map(weights_of, (world.bart, *barts))
    for names in [list(base)] if trim == "model" else [[name] for name in base]:
        start, *vectors = (torch.cat([s[name].flatten() for name in names]) for s in (base, *states))
        expected = start + by_peft(merger, [vector - start for vector in vectors], 0.5, 0.3)
        found = torch.cat([plain.get_parameter(name).flatten() for name in names])
        torch.testing.assert_close(found, expected)
    kept = json.loads((folder / "averaged.json").read_text())
    assert kept["settings"].items() >= flags.items()
    assert kept["command"].startswith("routing-moe average ")
    assert list(kept["made_of"]) == [*map(str, barts), "--base"]


def test_the_layers_of_a_mixture_are_merged_and_what_they_share_stays(world, tmp_path):
    folder, base = write_mixture(tmp_path / "mixture", world.bart, "layer"), weights_of(world.bart)
    model, _ = averaged(tmp_path, folder, merger="task_arithmetic", base=world.bart, scale=0.5)
    saved = RoutingBartForConditionalGeneration.from_pretrained(folder).state_dict()
    for name, tensor in model.to_bart().named_parameters():
        own = [re.sub(r"layers\.\d+\.", rf"\g<0>experts.{e}.", name) for e in range(3)]
        is_expert = own[0] in saved and own[0] != name
        summed = sum(saved[expert] - base[name] for expert in own) if is_expert else None
        torch.testing.assert_close(tensor, base[name] + 0.5 * summed if is_expert else saved[name])


@pytest.mark.parametrize(
    ("flags", "combination"),
    [
        (dict(merger="ties", density=0.4), dict(combination_type="ties_svd", svd_rank=24, density=0.4)),
        (dict(merger="ties", density=0.4, lora_parts="factors"), dict(combination_type="ties", density=0.4)),
        (dict(merger="task_arithmetic", lora_parts="factors"), dict(combination_type="linear")),
    ],
)
def test_low_rank_experts_are_merged_as_peft_merges_adapters(flags, combination, world, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is an extra: pip install .[peft]")
    folder = write_mixture(tmp_path / "mixture", world.bart, "lora")
    model, _ = averaged(tmp_path, folder, trim="tensor", **flags)
    routed = RoutedModel.from_pretrained(folder)
    for e, name in enumerate("abc"):
        routed.to_adapter(torch.eye(3)[e].expand(3, 3), tmp_path / name, "base")
    plain = routed.to_plain(torch.zeros(3, 3))
    adapted = peft.PeftModel.from_pretrained(plain, tmp_path / "a", adapter_name="a")
    for name in "bc":
        adapted.load_adapter(tmp_path / name, name)
    adapted.add_weighted_adapter(list("abc"), [1.0] * 3, "merged", **combination)
    expected = adapted.merge_and_unload(adapter_names=["merged"])
    for name, tensor in model.to_bart().named_parameters():
        torch.testing.assert_close(tensor, expected.get_parameter(name), rtol=1e-4, atol=1e-5)


def test_a_mean_is_of_products_also_if_routes_mix_factors(world, tmp_path):
    both = {}
    for mixing in ("products", "factors"):
        folder = write_mixture(tmp_path / mixing, world.bart, "lora", lora_mixing=mixing)
        both[mixing] = averaged(tmp_path / f"mean_{mixing}", folder)[0].state_dict()
    torch.testing.assert_close(both["factors"], both["products"])


def test_factors_are_merged_in_float32_over_a_base_of_16_bits(world, tmp_path):
    routed = RoutedModel.from_pretrained(write_mixture(tmp_path / "mixture", world.bart, "lora"))
    for name, tensor in routed.backbone.named_parameters():
        tensor.data = tensor.data if "lora_" in name else tensor.data.bfloat16()
    before = {name: tensor.float() for name, tensor in routed.to_plain(torch.zeros(3, 3)).named_parameters()}
    plain = plain_of_merged_factors(routed, lambda states, start: states[0])
    short, linear = next(iter(routed.lora_layers[0].linear_maps.items()))
    update = linear.scale * linear.lora_B[0].T @ linear.lora_A[0]
    name = f"{routed.lora_layers[0].name}.{short}.weight"
    torch.testing.assert_close(plain.get_parameter(name) - before[name], update, rtol=1e-4, atol=1e-6)


def test_rows_of_a_factor_that_an_expert_does_not_use_are_no_part_of_the_merged_one(world, tmp_path):
    routed = RoutedModel.from_pretrained(write_mixture(tmp_path / "mixture", world.bart, "lora"))
    linear = next(iter(routed.lora_layers[0].linear_maps.values()))
    linear.lora_B.data[1, 0] = 0  # as of an adapter of lower rank, whose A is random there
    expected = linear.lora_A[0, 0].clone() + linear.lora_A[2, 0]
    found = {}

    def summed(states, start):
        found.update({name: sum(state[name] for state in states) for name in start})
        return found

    plain_of_merged_factors(routed, summed)
    name = next(name for name, p in routed.named_parameters() if p is linear.lora_A)
    torch.testing.assert_close(found[name][0], expected)


def test_the_merger_of_the_guide_is_a_plugin(barts, world, tmp_path, monkeypatch):
    (tmp_path / "my_merger.py").write_text(PLUGIN)
    for registry in REGISTRIES.values():  # as they are now after the test
        for name in NAMES_OF_GUIDE:
            monkeypatch.setitem(registry, name, None)
            del registry[name]
    flags = dict(plugin=tmp_path / "my_merger.py", merger="extreme", base=world.bart)
    model, _ = averaged(tmp_path, *barts, **flags)
    base, *states = map(weights_of, (world.bart, *barts))
    for name, tensor in model.to_bart().named_parameters():
        differences = torch.stack([state[name] - base[name] for state in states])
        torch.testing.assert_close((tensor - base[name]).abs(), differences.abs().amax(dim=0))


def test_contradictions_and_models_that_have_no_mean_are_one_error_each(barts, world, tmp_path, capsys):
    base, narrow = world.bart, write_bart(tmp_path / "narrow", decoder_ffn_dim=8)
    lora, sums = write_mixture(tmp_path / "lora", base, "lora"), dict(merger="task_arithmetic")
    given = f"--base {base}: --merger"
    other = Path(shutil.copytree(base, tmp_path / "other"))
    tokens = json.loads((other / "tokenizer.json").read_text())
    words = tokens["model"]["vocab"]
    words |= dict(zip(words, [*words.values()][::-1], strict=True))
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    for flags, problem in (
        (dict(runs=[base, narrow]), f"--runs {narrow} has decoder_ffn_dim 8; {base} has "),
        (dict(runs=[base, other]), f"--runs {other} has another vocabulary than {base}"),
        (dict(runs=[base, f"{base}/"]), "--runs names a model twice"),
        (dict(runs=[base, "nowhere/none/x"]), "--runs nowhere/none/x: not found"),
        (dict(output_dir=base), f"--output_dir {base} exists already"),
        (dict(base=base), f"{given} mean takes none"),
        (dict(density=0.2), "--density 0.2: --merger mean takes none"),
        (dict(merger="ties", density=0.2), "--merger ties needs --base"),
        (dict(merger="dare", base=base), "--merger dare needs --density"),
        (dict(merger="dare", base=base, density=0), "--density is 0.0; it must be greater than 0 and at"),
        (sums | dict(base=narrow), f"--base {narrow} has decoder_ffn_dim 8; {barts[0]} has 24"),
        (sums | dict(base=lora), f"--base {lora} is a mixture of 3 experts; give a plain model"),
        (dict(runs=barts[:1]), f"--runs {barts[0]} is one plain model; name several, or a mixture"),
        (dict(lora_parts="factors"), "--lora_parts factors: --merger mean takes none"),
        (sums | dict(runs=[lora], base=base), f"{given} task_arithmetic of low-rank experts takes none"),
    ):
        assert main(typed(dict(runs=barts, output_dir=tmp_path / "none") | flags)) == 2
        assert f"error: {problem}" in capsys.readouterr().err
        assert not (tmp_path / "none").exists()
