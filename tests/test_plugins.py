"""Routers, selections, sources of routes and metrics of users: by --plugin, or from Python."""

import json
import sys

import numpy as np
import pytest
import torch
from tiny_grids import QUICK, grid_flags
from tiny_runs import METRICS, World, assert_equal, fail_in_step, run, weights

import dataloader
from dataloader.errors import InputError
from routing_moe import Routed, RouteSource, RoutingBartForConditionalGeneration
from routing_moe.analysis.ablation import routes_without
from routing_moe.cli import answer, finetune, train
from routing_moe.config import choices
from routing_moe.config.measures import MEASURES
from routing_moe.config.plugins import REGISTRIES, load_plugin
from routing_moe.config.train import train_settings
from routing_moe.finetuning.trial import TrialRunner
from routing_moe.io.logs import early_notes
from routing_moe.results.run_cost import read_cost

pytestmark = pytest.mark.usefixtures("quick_pictures")
PLUGIN = """
import dataloader, routing_moe, torch

class Cosine(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        size = config.num_layers, config.num_experts, config.router_input_dim
        self.keys = torch.nn.Parameter(torch.randn(size))

    def forward(self, vectors_ND):
        assert vectors_ND.norm().item() > 0  # needs values
        return torch.einsum("nd,led->nle", torch.nn.functional.normalize(vectors_ND, dim=-1), self.keys)

def squared(logits_NLE, temperature, noise, **_):
    weights_NLE = (logits_NLE / temperature).relu().square() + 1e-3
    return weights_NLE / weights_NLE.sum(-1, keepdim=True)

def alternating(model, task_ids_B):
    experts_BL = (task_ids_B[:, None] + torch.arange(model.config.num_layers)) % model.config.num_experts
    return torch.nn.functional.one_hot(experts_BL, model.config.num_experts).to(model.routing_dtype)

routing_moe.ROUTERS["cosine"] = Cosine
routing_moe.ROUTER_MODES["squared"] = squared
routing_moe.ROUTE_SOURCES["alternating"] = alternating
dataloader.METRIC_FUNCTIONS["one"] = lambda predictions, answers: 1.0
"""
MINE = dict(router_nn_type="cosine", router_mode="squared", router_hidden_dim=None)


def forget() -> None:
    """Makes this process as one without the plugin."""
    early_notes.clear()
    for name in [name for name in sys.modules if name.startswith("plugin:")]:
        del sys.modules[name]
    for added in (choices.ROUTERS, choices.ROUTER_MODES, choices.ROUTE_SOURCES, dataloader.METRIC_FUNCTIONS):
        for name in ("cosine", "squared", "alternating", "one"):
            added.pop(name, None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A world whose task `opposite` has a metric of the plugin, with runs `learned` and `source`."""
    world = World(tmp_path_factory.mktemp("plugins"))
    world.plugin = world / "my.py"
    world.plugin.write_text(PLUGIN)
    (world.gym / "metrics.json").write_text(json.dumps(METRICS | {"opposite": "one"}))
    world.learned = world.run("learned", plugin=world.plugin, do_predict=True, **MINE)
    world.source = world.run("source", plugin=world.plugin, route_source="alternating", router_lr=None)
    return world


@pytest.fixture(autouse=True)
def mine(runs):
    forget()
    yield runs
    forget()


class Set(torch.nn.Module, RouteSource):
    """Routes of equal weights; its parameters are set by the library's functions."""

    def __init__(self, config):
        super().__init__()
        self.raw, self.map = torch.nn.Parameter(torch.empty(3)), torch.nn.Linear(2, 2)
        torch.nn.init.constant_(self.raw, 3)
        torch.nn.init.zeros_(self.map.weight)


@pytest.mark.parametrize("fields", [{}, dict(expert_kind="lora")])
def test_a_source_and_a_router_of_the_user_have_their_own_initialisation(make_model, monkeypatch, fields):
    monkeypatch.setitem(choices.ROUTE_SOURCES, "set", Set)
    monkeypatch.setitem(choices.ROUTERS, "set", Set)
    models = [make_model(route_source="set", **fields), make_model(router_nn_type="set", **fields)]
    models.append(make_model(route_source="average", **fields))
    models[-1].use_routes("set")
    for model in models:
        assert (model.router.raw == 3).all()
        assert not model.router.map.weight.any()


def test_a_class_that_is_no_source_and_a_function_that_is_no_measure_are_errors(tmp_path, monkeypatch):
    monkeypatch.setitem(choices.ROUTE_SOURCES, "mine", object)
    monkeypatch.setitem(MEASURES, "mine", len)
    (tmp_path / "my.py").write_text("")
    with pytest.raises(InputError, match=r"MEASURES\['mine'\] must be a Measure") as error:
        load_plugin(str(tmp_path / "my.py"))
    assert "ROUTE_SOURCES['mine'], a class, must be a RouteSource" in str(error.value)


def test_a_run_records_its_plugin_and_is_resumed_and_scored_by_it(mine, monkeypatch):
    assert json.loads((mine.learned / "run.json").read_text())["settings"]["plugin"] == str(mine.plugin)
    scores = (mine.learned / "best/eval-test-performance.csv").read_text()
    assert "opposite,opposite_12_100,one,1.0" in scores
    monkeypatch.chdir(mine.folder)
    fail_in_step(5, lambda: mine.run("resumed", **MINE, plugin="my.py"))
    forget()
    resumed = mine.run("resumed", **MINE, resume=True)
    assert_equal(weights(resumed / "last"), weights(mine.learned / "last"))
    forget()
    assert train.main(["--do_predict", "--prefix", "again_", "--output_dir", str(resumed)]) == 0
    assert (resumed / "best/again_eval-test-performance.csv").read_text() == scores
    forget()
    monkeypatch.setattr("routing_moe.config.train.folder_of_run", lambda _: mine.learned)
    shared = {"do_predict": True, "checkpoint": "owner/name", "output_dir": "x"}  # of the hub: runs no file
    assert (train_settings(shared).plugin, "cosine" in choices.ROUTERS) == (None, False)


def test_a_checkpoint_without_its_plugin_is_one_error_that_names_it(mine, tmp_path, capsys):
    (tmp_path / "new.txt").write_text("up\n")
    words = ["--checkpoint", str(mine.learned), "--task", "opposite", "--inputs", str(tmp_path / "new.txt")]
    assert answer.main(words) == 2
    error = capsys.readouterr().err
    file = f"{mine.learned}/best/config.json"
    assert error.startswith(f"error: {file}: not a valid configuration (router_nn_type")
    assert "is 'cosine'; add it (--plugin), or choose linear, linear_layer_specific, " in error
    assert answer.main([*words, "--plugin", str(mine.plugin)]) == 0
    assert json.loads(capsys.readouterr().out)["input"] == "up"


def test_routes_of_a_source_are_those_of_training_answers_and_grids(mine, tmp_path, monkeypatch, capsys):
    load_plugin(mine.plugin)
    tasks = (mine.source / "6-steps/route_tasks.txt").read_text().split()
    rows = np.array([[*METRICS].index(task) for task in tasks])  # METRICS is sorted, as the names of a model
    expected = np.eye(2)[(rows[:, None] + np.arange(3)) % 2]
    assert np.array_equal(np.load(mine.source / "6-steps/route.npy"), expected)
    assert read_cost(mine.source)["total_flops"] > 0
    assert read_cost(mine.learned)["total_flops"] > 0
    task = Routed.load(mine.source).task("count")
    assert task.description == "route of alternating"
    assert task.route_LE.tolist() == expected[tasks.index("count")].tolist()
    made = []
    monkeypatch.setattr(TrialRunner, "__init__", lambda self, settings: made.append(settings) or 1 / 0)
    flags = dict(task_dir=mine.gym / "count", learning_rate_list=[0.01], moe_init=True, num_beams=None)
    flags |= dict(init_dir=mine.source, plugin=mine.plugin)
    assert finetune.main(grid_flags(mine.gym, mine.bart, tmp_path / "grid", **QUICK | flags)) == 1
    monkeypatch.undo()
    forget()  # as in a process of its own
    runner = TrialRunner(*made)
    model, words, _ = runner.starts.model_for("count_12_100", None)
    assert (model.config.route_source, words) == ("alternating", "alternating")
    numbers = torch.from_numpy(runner.file("count_12_100", "dev").encoded.task_ids_N)
    assert (model.draw_routes(numbers).numpy() == expected[tasks.index("count")]).all()
    flags["route_training"] = "plain"
    assert finetune.main(grid_flags(mine.gym, mine.bart, tmp_path / "g", **flags)) == 2
    assert "--route_training is plain, but the routes come from 'alternating'" in capsys.readouterr().err


def test_entries_count_when_they_are_used(mine, tmp_path, make_model, batch):
    with pytest.raises(ValueError, match=r"router_nn_type is 'cosine'; add it \(--plugin\)"):
        make_model(router_nn_type="cosine")
    load_plugin(mine.plugin)
    model = make_model(router_nn_type="cosine", router_mode="squared")
    model.save_pretrained(tmp_path)
    loaded = RoutingBartForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded.routes_for(["a"]), model.routes_for(["a"]))
    without_LE = routes_without(model, ["a"], ((1, 2),))[0]
    assert without_LE[1, 2] == 0
    torch.testing.assert_close(without_LE.sum(-1), torch.ones_like(without_LE[:, 0]))
    model(**batch, task_ids=torch.tensor([0, 1, 2, 0])).loss.backward()
    assert model.router.keys.grad.abs().sum() > 0
    forget()
    with pytest.raises(ValueError, match="router_nn_type is 'cosine'"):
        RoutingBartForConditionalGeneration.from_pretrained(tmp_path)


def test_a_metric_of_the_plugin_is_accepted_for_a_new_task(mine, add, capsys):
    assert add(metric="one") == 2
    assert "--metric is 'one'; choose from EM" in capsys.readouterr().err
    assert add(metric="one", plugin=mine.plugin) == 0
    forget()
    assert add(name="another") == 0
    assert add(metric="one") == 2


REPLACING = """
import dataloader, functools, routing_moe
from routing_moe.model import routers

routing_moe.ROUTERS["linear"] = type("Mine", (routers.LinearRouter,), {})
routing_moe.ROUTER_MODES["softmax"] = functools.partial(lambda logits, *_, **__: logits.softmax(-1))
routing_moe.ROUTER_MODES["gumbel_softmax"] = routing_moe.ROUTER_MODES["gumbel_softmax_st"]
dataloader.METRIC_FUNCTIONS["ACC"] = lambda predictions, answers: 0.5
dataloader.METRIC_FUNCTIONS["one"] = dataloader.METRIC_FUNCTIONS["EM"]
"""


def test_logs_have_a_note_of_each_entry_that_a_plugin_replaces(mine, tmp_path, monkeypatch, capsys):
    for entries in REGISTRIES.values():
        for name, value in entries.items():
            monkeypatch.setitem(entries, name, value)  # for the end of the test
    (tmp_path / "my.py").write_text(REPLACING)
    assert run(mine.gym, mine.bart, tmp_path / "run", plugin=tmp_path / "my.py", total_steps=1) == 0
    replaced = [f"ROUTER_MODES['{name}']" for name in ("softmax", "gumbel_softmax")]
    replaced = ["ROUTERS['linear']", *replaced, "METRIC_FUNCTIONS['ACC']"]
    for text in (capsys.readouterr().err, (tmp_path / "run/log.txt").read_text()):
        notes = [line[line.index("note: ") :] for line in text.splitlines() if "replaces" in line]
        assert notes == [f"note: --plugin {tmp_path}/my.py replaces {entry}" for entry in replaced]


def test_a_score_that_is_not_a_number_ends_a_command_that_names_the_task(mine, tmp_path, monkeypatch, capsys):
    load_plugin(mine.plugin)
    monkeypatch.setitem(dataloader.METRIC_FUNCTIONS, "one", lambda *_: float("nan"))
    error = "error: task opposite: the metric one returned nan; it must return one finite number\n"
    assert run(mine.gym, mine.bart, tmp_path / "run", plugin=mine.plugin, total_steps=1) == 2
    assert capsys.readouterr().err.endswith(error)
    flags = dict(task_dir=mine.gym / "opposite", learning_rate_list=[0.01], num_beams=None)
    assert finetune.main(grid_flags(mine.gym, mine.bart, tmp_path / "grid", **QUICK | flags)) == 2
    assert capsys.readouterr().err.endswith(error)


@pytest.mark.parametrize(
    ("content", "flags", "problem"),
    [
        (None, {}, "--plugin {}: no such file *.py (without the flag, it is that of run.json)"),
        ("import torch\n\n1 / 0\n", {}, "--plugin {}:3: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", {}, "--plugin {}:2: SystemExit: 3"),
        ("x = 1\nx = = 2\n", {}, "--plugin {}:2: SyntaxError: invalid syntax"),
        (PLUGIN, dict(route_source="alternatin"), "--route_source is 'alternatin'; choose from learned, "),
        (PLUGIN, dict(route_source="average"), "--route_source is 'average'; give inputs or a source of "),
        (PLUGIN, dict(route_source="inputs"), "--router_hidden_dim is 4, but --route_source inputs is a "),
        (PLUGIN, dict(route_source="alternating", avg_routing=True), "--avg_routing and --route_source each"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(mine, tmp_path, capsys, content, flags, problem):
    if content is not None:
        (tmp_path / "my.py").write_text(content)
    assert run(mine.gym, mine.bart, tmp_path / "run", plugin=tmp_path / "my.py", **flags) == 2
    assert capsys.readouterr().err.startswith("error: " + problem.replace("{}", f"{tmp_path}/my.py"))
    assert not (tmp_path / "run").exists()


def test_a_router_that_returns_another_shape_is_named(make_model):
    model = make_model()
    model.router = torch.nn.Linear(8, 3).double()
    wrong = r"router linear_layer_specific: it returned \(2, 3\), but \(N, L, E\) is \(2, 4, 3\)"
    with pytest.raises(InputError, match=wrong):
        model.router_logits(torch.tensor([0, 1]))
