"""All trackers of accelerate can be chosen, and show a run under its name."""

import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from routing_moe.config.choices import TRACKERS
from routing_moe.io.trackers import start_trackers


def test_all_trackers_of_accelerate_can_be_chosen():
    assert sorted(TRACKERS) == sorted(["csv", *LOGGER_TYPE_TO_CLASS])


@pytest.mark.parametrize(
    ("tracker", "shown"),
    [
        ("aim", lambda library: library.Run().name),
        ("clearml", lambda library: library.Task.init.call_args.kwargs["task_name"]),
        ("comet_ml", lambda library: library.ExperimentConfig.call_args.kwargs["name"]),
        ("dvclive", lambda library: library.Live.call_args.kwargs["exp_name"]),
        ("mlflow", lambda library: library.start_run.call_args.kwargs["run_name"]),
        ("swanlab", lambda library: library.init.call_args.kwargs["experiment_name"]),
        ("trackio", lambda library: library.init.call_args.kwargs["name"]),
        ("wandb", lambda library: library.init.call_args.kwargs["name"]),
    ],
)
def test_a_tracker_shows_the_last_two_folders(tracker, shown, tmp_path, monkeypatch):
    library = MagicMock(__version__="3.41.0")
    library.Task.current_task.return_value = None
    monkeypatch.setitem(sys.modules, tracker, library)
    monkeypatch.setattr(LOGGER_TYPE_TO_CLASS[tracker], "store_init_configuration", lambda *_: None)
    folder = tmp_path / "softmax/seed42"
    folder.mkdir(parents=True)
    settings = SimpleNamespace(output_dir=folder, log_with=tracker, to_dict=dict)
    start_trackers(settings, Accelerator(cpu=True), first_step=0)
    assert shown(library) == "softmax-seed42"
