"""One adapter for a new task from many, by a few labelled rows: against plain peft in float64."""

import csv
import json
import shutil
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_backbones import plain_models
from tiny_runs import ROWS, typed
from transformers import AutoModelForCausalLM, AutoTokenizer

from dataloader.encoding import TextFormat, encode
from dataloader.gym import Example
from routing_moe.answering import adapt as module
from routing_moe.checkpoints.adapter_texts import write_adapter_texts
from routing_moe.cli.adapt import main
from routing_moe.results.statistics import bootstrap_interval

plain = pytest.fixture(scope="module")(plain_models)
LENGTHS = dict(max_input_length=24, max_output_length=12)
WEIGHTS = "adapter_model.safetensors"


def rows_of(task: str) -> list[tuple[str, str]]:
    return [tuple(line.split("\t")[:2]) for line in ROWS[task]]


def encoded(base, name: str, rows):
    tokenizer = AutoTokenizer.from_pretrained(base)
    examples = [Example(name, name, text, (answer,)) for text, answer in rows]
    return encode(examples, tokenizer, TextFormat(24, 12, decoder_only=True), {name: 0})


def summed_loss(model, batch) -> torch.Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:].flatten()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels, reduction="sum")


@pytest.fixture(scope="module")
def base(plain, tmp_path_factory):
    """A plain model with large embeddings, so that few steps of training have an effect."""
    folder = shutil.copytree(plain("llama"), tmp_path_factory.mktemp("base") / "llama")
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.get_input_embeddings().weight.data *= 10
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapters(base, tmp_path_factory):
    """{task: folder} of adapters that peft has trained on its rows, and colour's times 3 and -0.1."""
    folder, places = tmp_path_factory.mktemp("adapters"), {}
    for rank, task in ((4, "colour"), (2, "count")):
        torch.manual_seed(rank)
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=["q_proj", "v_proj", "down_proj"])
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
        batch = encoded(base, task, rows_of(task)).collate(range(6), pad_token_id=0)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
        for _ in range(60):
            summed_loss(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
        model.save_pretrained(folder / task)
        places[task] = folder / task
    for name, scale in (("strong", 3), ("wrong", -0.1)):
        places[name] = shutil.copytree(folder / "colour", folder / name)
        config = json.loads((folder / name / "adapter_config.json").read_text())
        changed = config | {"lora_alpha": scale * config["r"]}
        (folder / name / "adapter_config.json").write_text(json.dumps(changed))
    return places


@pytest.fixture
def table(tmp_path):
    """table(rows): a CSV file of (text, label)."""

    def written(rows, name="rows.csv") -> Path:
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
        return tmp_path / name

    return written


@pytest.fixture
def adapt(base, adapters, table, tmp_path):
    """adapt(folder, **flags): (exit code, adapt.json) of the command on the rows of colour."""

    def run(folder="out", names=("count", "colour"), **flags):
        chosen = dict(base=base, adapters=[adapters[name] for name in names], task="colour") | LENGTHS
        chosen |= dict(rows=table(rows_of("colour")), input="{text}", output="{label}")
        code = main(typed(chosen | dict(output_dir=tmp_path / folder) | flags))
        file = tmp_path / folder / "adapt.json"
        return code, json.loads(file.read_text()) if file.exists() else None

    return run


def logits_of(base, place) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    return PeftModel.from_pretrained(model, place)(torch.arange(3, 15)[None]).logits


def test_the_adapter_of_the_task_is_chosen_by_the_losses_of_plain_peft(adapt, base, adapters, tmp_path):
    code, found = adapt(options=[answer for _, answer in rows_of("colour")])
    assert (code, found["chosen"], found["rows"]) == (0, "colour (lowest loss)", 6)
    rows, means = rows_of("colour"), {}
    pairs = encoded(base, "colour", [(text, option) for text, _ in rows for _, option in rows])
    batches = [pairs.collate([i], pad_token_id=0) for i in range(36)]
    for name, candidate in found["candidates"].items():
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
        if name != "(base)":
            model = PeftModel.from_pretrained(model, adapters[name]).double()
        with torch.no_grad():
            losses_RO = np.array([float(summed_loss(model, batch)) for batch in batches]).reshape(6, 6)
        kept_2R = np.load(tmp_path / "out/losses" / f"{quote(name, safe='')}.npy")
        np.testing.assert_allclose(kept_2R[0], losses_RO.diagonal(), rtol=1e-5)
        lengths_RO = pairs.target_lengths_N.reshape(6, 6)
        np.testing.assert_array_equal(kept_2R[1], (losses_RO / lengths_RO).argmin(axis=1) == range(6))
        means[name] = candidate["loss"]
        assert candidate["loss"] == pytest.approx(losses_RO.diagonal().mean(), rel=1e-5)
        assert candidate["rank_accuracy"] == kept_2R[1].mean()
    assert list(means) == sorted(means, key=means.get)
    assert found["candidates"]["colour"]["rank_accuracy"] > found["candidates"]["(base)"]["rank_accuracy"]
    assert found["candidates"]["count"]["low"] > 0
    torch.testing.assert_close(logits_of(base, tmp_path / "out"), logits_of(base, adapters["colour"]))
    assert (found["rank"], found["settings"]["how"]) == (4, "choose")


def test_the_same_adapter_is_written_for_llama_cpp(adapt, tmp_path):
    gguf = pytest.importorskip("gguf")
    assert adapt()[0] == adapt("served", **{"as": "gguf"})[0] == 0
    of_peft = load_file(tmp_path / "out" / WEIGHTS)
    tensors = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "served/adapter.gguf").tensors}
    assert len(tensors) == len(of_peft)
    for side in "ab":  # of values, no row is permuted
        ours = of_peft[f"base_model.model.model.layers.0.self_attn.v_proj.lora_{side.upper()}.weight"]
        np.testing.assert_array_equal(tensors[f"blk.0.attn_v.weight.lora_{side}"], ours)


def test_candidates_are_compared_with_the_base_and_equal_ones(adapt, base, adapters, tmp_path, capsys):
    code, found = adapt(names=["wrong"])
    assert (code, found["chosen"]) == (0, "(base) (lowest loss)")
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)(torch.arange(3, 15)[None]).logits
    torch.testing.assert_close(logits_of(base, tmp_path / "out"), plain)
    shutil.copytree(adapters["colour"], tmp_path / "same")
    code, found = adapt("twice", adapters=[adapters["colour"], tmp_path / "same"])
    same = found["candidates"]["same"]
    assert (same["difference"], same["low"], same["high"]) == (0, 0, 0)
    assert "these rows cannot distinguish from colour: same" in capsys.readouterr().err


def test_a_mix_is_written_if_it_wins_on_other_folds(adapt, base, adapters, tmp_path, capsys):
    """Of an adapter times 3, a mix with the base is better; of a single good one, weights of 1/2 are not."""
    mixing = dict(how="mix", folds=2, steps=8)
    code, found = adapt("won", names=["strong"], **mixing)
    assert (code, found["chosen"]) == (0, "mix")
    own, best = found["folds"].values()
    assert own["difference"] < 0
    assert own["difference"] == pytest.approx(own["loss"] - best["loss"])
    code, found = adapt("lost", names=["colour", "count"], **mixing | dict(steps=1))
    assert found["chosen"] == "colour (lowest loss)"
    best, own = found["folds"].values()
    assert best["loss"] < own["loss"]
    assert "mix is no better than the best candidate, which is written" in capsys.readouterr().err
    torch.testing.assert_close(logits_of(base, tmp_path / "lost"), logits_of(base, adapters["colour"]))


def test_an_adapter_is_tuned_from_the_best_or_new_and_the_others_stay(adapt, base, tmp_path, monkeypatch):
    models = []
    monkeypatch.setattr(module, "export_adapter", lambda routed, *rest: models.append(routed) or (1, 0.0))
    tuning = dict(how="tune", folds=2, steps=15, rate=0.03, lora_rank=3, lora_targets="attention")
    for start in ("best", "new"):
        code, found = adapt(start, names=["wrong"], tune_from=start, **tuning)
        assert (code, found["chosen"]) == (0, "tune")  # the base is better: a new one
        maps = [pair for layer in models[-1].model.lora_layers for pair in layer.linear_maps.items()]
        for name, linear in maps:
            is_target = "attn" in name
            assert bool(linear.lora_B[2, :3].any()) == bool(linear.lora_A[2, :3].any()) == is_target
            assert not linear.lora_B[2, 3:].any()
            assert not linear.lora_B[1].any()
    adapt("continued", names=["colour"], **tuning)
    adapted = models[-1].model.lora_layers[0].linear_maps["self_attn.q_proj"]
    assert 0 < (adapted.lora_A[2] - adapted.lora_A[0]).abs().max() < 0.5


def test_equal_inputs_are_in_one_fold(adapt, table, monkeypatch):
    inputs = ["a", "b", "a", "c", "d", "b"]
    monkeypatch.setattr(module.Adaptation, "learned", lambda self, rows, best: learned_from(self, rows))

    def learned_from(adaptation, rows):
        held = {inputs[row] for row in range(6) if row not in rows}
        assert len(held) == 2
        assert held.isdisjoint(inputs[row] for row in rows)
        return adaptation.route("colour")

    rows = table([(text, "x") for text in inputs], "equal.csv")
    code, found = adapt(names=["colour"], rows=rows, how="mix", folds=2)
    assert (code, found["rows"]) == (0, 6)


def test_the_interval_is_that_of_the_means_of_resamples():
    low, high = bootstrap_interval(np.array([[0.0, 1.0], [2.0, 2.0]]))
    assert low.tolist() == [0, 1]  # both values are one of them with probability 1/4
    assert high.tolist() == [2, 2]


@pytest.mark.parametrize("how", ["mix", "tune"])
def test_a_killed_call_continues_and_writes_the_same_adapter(how, adapt, tmp_path, monkeypatch, capsys):
    flags = dict(how=how, folds=3, steps=3, names=["count", "strong"])
    learned = module.Adaptation.learned
    adapt("whole", **flags)
    calls = []

    def killed(choice, rows, best):
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return learned(choice, rows, best)

    monkeypatch.setattr(module.Adaptation, "learned", killed)
    assert adapt("out", **flags)[0] == 130
    assert "the same command continues" in capsys.readouterr().err
    assert not (tmp_path / "out" / WEIGHTS).exists()
    code, _ = adapt("out", **flags)
    assert (code, calls[:4]) == (0, [4, 4, 4, 4])  # the third fold again, and only that
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    monkeypatch.setattr(module, "mixture_of_adapters", None)  # nothing is loaded again
    assert adapt("out", **flags)[0] == 0
    for changed, words in (
        (dict(steps=6), "with steps 3, not 6"),
        (dict(names=["count", "colour"]), "of other adapters"),
        (dict(output="{text}"), "with output"),
        (dict(no_prefix=True), "with no_prefix null, not true"),
        (dict(max_input_length=None), "with max_input_length 24, not null"),
    ):
        assert adapt("out", **flags | changed)[0] == 2
        assert words in capsys.readouterr().err


def test_an_unfinished_folder_with_files_of_others_stays(adapt, tmp_path, capsys):
    folder = tmp_path / "ablation"
    (folder / "sets").mkdir(parents=True)
    (folder / "job.json").write_text("{}")
    assert adapt("ablation")[0] == 2
    assert f"--output_dir {folder} holds other files (sets)" in capsys.readouterr().err
    (folder / "sets").rmdir()
    (folder / ".0123456789abcdef.partial").touch()  # of a killed write
    assert adapt("ablation")[0] == 0


def test_what_adapters_say_of_their_texts_is_used_where_they_agree(adapt, adapters, tmp_path, capsys):
    def named(name, task, **texts):
        place = shutil.copytree(adapters[name], tmp_path / name)
        write_adapter_texts(place, task, dict(prompt_format="crossfit") | texts)
        return place

    places = [named("count", "count", num_beams=4), named("colour", "colour", num_beams=2)]
    assert adapt(adapters=places)[0] == 0, "beams are no part of how texts look"
    printed = "".join(capsys.readouterr())
    assert "count was trained on inputs that begin with [count]; here they begin with [colour]" in printed
    write_adapter_texts(places[0], "count", dict(prompt_format="chat"))
    assert adapt("other", adapters=places)[0] == 2
    assert "read texts in other ways than count: none is kept; give the flags" in capsys.readouterr().err


def test_rows_that_are_cut_are_counted(adapt, capsys):
    assert adapt(max_input_length=4)[0] == 0
    printed = "".join(capsys.readouterr())
    assert "note: 6 inputs of the rows cut to 4 tokens (--max_input_length)" in printed
    assert "answers of the rows cut" not in printed


def test_a_job_on_another_chat_template_is_not_continued(adapt, base, tmp_path, capsys):
    assert adapt()[0] == 0
    other = shutil.copytree(base, tmp_path / "other")
    (other / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert adapt(base=other)[0] == 2
    assert "base" in capsys.readouterr().err


def test_numbers_that_are_not_finite_are_an_error(adapt, adapters, tmp_path, capsys):
    broken = shutil.copytree(adapters["count"], tmp_path / "broken")
    tensors = load_file(broken / WEIGHTS)
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, broken / WEIGHTS)
    for flags, words in (
        (dict(adapters=[broken]), f"--adapters broken: {broken / WEIGHTS} has weights that are not finite"),
        (dict(how="tune", folds=2, rate=1e30), "--rate 1e+30: training diverged; give a lower one"),
        (dict(how="mix", folds=2, rate=1e300), "--rate 1e+300: training diverged; give a lower one"),
    ):
        assert adapt(flags.get("how", "none"), **flags)[0] == 2
        assert words in capsys.readouterr().err


def test_wrong_input_is_one_error_each(adapt, base, adapters, table, tmp_path, capsys):
    colour = rows_of("colour")
    adapted = shutil.copytree(base, tmp_path / "adapted")
    shutil.copy(adapters["count"] / "adapter_config.json", adapted)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for changed, words in (
        (dict(rows=table([], "none.csv")), "none.csv has no rows"),
        (dict(rows=table(colour[:1] * 2, "one.csv")), "one.csv has one input; an interval needs at least 2"),
        (dict(rows=table([*colour, ("a", "")], "bad.csv")), "bad.csv:8: column 'label' is empty"),
        (dict(rows=table([*colour, ("a",)], "cells.csv")), "cells.csv:8: 1 cells, the header has 2"),
        (dict(rows=tmp_path / "no.csv"), "--rows " + str(tmp_path / "no.csv")),
        (dict(options=["green", "blue"]), "rows.csv:4: \"options\" holds none of the outputs ('white'"),
        (dict(input="{txt}"), "--input '{txt}': "),
        (dict(how="mix", folds=7), "--folds is 7, but the rows have 6 different inputs"),
        (dict(adapters=[f"a={adapters['count']}", f"a={adapters['colour']}"]), "have the name a"),
        (dict(adapters=[f"(x)={adapters['count']}"]), "names in brackets are those of"),
        (dict(adapters=[adapters["count"].parent / "cuont"]), "no such folder; did you mean 'count'?"),
        (dict(base=adapted), "has an adapter beside the model; move adapter_config.json to another"),
        (dict(base=tmp_path / "no"), "--base " + str(tmp_path / "no")),
        (dict(output_dir=tmp_path / "full"), f"--output_dir {tmp_path / 'full'} holds other files"),
        (dict(tune_from="new"), "--tune_from: --how choose does not use it; leave it out"),
        (dict(rate=0.1), "--rate: --how choose does not use it; leave it out"),
        (dict(system="x"), "--system 'x': system messages are for --prompt_format chat"),
    ):
        code, _ = adapt("out", **changed)
        error = capsys.readouterr().err
        assert (code, error.count("error: ")) == (2, 1), error
        assert words in error
