"""Routes by the inputs: a router for each example, the built-in one and that of docs/extending.md."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from tiny_backbones import make_differ, make_routed
from tiny_runs import World, assert_equal, fail_in_step, run, typed, weights
from tiny_steps import recorded, settings_with

from dataloader.errors import InputError
from routing_moe import Routed, RoutingBartForConditionalGeneration
from routing_moe.answering.export import export_adapter
from routing_moe.answering.queries import Query
from routing_moe.cli.ablate import main as ablate
from routing_moe.cli.finetune import main as finetune
from routing_moe.config import choices
from routing_moe.evaluation.batches import routes_of_file
from routing_moe.evaluation.scored_files import Decoding, TaskFile
from routing_moe.optim.step import Stepper

pytestmark = pytest.mark.usefixtures("quick_pictures")
GUIDE = Path(__file__).parents[1] / "docs/extending.md"
PLUGIN = re.search(r"```python\n(# two_layers.py\n.*?)```", GUIDE.read_text(), re.DOTALL)[1]
MINE = dict(route_source="inputs", router_hidden_dim=None, taskvecs_dim=None, task_model_lr=None)


def test_routes_differ_among_the_examples_of_a_task_and_not_by_padding(make_model, batch):
    model, ids = make_model(route_source="inputs"), torch.zeros(4, dtype=torch.long)
    routes_BLE = model.draw_routes(ids, batch["input_ids"], batch["attention_mask"])
    assert len(routes_BLE.unique(dim=0)) == 4
    for i, length in enumerate(batch["attention_mask"].sum(dim=1)):
        alone = model.draw_routes(ids[:1], batch["input_ids"][i : i + 1, :length])
        torch.testing.assert_close(alone[0], routes_BLE[i])
    given = model(**batch, routes=routes_BLE).loss
    torch.testing.assert_close(model(**batch, task_ids=ids).loss, given)
    with pytest.raises(InputError, match="inputs routes depend on inputs: give them"):
        model.draw_routes(ids)
    with pytest.raises(InputError, match="differ among the examples of a task"):
        model.routes_for(["a"])


@pytest.mark.parametrize("mixing", ["outputs", "parameters"])
def test_a_step_in_micro_batches_has_the_gradient_of_one_pass(make_model, examples, mixing):
    model = make_model(route_source="inputs", expert_mixing=mixing, bart_fields=dict(dropout=0.0))
    flags = dict(max_tokens_per_micro_batch=20, train_batch_size=6)
    stepper, gradients = Stepper(model, examples, settings_with(**flags), Accelerator(cpu=True)), []
    indices, answers, groups = stepper.split(0)
    assert len(groups) > 1
    batch = examples.collate(indices, answers, pad_token_id=1)
    model.train()(**batch).loss.backward()
    slow = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert slow["router.logits.weight"].abs().max() > 0
    model.zero_grad()
    recorded(stepper, gradients).step(0)
    for name, gradient in slow.items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_files_are_scored_along_the_routes_of_their_examples(make_model, task_examples):
    model = make_model(route_source="inputs")
    file = TaskFile("a", "a_1_13", "test", "EM", list(range(7)), task_examples)
    (routes_nLE,) = routes_of_file(model, file, Decoding())
    one = torch.tensor(task_examples.sources[3].astype(np.int64))[None]
    torch.testing.assert_close(model.draw_routes(torch.zeros(1, dtype=torch.long), one)[0], routes_nLE[3])


def test_a_decoder_only_model_reads_the_input_without_the_answer():
    model = make_routed("qwen2", 2, route_source="inputs", task_names=["a"]).eval()
    make_differ(model)
    ids, task = torch.randint(3, 60, (1, 8)), torch.zeros(1, dtype=torch.long)
    labels = torch.where(torch.arange(8) < 5, -100, ids)
    routes = model.draw_routes(task, ids[:, :5])
    loss = model(ids, labels=labels, task_ids=task).loss
    torch.testing.assert_close(loss, model(ids, labels=labels, routes=routes).loss)
    by_task = model.generate(ids[:, :5], max_new_tokens=3, task_ids=task)
    assert torch.equal(by_task, model.generate(ids[:, :5], max_new_tokens=3, routes=routes))


def test_a_trained_source_is_kept_where_routes_are_chosen_again(make_model):
    model = make_model(route_source="inputs")
    before = model.router
    model.use_routes("inputs")
    assert model.router is before
    model.use_routes("average")
    assert model.router is None


# ---- commands


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("world"))
    world.whole = world.run("whole", **MINE, do_predict=True)
    return world


def test_a_run_resumes_bit_for_bit_scores_and_counts_its_cost(mine):
    fail_in_step(5, lambda: mine.run("stopped", **MINE))
    resumed = mine.run("stopped", **MINE, resume=True)
    assert_equal(weights(resumed / "last"), weights(mine.whole / "last"))
    assert weights(mine.whole / "last")["router.logits.weight"].abs().max() > 0
    scores = pd.read_csv(mine.whole / "best/eval-test-performance.csv", index_col=0)
    assert np.isfinite(scores["performance"]).all()
    assert "routes: learned for each example, by the mean" in (mine.whole / "log.txt").read_text()


def test_the_router_is_frozen_by_a_rate_of_0_and_can_alternate_with_the_model(mine):
    changed = MINE | dict(total_steps=2, warmup_ratio=0)
    frozen = mine.run("frozen", **changed | dict(router_lr=0))
    assert "routes: frozen for each example" in (frozen / "log.txt").read_text()
    alternating = mine.run("alternating", **changed, alternate_every=2)
    before, after = (weights(place / "last")["router.logits.weight"] for place in (frozen, alternating))
    assert not torch.equal(before, after)
    assert json.loads((mine.whole / "cost.json").read_text())["total_flops"] > 0


def test_pictures_show_means_over_dev_examples(mine):
    (folder, *_) = sorted(mine.whole.glob("*-steps"))
    routes_NLE = np.load(folder / "route.npy")
    np.testing.assert_allclose(routes_NLE.sum(axis=-1), 1, atol=1e-5)
    assert np.abs(routes_NLE[0] - routes_NLE[1]).max() > 1e-6
    assert np.abs(routes_NLE - 1 / routes_NLE.shape[-1]).max() > 1e-6


def test_new_texts_are_answered_along_routes_of_their_own_and_there_is_none_to_export(mine, tmp_path):
    routed = Routed.load(mine.whole)
    task = routed.task("colour")
    seen = "has seen of the task: labelled rows of all samples"
    assert str(task) == f"colour: inputs routes, of each text; {seen}"
    texts, options = ["up", "a hot and big one"], ["red", "blue"]
    together = list(routed.answers(task, [Query(text, options) for text in texts]))
    for text, answer in zip(texts, together, strict=True):
        (alone,) = routed.answers(task, [Query(text, options)])
        assert alone.option_scores == pytest.approx(answer.option_scores, abs=1e-5)
    for export in (routed.export, partial(export_adapter, routed)):
        with pytest.raises(InputError, match="differ among the examples of a task; this needs one of the"):
            export(task, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fine_tuning_goes_on_with_it_and_other_commands_refuse_it(mine, tmp_path, capsys):
    flags = dict(moe_init=True, init_dir=mine.whole, learning_rate_list=[0.01], bsz_list=[2])
    flags |= dict(task_dir=mine.gym / "plural", output_dir=tmp_path / "tuned", total_steps=2, eval_period=1)
    flags |= dict(do_train=True, samples="first", num_beams=1, max_input_length=24, max_output_length=6)
    assert finetune(typed(flags | dict(model=mine.bart, save_best=True))) == 0
    assert set(pd.read_csv(tmp_path / "tuned/results.csv")["route"].dropna()) == {"by each input"}
    tuned = RoutingBartForConditionalGeneration.from_pretrained(next(tmp_path.glob("tuned/models/*_best")))
    assert tuned.router.logits.weight.shape == weights(mine.whole / "best")["router.logits.weight"].shape
    assert ablate([str(mine.whole)]) == 3
    assert "inputs routes differ among the examples of a task" in capsys.readouterr().err
    flags |= dict(model=mine.bart, route_training="logits", output_dir=tmp_path / "other")
    assert finetune(typed(flags)) == 2
    assert "the routes come from 'inputs' in every step" in capsys.readouterr().err


def test_a_prediction_needs_a_trained_router(mine, make_model, tmp_path, capsys):
    make_model(2, torch.float32, route_source="average").save_pretrained(tmp_path / "average")
    absent = dict.fromkeys(("do_train", "initialize_from_vanilla", "num_experts", "init_eps"))
    flags = MINE | absent | dict(do_predict=True, checkpoint=tmp_path / "average")
    assert run(mine.gym, mine.bart, tmp_path / "out", **flags) == 2
    assert "has no router of it; train one (--do_train)" in capsys.readouterr().err


def test_the_plugin_of_the_guide_trains_low_rank_experts(mine, tmp_path):
    (tmp_path / "two_layers.py").write_text(PLUGIN)
    of_guide = MINE | dict(route_source="two_layers", router_hidden_dim=4, plugin=tmp_path / "two_layers.py")
    trained = mine.run("two_layers", **of_guide, expert_kind="lora", init_eps=None)
    del choices.ROUTE_SOURCES["two_layers"]
    assert weights(trained / "best")["router.2.weight"].shape == (3 * 2, 4)
    assert "routes: two_layers; 2 experts of rank 16" in (trained / "log.txt").read_text()


# ---- wrong entries


@pytest.mark.parametrize(
    ("registry", "routes", "problem"),
    [
        ("sources", lambda B: torch.full((B, 4, 3), 0.4), "rows that sum to 1.2 to 1.2; it must"),
        ("sources", lambda B: torch.tensor([0.5, -0.5, 1.0]).expand(B, 4, 3), "the weight -0.5"),
        ("sources", lambda B: torch.full((1, 4, 3), 1 / 3), r"float32 numbers of shape \(1, 4, 3\)"),
        ("sources", lambda B: torch.ones(B, 4, 3, dtype=torch.long), "int64 numbers of shape"),
        ("sources", lambda B: None, "a NoneType"),
        ("modes", lambda B: torch.full((B, 4, 3), 2 / 3), "rows that sum to 2 to 2"),
    ],
)
def test_other_values_than_weights_are_an_error(make_model, monkeypatch, registry, routes, problem):
    model = make_model(dtype=torch.float32)
    if registry == "sources":
        monkeypatch.setitem(choices.ROUTE_SOURCES, "mine", lambda model, ids: routes(len(ids)))
        model.use_routes("mine")
        name = r"ROUTE_SOURCES\['mine'\]"
    else:
        monkeypatch.setitem(choices.ROUTER_MODES, "mine", lambda logits, *_, **__: routes(len(logits)))
        model.config.router_mode, name = "mine", r"ROUTER_MODES\['mine'\]"
    for training in (True, False):
        with pytest.raises(InputError, match=f"{name} returned {problem}"):
            model.train(training).draw_routes(torch.tensor([0, 1]))
    with pytest.raises(InputError, match=f"{name} returned"):
        model.routes_for(["a", "b"])
