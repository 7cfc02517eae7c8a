"""What commands do without flags: the published scripts' values, and what a run says of itself."""

import json

import pytest
import torch

from routing_moe.config.finetune import finetune_settings
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
