"""The merge between the stages: bit-identical routes, experts of a plain BART, notes and errors."""

import hashlib
import json
import math
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from conftest import tiny_bart_config
from mistakes import assert_problem
from tiny_runs import assert_equal, contents, typed, weights, write_bart
from transformers import AutoTokenizer, BartForConditionalGeneration

from routing_moe import RoutingBartConfig, RoutingBartForConditionalGeneration
from routing_moe.checkpoints.merge_stages import recorded_model
from routing_moe.cli.merge import main
from routing_moe.config.train import train_settings
from routing_moe.model.configuration import MIXTURE_FIELDS
from routing_moe.model.mixtures import with_fresh_experts

ROUTES = ("router.", "task_vectors.")


@pytest.fixture
def merge(with_run, tmp_path):
    """merge(flag=value): the checkpoint merged from the routes of a run of one step and its plain BART."""

    def merge(**changed) -> Path:
        chosen = dict(routes_from=with_run.out, model=with_run.bart, output_dir=tmp_path / "new") | changed
        assert main(typed(chosen)) == 0
        return Path(chosen["output_dir"]) / "init"

    return merge


def routes_of(state: dict) -> dict:
    return {name: tensor for name, tensor in state.items() if name.startswith(ROUTES)}


def experts_of(model) -> list[tuple[str, torch.nn.Module]]:
    """(a layer's name in a plain BART's state dict, expert) for every expert."""
    sides = (("encoder", model.model.encoder.layers), ("decoder", model.model.decoder.layers))
    return [
        (f"model.{side}.layers.{i}.", expert)
        for side, layers in sides
        for i, layer in enumerate(layers)
        for expert in layer.experts
    ]


def assert_experts_are(model, bart: Path) -> None:
    plain = BartForConditionalGeneration.from_pretrained(bart).state_dict()
    experts = experts_of(model)
    assert len(experts) == model.config.num_experts * model.config.num_layers
    for prefix, expert in experts:
        own = {name.removeprefix(prefix): t for name, t in plain.items() if name.startswith(prefix)}
        assert_equal(expert.state_dict(), own)
    assert torch.equal(model.model.shared.weight, plain["model.shared.weight"])
    assert torch.equal(model.final_logits_bias, plain["final_logits_bias"])


# ---- the merged model


def test_the_model_is_that_of_the_run_unless_one_is_given(merge, with_run, tmp_path):
    merged = merge(model=None)
    given = merge(output_dir=tmp_path / "given")
    assert hashes(merged) == hashes(given)
    assert recorded_model(merged) == str(with_run.bart)
    settings = dict(initialize_from_vanilla=False, checkpoint_name="init", checkpoint=None)
    of_stage_2 = {"settings": settings}
    (merged.parent / "run.json").write_text(json.dumps(of_stage_2))
    assert recorded_model(merged.parent / "best") == str(with_run.bart)
    resumed = train_settings({"do_train": True, "resume": True, "output_dir": str(merged.parent)})
    assert resumed.checkpoint_name == "init"
    of_stage_2["settings"]["checkpoint"] = str(merged)
    (tmp_path / "run.json").write_text(json.dumps(of_stage_2))
    assert recorded_model(tmp_path / "best") == str(with_run.bart)
    assert recorded_model(with_run.bart) is None


@pytest.mark.parametrize("routes", ["", "last"])
def test_router_and_task_vectors_are_the_runs_bit_for_bit(routes, merge, with_run, capsys):
    source = with_run.out / (routes or "best")
    merged = merge(routes_from=with_run.out / routes)
    kept = routes_of(weights(merged))
    assert len(kept) > 4
    assert_equal(kept, routes_of(weights(source)))
    for name in ("id2task.json", "task_vecs.npy"):
        assert (merged / name).read_bytes() == (source / name).read_bytes()
    of_run = RoutingBartConfig.from_pretrained(source)
    config = RoutingBartConfig.from_pretrained(merged)
    assert {name: getattr(config, name) for name in MIXTURE_FIELDS} == {
        name: getattr(of_run, name) for name in MIXTURE_FIELDS
    }
    output = capsys.readouterr().out.splitlines()
    assert output[0] == f"router (linear_layer_specific) and task vectors of 4 tasks: from {source}"
    assert output[-1] == f"written to {merged}"
    assert not any(line.startswith("note:") for line in output)


def test_every_expert_is_the_plain_barts_layer(merge, tmp_path):
    bart = write_bart(tmp_path / "other", seed=9)
    generation = json.loads((bart / "generation_config.json").read_text())
    generation |= {"no_repeat_ngram_size": 3, "num_beams": 4, "early_stopping": True}
    (bart / "generation_config.json").write_text(json.dumps(generation))
    model = RoutingBartForConditionalGeneration.from_pretrained(merge(model=bart, init_eps=0))
    assert_experts_are(model, bart)
    assert model.generation_config.no_repeat_ngram_size == 3
    assert model.generation_config.early_stopping is False  # as in all checkpoints


def test_noise_has_the_given_standard_deviation_and_affects_experts_only(merge, with_run):
    model = RoutingBartForConditionalGeneration.from_pretrained(merge(init_eps=0.05))
    plain = BartForConditionalGeneration.from_pretrained(with_run.bart).state_dict()
    noises = [
        (parameter - plain[prefix + name]).flatten()
        for prefix, expert in experts_of(model)
        for name, parameter in expert.named_parameters()
    ]
    noise = torch.cat(noises)
    assert len(noise) > 10_000
    assert math.isclose(noise.std().item(), 0.05, rel_tol=0.05)
    assert abs(noise.mean().item()) < 0.002
    first, second = (expert.state_dict() for _, expert in experts_of(model)[:2])
    assert not any(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(model.model.shared.weight, plain["model.shared.weight"])


def test_the_bart_may_have_another_width_and_tokenizer(merge, with_run, tmp_path):
    wide = write_bart(tmp_path / "wide", d_model=24, encoder_ffn_dim=40, decoder_attention_heads=3)
    tokenizer = AutoTokenizer.from_pretrained(wide)
    tokenizer.add_tokens(["<one_more>"])
    tokenizer.save_pretrained(wide)
    bart = BartForConditionalGeneration.from_pretrained(wide)
    bart.resize_token_embeddings(len(tokenizer))
    bart.save_pretrained(wide)
    merged = merge(model=wide, init_eps=0)
    model = RoutingBartForConditionalGeneration.from_pretrained(merged)
    assert_experts_are(model, wide)
    assert_equal(routes_of(weights(merged)), routes_of(weights(with_run.out / "best")))
    assert len(AutoTokenizer.from_pretrained(merged)) == len(tokenizer)


def test_experts_can_come_from_a_vanilla_checkpoint_or_a_run_with_one_expert(merge, with_run, tmp_path):
    other, dense = write_bart(tmp_path / "other", seed=9), tmp_path / "dense"
    RoutingBartForConditionalGeneration.from_bart(str(other), 1).save_pretrained(dense / "best")
    for vanilla, folder in ((other / "model.safetensors", other), (dense, dense / "best")):
        merged = merge(vanilla_checkpoint=vanilla, init_eps=0, output_dir=tmp_path / f"of_{folder.name}")
        assert_experts_are(RoutingBartForConditionalGeneration.from_pretrained(merged), other)
        made_of = json.loads((merged / "merge.json").read_text())["made_of"]
        assert made_of["vanilla_checkpoint"] == hashes(folder)
        assert made_of["model"] == hashes(with_run.bart)


def test_routes_can_come_from_a_run_of_the_published_code(merge, published_run, tmp_path, capsys):
    bart = write_bart(tmp_path / "deep", decoder_layers=2)
    merged = merge(routes_from=published_run, model=bart, init_eps=0)
    published = RoutingBartForConditionalGeneration.from_upstream(published_run)
    assert_equal(routes_of(weights(merged)), routes_of(published.state_dict()))
    model = RoutingBartForConditionalGeneration.from_pretrained(merged)
    assert_experts_are(model, bart)
    assert model.config.task_names == published.config.task_names
    assert "3 experts in 4 layers" in capsys.readouterr().out


def test_vanilla_layers_stay_vanilla(make_model):
    trained = make_model(encoder_vanilla_layers=[1], decoder_vanilla_layers=[0], dtype=torch.float32)
    bart = BartForConditionalGeneration(tiny_bart_config())
    fresh = with_fresh_experts(trained, bart, init_eps=0.1)
    assert fresh.config.routed_rows == trained.config.routed_rows == [0, 3]
    assert_equal(fresh.model.decoder.layers[0].state_dict(), bart.model.decoder.layers[0].state_dict())


# ---- merge.json


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the weights in a folder, by file name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


def test_a_merged_checkpoint_records_its_inputs(merge, with_run):
    kept = json.loads((merge(init_eps=0.5) / "merge.json").read_text())
    assert kept["made_of"] == {
        "routes": hashes(with_run.out / "best"),
        "model": hashes(with_run.bart),
        "init_eps": 0.5,
        "seed": 42,
    }
    assert kept["settings"]["routes_from"] == str(with_run.out)
    # The wheels of torch differ: for some, torch.__version__ also has the CUDA version.
    assert kept["versions"]["torch"] == version("torch")
    assert kept["command"].startswith("routing-moe merge --routes_from")


def test_a_merge_with_a_hub_name_records_its_commit_and_weights(merge, with_run, hub_client):
    commit = hub_client.publish("facebook/bart-base", with_run.bart)
    kept = json.loads((merge(model="facebook/bart-base") / "merge.json").read_text())
    assert kept["hub"] == {"facebook/bart-base": commit}
    assert kept["made_of"]["model"] == hashes(with_run.bart)


# ---- an existing checkpoint


def test_an_existing_checkpoint_is_kept_if_its_inputs_are_the_same(merge, tmp_path, capsys):
    merged = merge()
    before = contents(merged.parent)
    capsys.readouterr()
    settings = json.loads((merged / "merge.json").read_text())["settings"]
    flags = typed({name: settings[name] for name in ("routes_from", "model", "output_dir")})
    assert main([*flags, "--keep_existing"]) == 0
    assert f"{merged} exists already, made from the same sources" in capsys.readouterr().out
    other = write_bart(tmp_path / "other", seed=9)
    for different in (["--model", str(other), "--init_eps", "0"], ["--vanilla_checkpoint", str(other)]):
        assert main([*flags, "--keep_existing", *different]) == 2
    output = capsys.readouterr().err.splitlines()
    assert_problem(output, f"--keep_existing: {merged} was made from other sources (model, init_eps);")
    assert_problem(output, f"{merged} was made from other sources (vanilla_checkpoint); delete it")
    assert contents(merged.parent) == before
