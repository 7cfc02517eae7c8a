"""Several processes: tensors in collectives, evaluation, assignment of GPUs, timeouts."""

import os
import re
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from forks import group_of_two, in_two_processes
from tiny_runs import ROOT
from tiny_steps import OneOfSeveral, Words, file_of, parameters

from dataloader import executor
from routing_moe.evaluation import batches, scoring
from routing_moe.evaluation.batches import answering_cost, draws_of, own_share
from routing_moe.evaluation.route_losses import losses_of_files
from routing_moe.evaluation.scored_files import Decoding, Pool
from routing_moe.evaluation.scoring import answer
from routing_moe.io.accelerator import make_accelerator


@pytest.mark.parametrize("flags", [{}, dict(shared_base=True)])
def test_steps_of_two_processes_follow_nccls_rules_and_equal_those_of_one(flags, make_stepper, tmp_path):
    def two_steps():
        stepper = make_stepper({"train_batch_size": 8} | flags, router_mode="softmax")
        losses = [stepper.step(step)["loss"] for step in range(2)]
        return losses, parameters(stepper)

    (losses, after), (both, _) = two_steps(), in_two_processes(tmp_path, two_steps)
    for found in both:
        assert isinstance(found, tuple), found
        assert found[0] == pytest.approx(losses, rel=1e-9)
        torch.testing.assert_close(found[1], after, rtol=0, atol=1e-9)


FILES = [file_of(name, n) for name, n in zip("abcdab", [8, 1, 9, 1, 7, 2], strict=True)]


def test_scores_and_loss_of_three_processes_are_bit_identical_to_those_of_one(make_model, monkeypatch):
    monkeypatch.setattr(batches, "LONG_EXAMPLE", 20 + 5)  # so that there are several batches
    model = make_model(router_mode="softmax")
    decoding = Decoding(num_beams=1, max_output_length=5, batch_size=4)
    alone = OneOfSeveral(0, 1)
    expected = answer(model, Words(), FILES, decoding, alone)
    losses = losses_of_files(model, FILES, decoding, alone)
    gathered, summed = [], []
    monkeypatch.setattr(scoring, "gather_object", lambda done: gathered.append(done) or done)
    for rank in range(3):
        one = OneOfSeveral(rank, 3)
        answer(model, Words(), FILES, decoding, one)
        losses_of_files(model, FILES, decoding, one)
        summed += [tensor for tensor, _ in one.summed]
    together = [batch for done in gathered for batch in done]
    assert sorted(np.concatenate([indices for _, indices, _ in together]).tolist()) == list(range(28))
    monkeypatch.setattr(scoring, "gather_object", lambda done: together)
    assert answer(model, Words(), FILES, decoding, OneOfSeveral(0, 3)) == expected
    assert sum(summed)[0, 0].tolist() == np.concatenate([own["loss"] for own in losses]).tolist()


def test_sampled_routes_are_the_same_in_all_processes(make_model, tmp_path):
    model = make_model()
    decoding = Decoding(num_beams=1, max_output_length=5, sampled_routes=True)

    def routes_and_answers():
        torch.manual_seed(int(os.environ["RANK"]))
        accelerator = make_accelerator()
        (routes,) = draws_of(model, Pool(FILES), decoding, accelerator)
        answers = answer(model, Words(), FILES, decoding, accelerator)
        return routes.rows_KLE, [[draw.texts for draw in draws] for draws in answers]

    (one, other), _ = in_two_processes(tmp_path, routes_and_answers)
    assert isinstance(one, tuple), one
    assert torch.equal(one[0], other[0])
    assert one[1] == other[1]


def test_batches_are_assigned_by_their_cost():
    costs = [100, 1, 90, 1, 1, 90, 1, 100]
    planned = [SimpleNamespace(cost=cost) for cost in costs]
    shares = [own_share(planned, OneOfSeveral(rank, 4)) for rank in range(4)]
    assert sorted(i for share in shares for i in share) == list(range(8))
    assert sorted(sum(costs[i] for i in share) for share in shares) == [92, 92, 100, 100]


def test_a_batchs_cost_counts_inputs_answers_beams_and_options():
    pool = Pool([file_of("a", 5), file_of("b", 5, n_options=20)])
    encoded, options = pool.encoded, pool.option_tokens
    sources, answers = encoded.source_lengths_N, [len(answer) for answer in encoded.outputs]
    generated = answering_cost(pool, np.array([0, 1]), False, num_beams=4)
    assert generated == sum(sources[:2]) + 4 * sum(answers[:2])
    S, T = sources[6] + sources[8], sum(len(options[row]) for row in range(20))
    assert answering_cost(pool, np.array([6, 8]), True, num_beams=4) == S + 20 * S + 2 * T


def test_workers_are_spread_over_the_gpus(monkeypatch):
    def shares(workers: int) -> list[str]:
        return [variables["CUDA_VISIBLE_DEVICES"] for variables in executor.environments(workers)]

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5c1a")
    assert shares(5) == ["3", "GPU-5c1a", "3", "GPU-5c1a", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert shares(2) == ["0,2", "1,3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert executor.visible_gpus() == []


def test_workers_share_the_cores_unless_the_user_sets_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert executor.environments(3)[0]["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert executor.environments(3)[0]["OMP_NUM_THREADS"] == "5"


def test_a_process_that_dies_loses_only_its_call_and_the_next_one_has_its_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    one = executor.environments(1)
    monkeypatch.setattr(executor, "environments", lambda workers: one)
    gpu = "__import__('os').environ['CUDA_VISIBLE_DEVICES']"
    calls = {"dies": ("__import__('os')._exit(3)",), "raises": ("1 / 0",)} | dict.fromkeys("abc", (gpu,))
    found = dict(executor.run_calls(eval, calls, workers=2))
    assert "its process died (exit code 3)" in str(found["dies"])
    assert "ZeroDivisionError" in found["raises"].__notes__[0]
    assert [found[key] for key in "abc"] == ["4,7"] * 3


def test_a_process_waits_for_the_others_as_long_as_an_evaluation_may_take(monkeypatch):
    class Started(Exception):
        pass

    def start(**named):
        raise Started(named["timeout"])

    for name, value in group_of_two(0, port=29500).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "init_process_group", start)
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(Started) as started:
        make_accelerator()
    AcceleratorState._reset_state(reset_partial_state=True)
    assert started.value.args == (timedelta(days=1),)


def test_every_command_creates_its_accelerator_with_the_same_function():
    folders = [ROOT / name for name in ("routing_moe", "task", "benchmarks")]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    made = [path.name for path in files if re.search(r"\bAccelerator\(", path.read_text())]
    assert made == ["accelerator.py"]
