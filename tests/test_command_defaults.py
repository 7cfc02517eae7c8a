"""What commands do without flags: the published scripts' values, and what a run says of itself."""

import json

import pytest
import torch

from routing_moe.config.finetune import finetune_settings
from routing_moe.config.shared import text_settings
from routing_moe.config.train import train_settings
from routing_moe.io.precision import chosen_precision

pytestmark = pytest.mark.usefixtures("quick_pictures")

# ---- train


def saved_run(folder, **settings):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"settings": {"output_dir": str(folder)} | settings}))


def test_training_has_the_values_of_the_published_scripts():
    settings = train_settings({"output_dir": "new"})
    assert (settings.do_train, settings.do_predict) == (True, True)
    assert (settings.initialize_from_vanilla, settings.start.described) == (True, "facebook/bart-base")
    assert (settings.total_steps, settings.eval_period, settings.step_size) == (30_000, 750, 32)
    assert (settings.learning_rate, settings.router_lr, settings.task_model_lr) == (1e-5, 1e-3, 1e-2)


@pytest.mark.parametrize("named", [{"checkpoint_name": "init"}, {"checkpoint": "{}/init"}])
@pytest.mark.parametrize(("kind", "rate"), [("layer", 1e-5), ("lora", 1e-3)])
def test_the_learning_rate_is_that_of_the_kind_of_experts(kind, rate, named, tmp_path):
    folder = {"output_dir": str(tmp_path)}
    assert train_settings(folder | {"expert_kind": kind}).learning_rate == rate
    (tmp_path / "init").mkdir()
    (tmp_path / "init/config.json").write_text(json.dumps({"expert_kind": kind}))
    start = folder | {name: value.format(tmp_path) for name, value in named.items()}
    assert train_settings(start).learning_rate == rate
    assert train_settings(start | {"learning_rate": 3e-5}).learning_rate == 3e-5
    assert train_settings(start).initialize_from_vanilla is False


def test_a_resumed_run_keeps_its_start_and_its_rate(tmp_path):
    saved_run(tmp_path / "run", initialize_from_vanilla=False, learning_rate=2e-4, checkpoint_name="init")
    given = {"output_dir": str(tmp_path / "run"), "resume": True}
    settings = train_settings(given)
    assert (settings.initialize_from_vanilla, settings.learning_rate) == (False, 2e-4)
    assert train_settings(given | {"learning_rate": 1e-4}).learning_rate == 1e-4


OF_ROUTERS = dict(router_lr=0.01, task_model_lr=0.01, taskvecs_dim=8, anneal_rate=0.003, minimum_tau=0.3)
VARIANTS = {
    "average": dict(avg_routing=True),
    "random": dict(random_routing=True),
    "random for each task": dict(task_level_random_routing=True),
    "one expert": dict(num_experts=1),
    "given": dict(task_routes="tasks", num_experts=None),
    "table": dict(router_nn_type="table", router_mode="bernoulli"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_accepts_the_flags_of_routers(name, world):
    changed = OF_ROUTERS | dict(total_steps=1, num_beams=1) | VARIANTS[name]
    folder = world.run(f"variant {name}", **changed)
    (folder / "cost.json").unlink()  # else the second call looks at nothing
    world.run(folder.name, **changed, resume=True)


@pytest.mark.parametrize(
    ("launcher", "on_gpu", "expected"), [(None, True, "bf16"), (None, False, "no"), ("no", True, "no")]
)
def test_the_precision_is_that_of_the_launcher_else_of_the_device(launcher, on_gpu, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if launcher:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    assert chosen_precision(None) == expected


# ---- what a run says


def test_fine_tuning_has_the_published_grid_and_trains_and_predicts():
    settings = finetune_settings(
        {"task_dir": "gym/t", "output_dir": "out", "checkpoint": "None"}
    ).with_lists()
    assert (settings.do_train, settings.do_predict) == (True, True)
    assert settings.start.described == "facebook/bart-base"
    assert (settings.learning_rate_list, settings.bsz_list) == ([1e-5, 2e-5, 5e-5], [2, 4, 8])
    assert (settings.total_steps, settings.eval_period, settings.warmup_steps) == (1000, 100, 100)
    assert (settings.gradient_accumulation_steps, settings.weight_decay) == (1, 0.01)
    assert settings.max_grad_norm == 0.1
    alone = finetune_settings({"task_dir": "gym/t", "output_dir": "out", "do_predict": True})
    assert (alone.do_train, alone.do_predict) == (False, True)


def test_fine_tuning_reads_texts_as_the_run_that_it_starts_from(grids):
    run_folder = grids.mixture("lowercase", do_lowercase=True)
    start = dict(moe_init=True, init_dir=run_folder, num_beams=None)
    start |= dict.fromkeys(("max_input_length", "max_output_length"))
    saved = json.loads((run_folder / "run.json").read_text())["settings"]
    settings = grids.settings("as_trained", **start)
    assert text_settings(settings).items() <= saved.items()
    assert (settings.max_input_length, settings.num_beams, settings.do_lowercase) == (24, 2, True)
    given = grids.settings("given", **start | dict(max_input_length=20, num_beams=1))
    assert (given.max_input_length, given.max_output_length, given.num_beams) == (20, 6, 1)
