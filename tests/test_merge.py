"""The merge between the stages and stage 2: bit-identical routes, experts of a plain BART, notes, errors."""

import csv
import hashlib
import json
import math
import shutil
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import draw_nothing, tiny_bart_config
from mistakes import assert_problem
from safetensors.torch import save_file
from tiny_runs import assert_equal, contents, flags, typed, weights, write_bart
from transformers import AutoTokenizer, BartForConditionalGeneration

from routing_moe import RoutingBartConfig, RoutingBartForConditionalGeneration
from routing_moe.analysis.saved_routes import best_step
from routing_moe.checkpoints.merge_stages import recorded_model
from routing_moe.cli.merge import main
from routing_moe.cli.train import main as train
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
    words = typed({name: settings[name] for name in ("routes_from", "model", "output_dir")})
    assert main([*words, "--keep_existing"]) == 0
    assert f"{merged} exists already, made from the same sources" in capsys.readouterr().out
    other = write_bart(tmp_path / "other", seed=9)
    for different in (["--model", str(other), "--init_eps", "0"], ["--vanilla_checkpoint", str(other)]):
        assert main([*words, "--keep_existing", *different]) == 2
    output = capsys.readouterr().err.splitlines()
    assert_problem(output, f"--keep_existing: {merged} was made from other sources (model, init_eps);")
    assert_problem(output, f"{merged} was made from other sources (vanilla_checkpoint); delete it")
    assert contents(merged.parent) == before


# ---- stage 2: learned routes stay constant and new experts are trained

OF_A_NEW_MODEL = ("initialize_from_vanilla", "model", "init_eps")
OF_ITS_SIZE = ("num_experts", "taskvecs_dim", "router_hidden_dim")
STAGE_2 = dict.fromkeys(OF_A_NEW_MODEL + OF_ITS_SIZE) | dict(checkpoint_name="init", router_mode="softmax")
STAGE_2 |= dict(router_lr=0, task_model_lr=0, initial_tau=300, minimum_tau=1)


@pytest.fixture(scope="module")
def two_stages(originals, tmp_path_factory):
    """A folder with stage 1 (routes changed to nearly one-hot, as after long training), merge and stage 2."""
    folder = tmp_path_factory.mktemp("stages")
    stage_1 = Path(shutil.copytree(originals.out, folder / "stage1"))
    state = weights(stage_1 / "best")
    for name in state:
        if name.startswith("router."):
            state[name] = state[name] + torch.randn(state[name].shape, generator=torch.manual_seed(1))
    save_file(state, stage_1 / "best/model.safetensors", {"format": "pt"})
    out = folder / "run"
    assert main([f"--routes_from={stage_1}", f"--model={originals.bart}", f"--output_dir={out}"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("routing_moe.training.trainer.LOG_EVERY", 1)
        draw_nothing(patch)
        chosen = STAGE_2 | dict(total_steps=20, anneal_rate=6 / 20, eval_period=20)
        assert train(flags(originals.gym, originals.bart, out, **chosen)) == 0
    return folder


def test_stage_2_keeps_the_routes_bit_for_bit_and_trains_the_experts(two_stages):
    learned, start, end = (weights(two_stages / place) for place in ("stage1/best", "run/init", "run/last"))
    for state in (start, end):
        kept = {name: t for name, t in state.items() if name.startswith(("router.", "task_vectors."))}
        assert_equal(kept, {name: learned[name] for name in kept})
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    experts = {name for name in start if ".experts." in name}
    assert experts
    # Biases of keys do not affect the output: attention is the same for all of them.
    assert {name for name in experts if "k_proj.bias" not in name} <= moved


@pytest.mark.parametrize(("select_best", "step"), [(None, 3), ("all", 1)])
def test_stage_2_selects_at_its_last_temperature(
    two_stages, originals, monkeypatch, tmp_path, select_best, step
):
    """Three steps, each evaluated; scores fall, the last one is at temperature 1."""
    scores = iter([0.9, 0.8, 0.7])
    monkeypatch.setattr(
        "routing_moe.training.trainer.mean_score",
        lambda _, name: next(scores) if name == "performance" else 0,
    )
    draw_nothing(monkeypatch)
    out = tmp_path / "run"
    shutil.copytree(two_stages / "run/init", out / "init")
    chosen = STAGE_2 | dict(total_steps=3, anneal_rate=2, eval_period=1, select_best=select_best)
    assert train(flags(originals.gym, originals.bart, out, **chosen)) == 0
    selected = json.loads((out / "best/checkpoint.json").read_text())
    assert selected["step"] == step
    assert selected["temperature"] == 1 or select_best
    assert best_step(out, [1, 2, 3]) == step


def test_scores_name_step_and_temperature_of_their_checkpoint(two_stages, originals):
    chosen = STAGE_2 | dict(do_train=None, do_predict=True, checkpoint_name="best")
    assert train(flags(originals.gym, originals.bart, two_stages / "run", **chosen)) == 0
    for part in ("dev", "test"):
        scores = pd.read_csv(two_stages / f"run/best/eval-{part}-performance.csv")
        assert scores["step"].unique().tolist() == [20]
        assert scores["temperature"].unique().tolist() == [1.0]


def test_stage_2_anneals_from_average_to_learned_routes(two_stages):
    with (two_stages / "run/curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    temperatures = [float(row["temperature"]) for row in rows]
    assert temperatures[0] == pytest.approx(300 * math.exp(-0.3))
    assert temperatures[-1] == 1.0
    entropies = [float(row["route_entropy"]) for row in rows]
    assert entropies[0] == pytest.approx(math.log(2), abs=1e-3)
    assert entropies[-1] < 0.9 * math.log(2)
    assert entropies[0] > entropies[14] > entropies[-1]
    log = (two_stages / "run/log.txt").read_text()
    assert f"temperature: 0% 300, 25% {temperatures[4]:.4g}, 50% {temperatures[9]:.4g}, " in log
