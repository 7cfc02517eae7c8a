"""Mixtures assembled from models that were trained separately: each task's route is its own model."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from mistakes import assert_problem
from peft import LoraConfig, PeftModel, get_peft_model
from test_answering import by_transformers
from test_merge import hashes
from tiny_answers import gym_inputs, load
from tiny_runs import ROWS, TRAIN_TASKS, typed, write_bart
from transformers import AutoTokenizer, BartForConditionalGeneration

from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.cli import export, push
from routing_moe.cli.assemble import main
from routing_moe.cli.transfer import main as transfer
from routing_moe.config.train import train_settings

TASKS = TRAIN_TASKS[:2]
AS = {"as": "adapter"}
pytestmark = pytest.mark.usefixtures("no_gpu")


@pytest.fixture(scope="module")
def barts(world, tmp_path_factory):
    """{task: folder} of BARTs with the base's embeddings and other layers."""
    folder, places = tmp_path_factory.mktemp("barts"), {}
    for seed, task in enumerate(TASKS):
        own = BartForConditionalGeneration.from_pretrained(write_bart(folder / task, seed))
        base = BartForConditionalGeneration.from_pretrained(world.bart)
        layers = {name: t for name, t in own.state_dict().items() if ".layers." in name}
        base.load_state_dict(layers, strict=False)
        base.save_pretrained(folder / task)
        places[task] = folder / task
    return places


@pytest.fixture(scope="module")
def adapters(world, tmp_path_factory):
    """{task: folder} of adapters of peft with other ranks and scales."""
    folder, places = tmp_path_factory.mktemp("adapters"), {}
    for seed, task in enumerate(TASKS):
        torch.manual_seed(seed)
        base = BartForConditionalGeneration.from_pretrained(world.bart)
        model = get_peft_model(base, LoraConfig(r=2 + seed, lora_alpha=5, target_modules="all-linear"))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(folder / task)
        places[task] = folder / task
    return places


def assemble(world, folder, places):
    """Returns the folder, now of a mixture of the models {task: place}."""
    experts = [f"{task}={place}" for task, place in places.items()]
    assert main(typed(dict(experts=experts, base=world.bart, output_dir=folder))) == 0
    return folder


@pytest.fixture(scope="module")
def layers(world, barts, tmp_path_factory):
    """A mixture of the BARTs. Must not be changed."""
    return assemble(world, tmp_path_factory.mktemp("layers") / "mixture", barts)


@pytest.fixture(scope="module")
def low_rank(world, adapters, tmp_path_factory):
    """A mixture of the adapters. Must not be changed."""
    return assemble(world, tmp_path_factory.mktemp("low_rank") / "mixture", adapters)


def errors(capsys, world, tmp_path, places, **changed) -> list[str]:
    """The errors of a command that must fail and write nothing."""
    experts = [f"{task}={place}" for task, place in places.items()]
    chosen = dict(experts=experts, base=world.bart, output_dir=tmp_path / "none") | changed
    assert main(typed(chosen)) == 2
    assert not (tmp_path / "none").exists()
    return capsys.readouterr().err.splitlines()


def batch_of(place) -> dict:
    tokenizer = AutoTokenizer.from_pretrained(place)
    return tokenizer(["a cat", "the sun and the moon", "up"], padding=True, return_tensors="pt")


def logits_of(model, inputs, **routes):
    start = torch.full((3, 2), 2)
    with torch.no_grad():
        return model.eval()(**inputs, decoder_input_ids=start, **routes).logits


# ---- each task's route is its own model


def test_the_routes_of_fine_tuned_barts_are_these_bit_for_bit(barts, world, tmp_path, capsys):
    folder = assemble(world, tmp_path / "mixture", barts)
    model, inputs = RoutingBartForConditionalGeneration.from_pretrained(folder), batch_of(world.bart)
    for task, place in barts.items():
        own = BartForConditionalGeneration.from_pretrained(place)
        plain = model.to_bart(model.routes_for([task])[0])
        assert torch.equal(logits_of(plain, inputs), logits_of(own, inputs))
    assert not torch.equal(*model.routes_for(TASKS))
    assert "the embeddings of" not in capsys.readouterr().out
    nearest = load(folder).task("new", inputs=["hot", "cold", "big"], gym=world.gym)
    neighbour = next(task for task in TASKS if task in nearest.description)
    assert torch.equal(nearest.route_LE, load(folder).task(neighbour).route_LE)


def test_the_routes_of_adapters_are_pefts_models(low_rank, adapters, world):
    model, inputs = RoutingBartForConditionalGeneration.from_pretrained(low_rank), batch_of(world.bart)
    assert (model.config.lora_rank, model.config.base_model) == (3, str(world.bart))
    for task, place in adapters.items():
        base = BartForConditionalGeneration.from_pretrained(world.bart)
        expected = logits_of(PeftModel.from_pretrained(base, place), inputs)
        routes = model.routes_for([task] * 3)
        torch.testing.assert_close(logits_of(model, inputs, routes=routes), expected, rtol=0, atol=1e-4)


def test_the_base_of_adapters_is_compared_also_on_the_hub(adapters, world, tmp_path, capsys, hub_client):
    (colour, count), here = adapters.values(), f"--base is {world.bart}, but"
    assemble(world, tmp_path / "same", adapters)
    assert here not in capsys.readouterr().out
    moved = shutil.copytree(count, tmp_path / "moved")
    config = json.loads((moved / "adapter_config.json").read_text())
    write_bart(tmp_path / "other")

    def named(base: str, revision=None) -> dict:
        changed = config | dict(base_model_name_or_path=base, revision=revision)
        (moved / "adapter_config.json").write_text(json.dumps(changed))
        return {"colour": colour, "count": moved}

    assemble(world, tmp_path / "moved_base", named("../other"))
    assert f"{here} count was trained on ../other: the weights must be the same" in capsys.readouterr().out
    saved = json.loads((tmp_path / "other/config.json").read_text())
    (tmp_path / "other/config.json").write_text(json.dumps(saved | {"model_type": "llama"}))
    words = f"--experts count: was trained on ../other, a 'llama' model; --base {world.bart} is a 'bart'"
    assert_problem(errors(capsys, world, tmp_path, named("../other")), words)
    for name, folder in (("me/count", moved), ("me/other", tmp_path / "other"), ("me/bart", world.bart)):
        hub_client.publish(name, folder)
    (moved / "adapter_model.bin").write_bytes(b"pickled")
    named("me/bart", "v2")
    places = {"colour": colour, "count": "me/count"}
    assemble(world, tmp_path / "hub", places)
    assert f"{here} count was trained on me/bart@v2" in capsys.readouterr().out
    (cached,) = hub_client.cache.glob("models--me--count/snapshots/*")
    assert {path.suffix for path in cached.glob("adapter_model*")} == {".safetensors"}
    hub_client.is_offline = True
    assemble(world, tmp_path / "again", places)
    assert hub_client.requests == ["me/count"]  # the base that it names is not downloaded
    assert_problem(errors(capsys, world, tmp_path, places | {"count": "me/no"}), "--experts count: me/no: no")


# ---- how texts are read


def test_text_settings_are_kept_if_the_models_agree(world, barts, tmp_path, capsys):
    def with_settings(task: str, **changed) -> dict:
        folder = shutil.copytree(barts[task], tmp_path / f"{task}-{changed['num_beams']}")
        config = json.loads((folder / "config.json").read_text())
        config["text_settings"] = dict(max_input_length=20, do_lowercase=True) | changed
        (folder / "config.json").write_text(json.dumps(config))
        return {task: folder}

    same = with_settings(TASKS[0], num_beams=3) | with_settings(TASKS[1], num_beams=3)
    routed = load(assemble(world, tmp_path / "same", same))
    assert (routed.texts["num_beams"], routed.texts["do_lowercase"]) == (3, True)
    folder = assemble(world, tmp_path / "different", same | with_settings(TASKS[1], num_beams=2))
    assert f"{TASKS[1]} read texts in other ways than {TASKS[0]}" in capsys.readouterr().out
    assert RoutingBartForConditionalGeneration.from_pretrained(folder).config.text_settings is None


# ---- assembled.json, sharing, export


def test_the_sources_are_recorded(layers, low_rank, barts, world):
    kept = json.loads((layers / "assembled.json").read_text())
    assert kept["made_of"] == {
        "base": hashes(world.bart),
        **{f"experts/{task}": hashes(place) for task, place in barts.items()},
    }
    assert kept["settings"]["base"] == str(world.bart)
    assert kept["command"].startswith("routing-moe assemble --experts ")
    of_adapters = json.loads((low_rank / "assembled.json").read_text())["made_of"]
    files = set(of_adapters[f"experts/{TASKS[0]}"])
    assert files == {"adapter_config.json", "adapter_model.safetensors"}


def test_an_existing_mixture_is_kept_if_it_was_made_of_the_same_models(layers, barts, world, capsys):
    again = [f"{task}={place}" for task, place in barts.items()]
    for experts, texts, code, words in (
        (again, {}, 0, "exists already, made from the same sources"),
        ([*again, f"third={world.bart}"], {}, 2, "{} was made from other sources (experts/third)"),
        (again, {"hide_task_names": True}, 2, "{} was made from other sources (hide_task_names)"),
    ):
        flags = dict(experts=experts, base=world.bart, output_dir=layers, keep_existing=True, **texts)
        assert main(typed(flags)) == code
        assert words.format(layers) in "".join(capsys.readouterr())


def test_scores_have_the_text_settings_of_a_mixture_without_a_run(layers, tmp_path):
    config = json.loads((layers / "config.json").read_text())
    kept = {"max_input_length": 20, "num_beams": 1, "hide_task_names": True}
    (tmp_path / "config.json").write_text(json.dumps(config | {"text_settings": kept}))
    flags = {"do_predict": True, "checkpoint": str(tmp_path), "train_dir": "gym", "output_dir": "x"}
    settings = train_settings(flags | {"num_beams": 3})
    texts = settings.max_input_length, settings.num_beams, settings.hide_task_names
    assert texts == (20, 3, True)


def test_exported_experts_can_be_assembled_again(low_rank, world, tmp_path):
    assert export.main(typed(dict(checkpoint=low_rank, adapters=True, output_dir=tmp_path / "out"))) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(TASKS)
    experts = {task: tmp_path / "out" / task for task in TASKS}
    again = assemble(world, tmp_path / "again", experts)
    one, other = map(RoutingBartForConditionalGeneration.from_pretrained, (low_rank, again))
    assert all(map(torch.equal, one.parameters(), other.parameters()))
    config = json.loads((tmp_path / "out" / TASKS[0] / "adapter_config.json").read_text())
    named = tmp_path / "out" / TASKS[0] / config["base_model_name_or_path"]
    assert named.resolve() == world.bart.resolve()


def test_a_route_is_exported_as_an_adapter_that_its_readme_loads(adapters, world, tmp_path, monkeypatch):
    folder, task = assemble(world, tmp_path / "mixture", adapters), TASKS[0]
    model = RoutingBartForConditionalGeneration.from_pretrained(folder)
    route = tmp_path / "route.json"
    route.write_text(json.dumps({task: [[0.3, 0.7]] * model.config.num_layers}))
    for out, trained in ((tmp_path / "deep/out", False), (tmp_path / "deep/trained", True)):
        if trained:
            with torch.no_grad():
                model.get_encoder().layers[0].fc1.bias += 1
            model.save_pretrained(folder)
        chosen = dict(checkpoint=folder, task=task, task_routes=route, output_dir=out) | AS
        assert export.main(typed(chosen)) == 0
        config = json.loads((out / "adapter_config.json").read_text())
        base = out / "base" if trained else world.bart
        assert (out / config["base_model_name_or_path"]).resolve() == base
        assert config["r"] == 5, "2 + 3: no rows of zeros"
    routed, texts = load(folder), gym_inputs(task, "dev")[:3]
    own = routed.task(task, route=np.array([[0.3, 0.7]] * model.config.num_layers))
    monkeypatch.chdir(out)  # the base is named by its path from there
    assert by_transformers(out, texts) == routed.answer(own, texts)


def test_what_is_no_adapter_is_refused(layers, low_rank, tmp_path, capsys):
    chosen = dict(task=TASKS[0], output_dir=tmp_path / "out") | AS
    for changed, problem in (
        (dict(checkpoint=layers), "experts of kind 'layer' are no adapter; only low-rank experts are"),
        (dict(checkpoint=low_rank, argmax=True), "adapters can be of any route"),
    ):
        capsys.readouterr()
        assert export.main(typed(chosen | changed)) == 2
        assert re.search(problem, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_pushed_mixture_has_the_weights_of_a_base_that_is_not_on_the_hub(low_rank, world, tmp_path):
    shared = tmp_path / "shared"
    assert push.main([str(low_rank), "my-group/moe", "--dry_run", str(shared)]) == 0
    complete = RoutingBartForConditionalGeneration.from_pretrained(shared)
    assert complete.config.base_model is None
    assert str(world.bart.parent) not in (shared / "config.json").read_text()
    model = RoutingBartForConditionalGeneration.from_pretrained(low_rank)
    assert all(map(torch.equal, complete.state_dict().values(), model.state_dict().values()))


# ---- wrong input


def test_wrong_models_are_one_error_each(barts, adapters, with_run, world, tmp_path, capsys):
    def refuses(words: str, **changed) -> None:
        assert_problem(errors(capsys, world, tmp_path, barts, **changed), words)

    narrow, colour = write_bart(tmp_path / "narrow", decoder_ffn_dim=8), f"colour={barts['colour']}"
    (broken := tmp_path / "broken.pt").write_bytes(b"broken")
    refuses("--experts models/colour: give NAME=PLACE, such as colour=PLACE", experts=["models/colour"])
    refuses("--experts: b and c have the name a; give another NAME=", experts=["a=b", "a=c"])
    refuses("--experts a=b is a single one; a mixture has at least 2 experts", experts=["a=b"])
    refuses(f"--experts b: {tmp_path / 'no'}: not found", experts=[colour, f"b={tmp_path / 'no'}"])
    refuses(f"--base {tmp_path / 'no'}: not found", base=tmp_path / "no")
    refuses(f"--output_dir {tmp_path} exists already", output_dir=tmp_path)
    adapter, place = f"count={adapters['count']}", adapters["count"].parent
    refuses(f"--experts b: {barts['colour']}: a whole model", experts=[adapter, f"b={barts['colour']}"])
    words = f"--experts b: {place}/conut: no such folder; did you mean 'count'?"
    refuses(words, experts=[adapter, f"b={place}/conut"])
    words = f"--experts b: {place}: has no adapter_config.json; its folders"
    refuses(words, experts=[adapter, f"b={place}"])
    refuses(f"--experts b: {broken}: not a checkpoint", experts=[colour, f"b={broken}"])
    refuses(f"{with_run.out}/best is a mixture of 2 experts", experts=[colour, f"b={with_run.out}"])
    refuses(f"{narrow} has decoder_ffn_dim 8; {world.bart} has 24", experts=[colour, f"b={narrow}"])


def test_who_helps_whom_of_adapters_beside_their_base(low_rank, world, tmp_path, capsys):
    assert transfer([str(low_rank), "--output_dir", str(tmp_path / "none")]) == 2
    assert "give the gym of its tasks (--train_dir)" in capsys.readouterr().err
    flags = ["--max_input_length", "24", "--rows", "99", "--output_dir"]
    gym = ["--train_dir", str(world.gym)]
    assert transfer([str(low_rank), *gym, *flags, str(tmp_path / "out")]) == 0
    table = pd.read_csv(tmp_path / "out/transfer.csv", index_col=0)
    assert (list(table.index), list(table.columns)) == (TASKS, [*TASKS, "(base)"])
    rows = {task: [row.split("\t")[:2] for row in ROWS[task]] for task in TASKS}
    for task, pairs in rows.items():
        pd.DataFrame(pairs, columns=["text", "label"]).to_csv(tmp_path / f"{task}.csv", index=False)
    tables = [f"{task}={tmp_path / task}.csv" for task in TASKS]
    same = ["--input", "{text}", "--output", "{label}", *flags]
    assert transfer([str(low_rank), "--tables", *tables, *same, str(tmp_path / "tables")]) == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "tables/transfer.csv", index_col=0), table)
    assert transfer([str(low_rank), "--tables", tables[0], *same, str(tmp_path / "no")]) == 2
    assert f"{TASKS[1]}: give {TASKS[1]}=TABLE, too" in capsys.readouterr().err
