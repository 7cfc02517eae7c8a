"""Routers, selections, sources of routes and metrics of users: by --plugin, or from Python."""

import json
import sys

import numpy as np
import pytest
import torch
from tiny_grids import QUICK, grid_flags
from tiny_runs import METRICS, World, assert_equal, fail_in_step, run, weights

import dataloader
import routing_moe
from dataloader.errors import InputError
from routing_moe import Routed, RoutingBartForConditionalGeneration
from routing_moe.cli import add_task, answer, finetune, merge, train
from routing_moe.config import choices
from routing_moe.config.plugins import load_plugin
from routing_moe.config.train import train_settings
from routing_moe.finetuning.trial import TrialRunner
from routing_moe.results.overview import cost_markdown, costs_of_runs, means_of_variants
from routing_moe.results.run_cost import read_cost, reference_cost
from routing_moe.results.runs import Run

pytestmark = pytest.mark.usefixtures("quick_pictures")

PLUGIN = '''
import dataloader, routing_moe, torch

class Cosine(torch.nn.Module):
    """Logits are products of a task's unit vector with a vector of each layer and expert."""

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
    L, E = model.config.num_layers, model.config.num_experts
    experts_BL = (task_ids_B[:, None] + torch.arange(L, device=task_ids_B.device)) % E
    return torch.nn.functional.one_hot(experts_BL, E).to(model.routing_dtype)

def letters(predictions, answers):
    return 1 + sum(p[:1] == a[0][:1] for p, a in zip(predictions, answers)) / len(predictions)

routing_moe.ROUTERS["cosine"] = Cosine
routing_moe.ROUTER_MODES["squared"] = squared
routing_moe.ROUTE_SOURCES["alternating"] = alternating
dataloader.METRIC_FUNCTIONS["letters"] = letters
'''
MINE = dict(router_nn_type="cosine", router_mode="squared", router_hidden_dim=None)


def forget() -> None:
    """Makes this process as one without the plugin."""
    for name in [name for name in sys.modules if name.startswith("plugin:")]:
        del sys.modules[name]
    for added in (choices.ROUTERS, choices.ROUTER_MODES, choices.ROUTE_SOURCES, dataloader.METRIC_FUNCTIONS):
        for name in ("cosine", "squared", "alternating", "letters"):
            added.pop(name, None)


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A world whose task `opposite` has a metric of the plugin, with runs `learned` and `source`."""
    world = World(tmp_path_factory.mktemp("plugins"))
    world.plugin = world / "my.py"
    world.plugin.write_text(PLUGIN)
    (world.gym / "metrics.json").write_text(json.dumps(METRICS | {"opposite": "letters"}))
    both = dict(plugin=world.plugin, do_predict=True)
    world.learned = world.run("learned", **both, **MINE)
    world.source = world.run("source", **both, route_source="alternating", router_lr=None)
    return world


@pytest.fixture(autouse=True)
def without_the_plugin(mine):
    forget()
    yield
    forget()


def test_a_run_records_its_plugin_and_is_resumed_and_scored_by_it(mine, monkeypatch):
    settings = json.loads((mine.learned / "run.json").read_text())["settings"]
    assert settings["plugin"] == str(mine.plugin)
    scores = (mine.learned / "best/eval-test-performance.csv").read_text()
    assert "opposite,opposite_12_100,letters,1." in scores
    monkeypatch.chdir(mine.folder)
    fail_in_step(5, lambda: mine.run("resumed", **MINE, plugin="my.py"))
    forget()
    resumed = mine.run("resumed", **MINE, resume=True)
    assert_equal(weights(resumed / "last"), weights(mine.learned / "last"))
    forget()
    assert train.main(["--do_predict", "--prefix", "again_", "--output_dir", str(resumed)]) == 0
    assert (resumed / "best/again_eval-test-performance.csv").read_text() == scores


def test_a_checkpoint_without_its_plugin_is_one_error_that_names_it(mine, tmp_path, capsys):
    (tmp_path / "new.txt").write_text("up\n")
    words = ["--checkpoint", str(mine.learned), "--task", "opposite", "--inputs", str(tmp_path / "new.txt")]
    assert answer.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        f"error: {mine.learned}/best/config.json: not a valid configuration (router_nn_type"
    )
    assert "is 'cosine'; give the --plugin that adds it to routing_moe.ROUTERS, or one of linear, " in error
    assert answer.main([*words, "--plugin", str(mine.plugin)]) == 0
    assert json.loads(capsys.readouterr().out)["input"] == "up"
    forget()
    assert merge.main(["--routes_from", str(mine.learned), "--output_dir", str(tmp_path / "stage2"),
                       "--model", str(mine.bart), "--plugin", str(mine.plugin)]) == 0  # fmt: skip
    merged = weights(tmp_path / "stage2/init")["router.keys"]
    assert torch.equal(merged, weights(mine.learned / "best")["router.keys"])


def test_a_run_whose_router_cannot_be_counted_has_a_cost_without_flops(mine, tmp_path):
    cost = read_cost(mine.learned)
    assert (cost["total_flops"], cost["flops_per_example"], cost["total_flops_with_start"]) == (None,) * 3
    assert cost["steps_with_start"] == 6
    assert "FLOPs of its router cannot be counted" in (mine.learned / "log.txt").read_text()
    costs = costs_of_runs([Run("mine", "1", mine.learned, {}, None, {})])
    means = means_of_variants(costs.drop(columns="unknown")).reset_index()
    row = cost_markdown(means).splitlines()[-1]
    assert [cell.strip() for cell in row.split("|")[5:8]] == ["-", "6", "-"]
    with pytest.raises(InputError, match=r"cannot be counted; give --total_steps"):
        reference_cost(mine.learned)
    further = mine.run("further", **MINE, plugin=mine.plugin, checkpoint=mine.learned / "last",
                       initialize_from_vanilla=None, num_experts=None)  # fmt: skip
    assert (read_cost(further)["steps_with_start"], read_cost(further)["total_flops_with_start"]) == (
        12,
        None,
    )


def test_routes_of_a_source_are_those_of_training_scores_and_answers(mine):
    load_plugin(mine.plugin)
    rows = [*METRICS]  # sorted, as the task names of a model
    tasks = (mine.source / "6-steps/route_tasks.txt").read_text().split()
    expected = np.eye(2)[(np.array([rows.index(task) for task in tasks])[:, None] + np.arange(3)) % 2]
    assert np.array_equal(np.load(mine.source / "6-steps/route.npy"), expected)
    assert "routes: alternating; 2 experts" in (mine.source / "log.txt").read_text()
    assert read_cost(mine.source)["total_flops"] > 0
    model = Routed.load(mine.source)
    task = model.task("count")
    assert (task.words, task.route_LE.tolist()) == (
        "route of alternating",
        expected[tasks.index("count")].tolist(),
    )
    with pytest.raises(InputError, match="was not trained on 'counting'; did you mean 'count'"):
        model.task("counting")


def test_a_grid_runs_along_the_routes_of_a_source(mine, tmp_path, monkeypatch, capsys):
    flags = dict(task_dir=mine.gym / "plural", learning_rate_list=[0.01], moe_init=True, num_beams=None)
    start = dict(init_dir=mine.source, plugin=mine.plugin)
    loaded = []
    monkeypatch.setattr(TrialRunner, "__init__", lambda self, settings: loaded.append(settings) or 1 / 0)
    words = grid_flags(mine.gym, mine.bart, tmp_path / "grid", **QUICK | flags | start)
    assert finetune.main(words) == 1
    monkeypatch.undo()
    forget()  # as in a process of its own
    (settings,) = loaded
    runner = TrialRunner(settings)
    model, words, _ = runner.starts.model_for("plural_12_100", None)
    assert (model.config.route_source, words) == ("alternating", "alternating")
    refused = grid_flags(mine.gym, mine.bart, tmp_path / "g", **flags | start, route_training="plain")
    assert finetune.main(refused) == 2
    assert "--route_training is plain, but the routes come from 'alternating'" in capsys.readouterr().err


def test_entries_count_when_they_are_used(tmp_path, make_model, batch):
    class Constant(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            self.logits_LE = torch.nn.Parameter(torch.ones(config.num_layers, config.num_experts))

        def forward(self, vectors_ND):
            return self.logits_LE.expand(len(vectors_ND), -1, -1)

    with pytest.raises(ValueError, match="router_nn_type is 'cosine'; give the --plugin that adds it"):
        make_model(router_nn_type="cosine")
    routing_moe.ROUTERS["cosine"] = Constant
    model = make_model(router_nn_type="cosine", router_mode="softmax")
    model.save_pretrained(tmp_path)
    loaded = RoutingBartForConditionalGeneration.from_pretrained(tmp_path)
    assert type(loaded.router) is Constant
    assert torch.equal(loaded.routes_for(["a"]), model.routes_for(["a"]))
    model(**batch, task_ids=torch.tensor([0, 1, 2, 0])).loss.backward()
    assert model.router.logits_LE.grad is not None
    forget()
    with pytest.raises(ValueError, match="router_nn_type is 'cosine'"):
        RoutingBartForConditionalGeneration.from_pretrained(tmp_path)


def test_a_metric_of_the_plugin_is_accepted_for_a_new_task(mine, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("q,a\n" + "".join(f"q{i},a{i % 2}\n" for i in range(60)))
    words = ["--gym", str(tmp_path / "gym"), "--name", "t", "--from", str(tmp_path / "t.csv"),
             "--input", "{q}", "--output", "{a}", "--metric", "letters"]  # fmt: skip
    assert add_task.main(words) == 2
    assert "--metric is 'letters'; choose from EM" in capsys.readouterr().err
    assert add_task.main([*words, "--plugin", str(mine.plugin)]) == 0


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file *.py; a run without the flag takes that of its run.json"),
        ("import torch\n\n1 / 0\n", "my.py:3: ZeroDivisionError: division by zero"),
        ("x = 1\nx = = 2\n", "my.py:2: SyntaxError: invalid syntax"),
    ],
)
def test_a_plugin_that_cannot_be_run_is_named_with_the_line(mine, tmp_path, capsys, content, problem):
    if content is not None:
        (tmp_path / "my.py").write_text(content)
    assert run(mine.gym, mine.bart, tmp_path / "run", plugin=tmp_path / "my.py") == 2
    error = capsys.readouterr().err
    assert (error.startswith(f"error: --plugin {tmp_path}/my.py"), problem in error) == (True, True), error
    assert not (tmp_path / "run").exists()


def test_a_source_that_has_a_flag_is_not_chosen_by_name(mine, tmp_path, capsys):
    for flags, problem in (
        (
            dict(route_source="average"),
            "--route_source is 'average': the router, or its own flag, selects it",
        ),
        (dict(route_source="alternating", avg_routing=True, plugin=mine.plugin), "give one of them"),
        (dict(route_source="alternatin", plugin=mine.plugin), "did you mean 'alternating'?"),
    ):
        assert run(mine.gym, mine.bart, tmp_path / "run", **flags) == 2
        assert problem in capsys.readouterr().err


def test_a_run_on_the_hub_chooses_no_file_to_run(mine, monkeypatch):
    given = {"do_predict": True, "checkpoint": "owner/name", "output_dir": "x"}
    monkeypatch.setattr("routing_moe.config.train.folder_of_run", lambda _: mine.learned)
    assert train_settings(given).plugin is None
    assert "cosine" not in choices.ROUTERS
