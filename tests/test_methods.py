"""Methods of example_scripts/methods/: beside slow references, and as a whole study."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from test_documents import code_blocks
from tiny_runs import ROOT, TRAIN_TASKS, World

sys.path.insert(0, str(ROOT / "example_scripts/methods"))

import borrowed_names as names
import collect
import find_groups
import grad_tag
import lora_retriever
import mbc
import quickstart_results
from find_groups import Tasks

from dataloader.errors import InputError
from routing_moe.model.lora import is_of_expert
from routing_moe.results.run_cost import read_cost

LORA = dict(task_routes="tasks", expert_kind="lora", lora_rank=2, lora_alpha=2, num_experts=None)


def experts_of(tasks: Tasks) -> dict[str, int]:
    """Returns {task: expert} of a run with an expert for each task."""
    return dict(zip(tasks.names, tasks.model.routes_for(tasks.names)[:, 0].argmax(-1).tolist(), strict=True))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("methods"))


@pytest.fixture(scope="module")
def dense(world):
    """A run of one BART, which reads task names."""
    return world.run("dense", num_experts=1)


@pytest.fixture(scope="module")
def library(world, dense):
    """A run with a low-rank expert for each task."""
    return world.run("library", vanilla_checkpoint=dense, **LORA)


def log_p_of(model, rows, n: int, route_1LE=None) -> torch.Tensor:
    """Returns log p(answer | input) of row n, as a loop over its tokens."""
    batch = rows.collate(np.array([n]), pad_token_id=model.config.pad_token_id)
    labels_T = batch["labels"][0]
    read = torch.cat([torch.tensor([model.config.decoder_start_token_id]), labels_T[:-1]])
    kept = dict(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    logits_TV = model(**kept, decoder_input_ids=read[None], routes=route_1LE).logits[0]
    return sum(logits.log_softmax(-1)[label] for logits, label in zip(logits_TV, labels_T, strict=True))


# ---- groups


def test_losses_after_estimated_trainings_are_those_of_separate_logistic_regressions(monkeypatch):
    torch.manual_seed(0)
    h_SR, z_SRd, fits_SR = torch.randn(3, 8), torch.randn(3, 8, 2), torch.arange(8).expand(3, 8) % 2
    monkeypatch.setattr(grad_tag, "STEPS", 3000)
    monkeypatch.setattr(grad_tag, "DECAY", 0.1)
    monkeypatch.setattr(grad_tag, "RATE", 0.1)
    found_SR = grad_tag.estimated_losses(h_SR, z_SRd, fits_SR)
    for h_R, z_Rd, losses_R in zip(h_SR.numpy(), z_SRd.numpy(), found_SR.numpy(), strict=True):

        def loss(w, h_R=h_R[1::2], z_Rd=z_Rd[1::2]):
            return np.logaddexp(0, -h_R - z_Rd @ w).mean() + 0.05 * w @ w

        w = minimize(loss, np.zeros(2)).x
        np.testing.assert_allclose(losses_R, np.logaddexp(0, -h_R - z_Rd @ w), atol=1e-3)


def test_features_are_log_odds_and_their_projected_gradients(dense, monkeypatch):
    tasks = Tasks.of_run(dense, seed=0)
    few = tasks.rows.subset(np.arange(0, len(tasks.rows), 5))
    monkeypatch.setattr(grad_tag, "AT_ONCE", 2)
    h_R, z_Rd = grad_tag.features(tasks.model, few, seed=3)
    chosen = grad_tag.chosen_parameters(tasks.model, "layers")
    P = sum(p.numel() for p in chosen.values())
    projection_Pd = torch.randn(P, grad_tag.DIMENSIONS, generator=torch.Generator().manual_seed(3))
    expected = []
    for n in range(len(few)):
        parameters = [p for name, p in tasks.model.named_parameters() if name in chosen]
        tasks.model.requires_grad_(True)
        p = log_p_of(tasks.model, few, n).exp()
        torch.testing.assert_close(h_R[n], (p / (1 - p)).log().detach(), rtol=1e-3, atol=1e-4)
        gradient = torch.autograd.grad((p / (1 - p)).log(), parameters)
        expected.append(torch.cat([g.flatten() for g in gradient]) @ projection_Pd)
    expected = torch.stack(expected)
    torch.testing.assert_close(z_Rd, expected / expected.norm(dim=1).mean(), rtol=1e-3, atol=1e-3)


def test_tasks_that_need_the_same_weights_have_affinity():
    torch.manual_seed(0)
    direction_N1 = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])[:, None]
    h_NR, z_NRd = torch.full((6, 8), -1.0), torch.randn(6, 8, 3) * 0.1
    z_NRd[..., 0] += direction_N1
    found_NN = grad_tag.affinities(h_NR, z_NRd, size=2, seed=0)
    same_NN = (direction_N1 == direction_N1.T).numpy() & ~np.eye(6, dtype=bool)
    assert np.isnan(found_NN.diagonal()).all()
    assert found_NN[same_NN].min() > found_NN[~same_NN & ~np.eye(6, dtype=bool)].max()


def test_mbc_groups_equal_updates_however_they_are_factored(library):
    tasks = Tasks.of_run(library, seed=0)
    with torch.no_grad():
        for name, factor in tasks.model.named_parameters():
            if is_of_expert(name):
                scale = 2.0 if name.endswith("A") else 0.5
                factor.copy_(torch.randn_like(factor)), factor[2].copy_(factor[0] * scale)
    updates_EP = mbc.updates(tasks.model)
    np.testing.assert_allclose(updates_EP[2], updates_EP[0], atol=1e-4)
    groups = dict(zip(tasks.names, mbc.find(tasks, 2), strict=True))
    of_expert = {experts_of(tasks)[name]: group for name, group in groups.items()}
    assert of_expert[0] == of_expert[2] != of_expert[1]


def test_ifca_begins_with_random_groups_and_moves_tasks_to_the_expert_of_lowest_loss(world, dense, library):
    find = find_groups.load_method("ifca")
    assert sorted(find(Tasks.of_run(dense, seed=1), 3)) == [0, 1, 2]
    tasks = Tasks.of_run(library, seed=1)
    route_E1LE = torch.eye(3)[:, None, None].expand(-1, 1, tasks.model.config.num_layers, -1)
    log_p_NER = [
        [[log_p_of(tasks.model, tasks.rows, row, route) for row in tasks.rows_of(n)] for route in route_E1LE]
        for n in range(3)
    ]
    assert find(tasks, 3).tolist() == torch.tensor(log_p_NER).sum(dim=2).argmax(dim=1).tolist()


MINE = """
def find(tasks, groups):
    weight = tasks.model.get_input_embeddings().weight
    weight @ weight.T
    return [{numbers}]
"""


def test_a_method_of_a_user_is_a_file_and_its_flops_are_those_of_the_training(world, dense):
    mine, folder = world / "mine.py", world / "groups"
    mine.write_text(MINE.format(numbers="0, 1, 1"))
    words = [str(mine), "--run", str(dense), "--groups", "2", "--output_dir", str(folder)]
    assert find_groups.main(words) == 0
    expected = dict(zip(sorted(TRAIN_TASKS), (0, 1, 1), strict=True))
    assert json.loads((folder / "groups.json").read_text()) == expected
    along = world.run("along", vanilla_checkpoint=dense, task_routes=folder / "groups.json", num_experts=None)
    V, D = Tasks.of_run(dense, 0).model.get_input_embeddings().weight.shape
    before = read_cost(along)["runs_before"]
    assert [cost for name, cost in before.items() if name.endswith("transfer.json")] == [[0, 2 * V * D * V]]
    assert str(dense) in before


@pytest.mark.parametrize(
    ("numbers", "groups", "error"),
    [
        ("0, 2, 1", 2, "must return 3 numbers from 0 to 1"),
        ("0, 1", 2, "must return 3 numbers from 0 to 1"),
        ("0, 0, 0", 4, "--groups is 4; it must be from 2 to 3"),
    ],
)
def test_wrong_groups_are_one_error(numbers, groups, error, world, dense, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(MINE.format(numbers=numbers))
    words = [str(tmp_path / "mine.py"), "--run", str(dense), "--groups", str(groups)]
    assert find_groups.main([*words, "--output_dir", str(tmp_path / "out")]) == 2
    assert error in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_method_of_the_page_gives_groups_of_equal_size(dense):
    (code,) = code_blocks((ROOT / "docs/methods.md").read_text(encoding="utf-8"), "python")
    exec(code, found := {})
    assert sorted(found["find"](Tasks.of_run(dense, seed=0), 3)) == [0, 1, 2]


def test_an_unknown_method_names_those_that_there_are(dense, tmp_path, capsys):
    words = ["mbcc", "--run", str(dense), "--groups", "2", "--output_dir", str(tmp_path / "out")]
    assert find_groups.main(words) == 2
    assert "give a file, or one of grad_tag, ifca, mbc" in capsys.readouterr().err


# ---- routes of examples, names


def test_a_text_takes_the_experts_whose_tasks_have_the_nearest_texts(world, library, monkeypatch):
    monkeypatch.setattr(lora_retriever, "TOP", 2)
    tasks = Tasks.of_run(library, seed=0)
    expert_of = experts_of(tasks)
    lora_retriever.main(str(library), str(world / "retriever"))
    model = tasks.routed.load(world / "retriever").model
    embedding, means = model.get_input_embeddings().weight.detach(), {}
    rows = [tasks.rows.collate(np.array([n]), pad_token_id=1) for n in range(len(tasks.rows))]
    texts = [row["input_ids"][0] for row in rows]
    for n, name in enumerate(tasks.names):
        own = [embedding[texts[row]].mean(dim=0) for row in tasks.rows_of(n)]
        means[expert_of[name]] = torch.stack(own).mean(dim=0)
    for text in texts[::7]:
        cosines = [torch.cosine_similarity(embedding[text].mean(0), means[e], dim=0) for e in range(3)]
        expected = [0.0 if e == int(np.argmin(cosines)) else 0.5 for e in range(3)]
        route_1LE = model.draw_routes(torch.tensor([0]), text[None], torch.ones(1, len(text)))
        assert route_1LE.shape == (1, model.config.num_layers, 3)
        torch.testing.assert_close(route_1LE[0, -1], torch.tensor(expected))


def test_one_model_reads_unseen_tasks_under_the_name_of_lowest_loss(dense):
    tasks = Tasks.of_run(dense, seed=0)
    few, losses = tasks.gym.examples("plural", "train", "first"), {}
    for name in tasks.names:
        renamed = [replace(row, task=name) for row in few]
        rows = find_groups.encode(renamed, tasks.routed.tokenizer, tasks.routed.text_format, {name: 0})
        losses[name] = -sum(log_p_of(tasks.model, rows, n).item() for n in range(len(few)))
    best = min(losses, key=losses.get)
    assert quickstart_results.borrowed_names(tasks.routed, tasks.gym, tasks.names, ["plural"]) == {
        "plural": best
    }
    names.main(str(dense))
    assert list(pd.read_csv(dense / names.SCORES.path)["task_prefix"]) == ["plural"]


def test_a_model_without_task_names_borrows_none(world):
    with pytest.raises(InputError, match="hide_task_names has no names to borrow"):
        names.main(str(world.run("nameless", num_experts=1, hide_task_names=True)))


# ---- tables


def write_scores(run, value, name="eval-dev-performance.csv"):
    (run / "best").mkdir(parents=True, exist_ok=True)
    row = f"0,a,a_1_0,EM,{value},4,0.0\n"
    (run / "best" / name).write_text(f",task_prefix,sample,metric,performance,n,constant\n{row}")


def test_the_rate_of_the_best_mean_over_all_gyms_is_chosen(tmp_path):
    for rate, values in (("0.1", (0.5, 0.7)), ("0.2", (0.9, 0.4)), ("0.4", (1.0,))):
        for seed, value in enumerate(values):
            write_scores(tmp_path / f"tuning/mine/{rate}/seed{seed}", value)
    (tmp_path / "tuning/mine/0.4/seed1").mkdir()  # has failed
    table = collect.rates(tmp_path)
    assert table[["rate", "dev", "n", "chosen"]].to_numpy().tolist() == [
        [0.1, pytest.approx(0.6), 2, False],
        [0.2, pytest.approx(0.65), 2, True],
        [0.4, 1.0, 1, False],
    ]


def test_a_run_has_its_scores_the_cost_of_its_library_and_its_rate(tmp_path):
    run = tmp_path / "runs/mine/seed7"
    write_scores(run, 0.25), write_scores(run, 0.5, "eval-test-performance.csv")
    for name, value in (("", 0.1), ("names-", 0.75)):
        write_scores(run, value, f"{name}eval-test_tasks-test-performance.csv")
    numbers = ("active_parameters", "flops_per_example", "steps", "total_flops")
    cost = dict.fromkeys(numbers, 1) | dict(total_parameters=9, steps_with_start=3)
    cost["total_flops_with_start"] = 2e9
    for file, content in {
        "runs/mine/seed7/library/run.json": dict(settings=dict(learning_rate=0.2)),
        "gyms/7/skill_routes.json": dict(a=0, b=1, new=1),
        "runs/mine/seed7/groups/groups.json": dict(a=1, b=0),
        "runs/mine/seed7/groups/transfer.json": dict(silhouette=0.5),
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(json.dumps(content))
    (run / "library/cost.json").write_text(json.dumps(cost))
    (row,) = collect.runs(tmp_path).to_dict("records")
    expected = dict(method="mine", seed=7, rate=0.2, dev=0.25, test=0.5, unseen=0.75, steps=3, gflops=2.0)
    expected |= dict(ami=1.0, silhouette=0.5, advantage=None)
    assert row == expected | dict(parameters=9)
