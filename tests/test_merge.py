"""The merge between the stages: routes bit for bit, experts of a plain BART, and each mistake told."""

import hashlib
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from conftest import tiny_bart_config
from mistakes import Place, assert_told
from safetensors.torch import save_file
from tiny_runs import assert_equal, contents, weights, write_bart
from transformers import AutoTokenizer, BartForConditionalGeneration, T5Config

from routing_moe import RoutingBartConfig, RoutingBartForConditionalGeneration, select_routes
from routing_moe.cli.merge import main
from routing_moe.merging import weight_files
from routing_moe.routers import ROUTERS
from routing_moe.upcycling import with_fresh_experts

ROUTES = ("router.", "task_vectors.")


def typed(flags: dict) -> list[str]:
    return [part for name, value in flags.items() if value is not None for part in (f"--{name}", str(value))]


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


# ---- what is merged


@pytest.mark.parametrize("routes", ["", "best", "last"])
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
    assert {name: getattr(config, name) for name in RoutingBartConfig.__annotations__} == {
        name: getattr(of_run, name) for name in RoutingBartConfig.__annotations__
    }
    told = capsys.readouterr().out.splitlines()
    tensors = sum(name.startswith("router.") for name in kept)
    assert told[0] == (
        f"router (linear_layer_specific, {tensors} tensors) and 4 task vectors of width 8: from {source}"
    )
    assert told[1] == (
        f"2 experts in each of 2+1 layers, embeddings: from {with_run.bart}, noise 1e-08 (seed 42)"
    )
    assert told[-1] == f"written to {merged}"
    assert not any(line.startswith("note:") for line in told)


def test_another_checkpoint_of_a_run_is_named(merge, with_run):
    (with_run.out / "best").rename(with_run.out / "5-steps")
    merged = merge(routes_checkpoint_name="5-steps")
    assert_equal(routes_of(weights(merged)), routes_of(weights(with_run.out / "5-steps")))


def test_every_expert_is_the_plain_barts_layer(merge, tmp_path):
    bart = write_bart(tmp_path / "other", seed=9)
    generation = json.loads((bart / "generation_config.json").read_text()) | {"no_repeat_ngram_size": 3}
    (bart / "generation_config.json").write_text(json.dumps(generation))
    model = RoutingBartForConditionalGeneration.from_pretrained(merge(model=bart, init_eps=0))
    assert_experts_are(model, bart)
    assert model.generation_config.no_repeat_ngram_size == 3


def test_any_route_gives_the_plain_barts_output(merge, with_run, batch):
    model = RoutingBartForConditionalGeneration.from_pretrained(merge(init_eps=0)).eval()
    plain = BartForConditionalGeneration.from_pretrained(with_run.bart).eval()
    expected = plain(**batch).logits
    logits_BLE = 50 * torch.randn(4, 3, 2)  # a router that is very sure
    for routes in (
        torch.full((4, 3, 2), 0.5),
        select_routes(logits_BLE, "softmax", 300.0),
        select_routes(logits_BLE, "softmax", 1.0),
        torch.nn.functional.one_hot(torch.randint(2, (4, 3)), 2).float(),
    ):
        torch.testing.assert_close(model(**batch, routes=routes).logits, expected, rtol=0, atol=1e-5)


def test_noise_has_the_standard_deviation_asked_for_and_only_experts_have_it(merge, with_run):
    model = RoutingBartForConditionalGeneration.from_pretrained(merge(init_eps=0.05))
    plain = BartForConditionalGeneration.from_pretrained(with_run.bart).state_dict()
    noise = torch.cat(
        [
            (parameter - plain[prefix + name]).flatten()
            for prefix, expert in experts_of(model)
            for name, parameter in expert.named_parameters()
        ]
    )
    assert len(noise) > 10_000
    assert math.isclose(noise.std().item(), 0.05, rel_tol=0.05)
    assert abs(noise.mean().item()) < 0.002
    first, second = (expert.state_dict() for _, expert in experts_of(model)[:2])
    assert not any(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(model.model.shared.weight, plain["model.shared.weight"])


def test_the_seed_decides_the_noise(merge, tmp_path):
    one, same, other = (
        weights(merge(init_eps=0.1, seed=seed, output_dir=tmp_path / place))
        for place, seed in (("one", 1), ("same", 1), ("other", 2))
    )
    assert_equal(one, same)
    different = {name for name in one if not torch.equal(one[name], other[name])}
    assert different == {name for name in one if ".experts." in name}


def test_the_bart_may_have_another_width_and_other_texts(merge, with_run, tmp_path, capsys):
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
    told = capsys.readouterr().out
    assert f"note: {with_run.out}/best has another tokenizer ({len(tokenizer) - 1} tokens)" in told


def test_experts_of_other_weights_than_the_models(merge, with_run, tmp_path):
    other = write_bart(tmp_path / "other", seed=9)
    merged = merge(vanilla_checkpoint=other / "model.safetensors", init_eps=0)
    assert_experts_are(RoutingBartForConditionalGeneration.from_pretrained(merged), other)
    made_of = json.loads((merged / "merge.json").read_text())["made_of"]
    assert made_of["vanilla_checkpoint"] == hashes(other)
    assert made_of["model"] == hashes(with_run.bart)


def test_a_run_of_the_published_code(merge, reference, tmp_path, capsys):
    bart = write_bart(tmp_path / "deep", decoder_layers=2)
    merged = merge(routes_from=reference / "checkpoint", model=bart, init_eps=0)
    published = RoutingBartForConditionalGeneration.from_upstream(reference / "checkpoint")
    assert_equal(routes_of(weights(merged)), routes_of(published.state_dict()))
    model = RoutingBartForConditionalGeneration.from_pretrained(merged)
    assert_experts_are(model, bart)
    assert model.config.task_names == published.config.task_names
    assert "3 experts in each of 2+2 layers" in capsys.readouterr().out


@pytest.mark.parametrize("router", ROUTERS)
def test_every_router_is_kept(router):
    fields = dict(router_nn_type=router, router_input_dim=8, router_hidden_dim=4, task_names=["a", "b"])
    cls = RoutingBartForConditionalGeneration
    trained = cls.from_bart(BartForConditionalGeneration(tiny_bart_config()), 3, **fields).eval()
    wide = BartForConditionalGeneration(tiny_bart_config(d_model=24, encoder_ffn_dim=8))
    fresh = with_fresh_experts(trained, wide, init_eps=0).eval()
    assert torch.equal(fresh.routes_for(["b", "a"], "softmax"), trained.routes_for(["b", "a"], "softmax"))


def test_vanilla_layers_stay_vanilla(make_model):
    trained = make_model(encoder_vanilla_layers=[1], decoder_vanilla_layers=[0], dtype=torch.float32)
    bart = BartForConditionalGeneration(tiny_bart_config())
    fresh = with_fresh_experts(trained, bart, init_eps=0.1)
    assert fresh.config.routed_rows == trained.config.routed_rows == [0, 3]
    assert_equal(fresh.model.decoder.layers[0].state_dict(), bart.model.decoder.layers[0].state_dict())


# ---- what is kept of it


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the weights in a folder, by file name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


def test_what_a_checkpoint_was_made_of_is_kept_with_it(merge, with_run):
    kept = json.loads((merge(init_eps=0.5) / "merge.json").read_text())
    assert kept["made_of"] == {
        "routes": hashes(with_run.out / "best"),
        "model": hashes(with_run.bart),
        "init_eps": 0.5,
        "seed": 42,
    }
    assert kept["settings"]["routes_from"] == str(with_run.out)
    assert kept["versions"]["torch"] == torch.__version__
    assert kept["command"].startswith("python -m routing_moe.cli.merge --routes_from")


def test_the_weights_of_a_hub_name_are_found_in_the_cache(monkeypatch, with_run):
    cached = {"facebook/bart-base": str(with_run.bart / "config.json")}
    monkeypatch.setattr("routing_moe.merging.try_to_load_from_cache", lambda name, _: cached.get(name))
    assert weight_files("facebook/bart-base") == [with_run.bart / "model.safetensors"]
    assert weight_files("facebook/bart-large") == []


def test_a_full_disk_leaves_nothing_behind(monkeypatch, with_run, tmp_path, capsys):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RoutingBartForConditionalGeneration, "save_pretrained", full)
    chosen = dict(routes_from=with_run.out, model=with_run.bart, output_dir=tmp_path / "new")
    assert main(typed(chosen)) == 1
    told = capsys.readouterr()
    assert "No space left on device; nothing was written" in told.err
    assert "written to" not in told.out
    assert contents(tmp_path / "new") == {}


def test_routes_merged_into_a_folder_that_holds_a_run_are_remarked_on(merge, with_run, capsys):
    merged = merge(output_dir=with_run.out)
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == (
        f"note: {with_run.out} holds a run already; train stage 2 in a folder of its own, with "
        f"--checkpoint {merged}"
    )


# ---- an existing checkpoint


def test_an_existing_checkpoint_is_kept_if_made_of_the_same(merge, tmp_path, capsys):
    merged = merge()
    before = contents(merged.parent)
    capsys.readouterr()
    settings = json.loads((merged / "merge.json").read_text())["settings"]
    flags = typed({name: settings[name] for name in ("routes_from", "model", "output_dir")})
    assert main([*flags, "--keep_existing"]) == 0
    assert f"{merged} is there already, made of the same" in capsys.readouterr().out
    other = write_bart(tmp_path / "other", seed=9)
    for different in (["--model", str(other), "--init_eps", "0"], ["--vanilla_checkpoint", str(other)]):
        assert main([*flags, "--keep_existing", *different]) == 2
    told = capsys.readouterr().err.splitlines()
    assert_told(told, f"--keep_existing: {merged} was not made of the same (model, init_eps); delete it")
    assert_told(told, f"{merged} was not made of the same (vanilla_checkpoint); delete it")
    assert contents(merged.parent) == before


# ---- mistakes


def change_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def of_run(**changes):
    return lambda place: change_json(place.out / "best/config.json", **changes)


def half(name):
    return lambda place: place.write(place.folder / name, (place.folder / name).read_bytes()[:3000])


def without_a_weight(place):
    state = weights(place.out / "best")
    state.pop("router.units.0.hidden.bias")
    save_file(state, place.out / "best/model.safetensors", {"format": "pt"})


def not_finite(place):
    state = weights(place.out / "best")
    state["router.units.0.hidden.bias"][0] = math.nan
    save_file(state, place.out / "best/model.safetensors", {"format": "pt"})


def published(name="config.json", content=None, **changes):
    """A copy of a run of the published code in <here>/published, with a change."""

    def make(place):
        config = tiny_bart_config(decoder_layers=1).to_dict() | {"router_block_num": 2} | changes
        place.write(place.folder / "published/config.json", config)
        place.write(place.folder / "published/best/model.pt", b"garbage")
        place.vectors(["colour"])
        for path in (place.folder / "vectors").iterdir():
            shutil.copy(path, place.folder / "published/best")
        if content is not None:
            place.write(place.folder / "published" / name, content)

    return make


def deeper(place):
    write_bart(place.folder / "deep", encoder_layers=1, decoder_layers=2)


def small_vocabulary(place):
    write_bart(place.folder / "small")
    bart = BartForConditionalGeneration(tiny_bart_config(decoder_layers=1, vocab_size=50))
    bart.save_pretrained(place.folder / "small")


def existing(place):
    place.write(place.folder / "new/init/something", "of the user's")


MISTAKES = {
    "no such run": (None, dict(routes_from="<here>/none"), "--routes_from <here>/none: no such folder"),
    "a file for a run": (
        None,
        dict(routes_from="<out>/run.json"),
        "--routes_from <out>/run.json: no such folder",
    ),
    "a folder that is no run": (
        None,
        dict(routes_from="<gym>"),
        "--routes_from <gym> is neither a run, with best/config.json, nor a checkpoint, with config.json",
    ),
    "a checkpoint that the run does not have": (
        None,
        dict(routes_checkpoint_name="bset"),
        "--routes_from <out> has no checkpoint 'bset'; name one by --routes_checkpoint_name: best, last",
    ),
    "a checkpoint's name for a checkpoint": (
        None,
        dict(routes_from="<out>/best", routes_checkpoint_name="best"),
        "--routes_from <out>/best is a checkpoint itself; --routes_checkpoint_name",
    ),
    "a plain BART as the run": (
        None,
        dict(routes_from="<bart>"),
        "--routes_from <bart> holds a 'bart' model, not a routing BART",
    ),
    "a run of one expert": (
        of_run(num_experts=1),
        {},
        "--routes_from <out>/best has 1 expert per layer: there is no router to keep",
    ),
    "a run with average routes": (
        of_run(route_source="average"),
        {},
        "--routes_from <out>/best has average routes: there is no router to keep",
    ),
    "a run with fixed routes": (of_run(route_source="fixed"), {}, "<out>/best has fixed routes"),
    "a run with random routes": (of_run(route_source="random"), {}, "<out>/best has random routes"),
    "an unknown router": (
        of_run(router_nn_type="linaer"),
        {},
        "<out>/best/config.json: not the configuration of a routing BART (router_nn_type is 'linaer'",
    ),
    "a broken configuration": (
        lambda place: place.write(place.out / "best/config.json", "{"),
        {},
        "--routes_from <out>/best/config.json: is not valid JSON",
    ),
    "broken weights of the run": (
        half("out/best/model.safetensors"),
        {},
        "--routes_from <out>/best: not a sound checkpoint of a routing BART",
    ),
    "no weights of the run": (
        lambda place: (place.out / "best/model.safetensors").unlink(),
        {},
        "--routes_from <out>/best: not a sound checkpoint of a routing BART",
    ),
    "a router that lacks a weight": (
        without_a_weight,
        {},
        "--routes_from <out>/best: its files lack 1 weights, such as router.units.0.hidden.bias",
    ),
    "a router of a run that diverged": (
        not_finite,
        {},
        "--routes_from <out>/best: its router has values that are not finite",
    ),
    "a published run without the checkpoint": (
        published(),
        dict(routes_from="<here>/published", routes_checkpoint_name="last"),
        "--routes_from <here>/published/last/model.pt: not found; checkpoints there: best",
    ),
    "a checkpoint folder of a published run": (
        published(),
        dict(routes_from="<here>/published/best"),
        "<here>/published/best has no config.json; of the published code's runs name the folder above",
    ),
    "a published run with broken weights": (
        published(),
        dict(routes_from="<here>/published"),
        "--routes_from <here>/published/best/model.pt: not the weights of a run",
    ),
    "a published run with broken task vectors": (
        published("best/task_vecs.npy", "garbage"),
        dict(routes_from="<here>/published"),
        "--routes_from <here>/published/best/task_vecs.npy: not a NumPy array file",
    ),
    "a published run of one expert": (
        published(router_block_num=1),
        dict(routes_from="<here>/published"),
        "--routes_from <here>/published/best has 1 expert per layer",
    ),
    "a published run with a configuration that is none": (
        published(router_nn_type="linaer"),
        dict(routes_from="<here>/published"),
        "--routes_from <here>/published/config.json: not the configuration of a routing BART (router_nn_type",
    ),
    "a BART of another depth": (
        deeper,
        dict(model="<here>/deep"),
        "--model <here>/deep has 1+2 layers (encoder+decoder), but the router of <out>/best routes 2+1",
    ),
    "a routing checkpoint as the BART": (
        None,
        dict(model="<out>/best"),
        "--model <out>/best is a 'routing_bart' model; the experts are made from a 'bart'",
    ),
    "another family as the BART": (
        lambda place: T5Config().save_pretrained(place.folder / "t5"),
        dict(model="<here>/t5"),
        "--model <here>/t5 is a 't5' model",
    ),
    "no such BART": (None, dict(model="<here>/none"), "--model <here>/none: no such folder"),
    "a BART without weights": (
        lambda place: (place.bart / "model.safetensors").unlink(),
        {},
        "--model <bart>: no plain BART can be loaded from there",
    ),
    "a tokenizer too large for the BART": (
        small_vocabulary,
        dict(model="<here>/small"),
        "--model <here>/small: its tokenizer has",
    ),
    "no such plain weights": (
        None,
        dict(vanilla_checkpoint="<here>/none"),
        "--vanilla_checkpoint <here>/none: not found",
    ),
    "plain weights of another size": (
        deeper,
        dict(vanilla_checkpoint="<here>/deep/model.safetensors"),
        "--vanilla_checkpoint <here>/deep/model.safetensors: these are not the weights of a plain BART with",
    ),
    "negative noise": (None, dict(init_eps=-0.5), "--init_eps is -0.5; it must be 0 or greater"),
    "noise that is no number": (None, dict(init_eps="nan"), "--init_eps is nan; it must be 0 or greater"),
    "infinite noise": (None, dict(init_eps="inf"), "--init_eps is infinite; it must be a number"),
    "a negative seed": (None, dict(seed=-1), "--seed is -1; it must be 0 or greater"),
    "a file for the folder": (
        None,
        dict(output_dir="<out>/run.json"),
        "--output_dir <out>/run.json: <out>/run.json is a file; name a folder",
    ),
    "a checkpoint there already": (
        None,
        dict(output_dir="<out>", checkpoint_name="init2"),
        "--output_dir <out>: <out>/init2 is there already; delete it to merge anew",
    ),
    "something else there already": (existing, {}, "<here>/new/init is there already"),
    "something else there, to be kept": (
        existing,
        dict(keep_existing=""),
        "--keep_existing: <here>/new/init was not made of the same",
    ),
    "a checkpoint that training writes": (
        None,
        dict(checkpoint_name="best"),
        "--checkpoint_name is 'best', which training writes itself; give another, such as init",
    ),
    "a path for a name": (
        None,
        dict(checkpoint_name="../init"),
        "--checkpoint_name is '../init'; it must be the name of a folder in --output_dir",
    ),
    "an empty name": (None, dict(checkpoint_name=""), "--checkpoint_name is ''"),
    "a misspelt flag": (
        None,
        dict(int_eps=0),
        "unrecognized arguments: --int_eps 0; did you mean '--init_eps'?",
    ),
    "no run named": (None, dict(routes_from=None), "required: --routes_from"),
}


def complaint(place: Place, capsys, **changed) -> list[str]:
    """The lines of what a user is told, after the checks that every mistake must pass."""
    chosen = dict(routes_from="<out>", model="<bart>", output_dir="<here>/new") | changed
    flags = [place.filled_in(part) for part in typed(chosen) if part or "keep_existing" not in chosen]
    before = contents(place.folder)
    capsys.readouterr()
    try:
        code = main(flags)
    except SystemExit as stopped:  # argparse's own
        code = stopped.code
    told = capsys.readouterr()
    assert (code, told.out) == (2, "")
    assert "Traceback" not in told.err
    assert contents(place.folder) == before
    print(told.err)  # shown when a test fails
    return told.err.splitlines()


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told(name, originals, tmp_path, capsys):
    change, changed, *fragments = MISTAKES[name]
    place = Place(tmp_path, originals.gym, Path(shutil.copytree(originals.bart, tmp_path / "bart")))
    shutil.copytree(originals.out, place.out)
    if changed.get("checkpoint_name") == "init2":
        shutil.copytree(place.out / "best", place.out / "init2")
    if change:
        change(place)
    told = complaint(place, capsys, **changed)
    assert_told(told, *map(place.filled_in, fragments))


def test_all_mistakes_are_told_at_once(with_run, capsys):
    told = complaint(
        with_run,
        capsys,
        routes_from="<bart>",
        model="<out>/best",
        init_eps="nan",
        vanilla_checkpoint="<here>/none",
    )
    assert len(told) == 4
    assert all(line.startswith("error: --") for line in told)
