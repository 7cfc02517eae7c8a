"""Which tasks help each other: gains and groups of tasks, and the command that computes them of a run."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import without_pictures
from forks import in_two_processes, killed
from mistakes import Place, assert_problem, refused
from sklearn.metrics import adjusted_mutual_info_score
from test_task_routes import FIXED
from tiny_runs import METRICS, ROWS, World, contents, typed
from tiny_steps import slow_loss
from transformers import AutoTokenizer

from dataloader.encoding import TextFormat, encode
from dataloader.gym import Gym, evenly_spread
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.analysis import transfer as job
from routing_moe.cli.transfer import main
from routing_moe.io.files import npy_bytes
from routing_moe.model.mixtures import load_mixture
from routing_moe.task_choice.contested import Contested
from routing_moe.task_choice.transfer import affinity, gains, grouped, mates, means_by_task

pytestmark = pytest.mark.usefixtures("empty_pictures")

# ---- gains and groups


def planted(seed: int, columns: int, skills=(0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2)) -> tuple:
    """Returns (skills, columns, gains): 4 rows of each task lose little along experts of the same skill."""
    draw = np.random.default_rng(seed)
    skills_N, columns_M = np.array(skills), np.sort(draw.permutation(len(skills))[:columns])
    tasks_R = np.repeat(np.arange(len(skills)), 4)
    helps_RM = skills_N[tasks_R][:, None] == skills_N[columns_M]
    losses_RM = np.where(helps_RM, draw.uniform(0, 1, helps_RM.shape), draw.uniform(2, 9, helps_RM.shape))
    return skills_N, columns_M, gains(losses_RM, tasks_R, len(skills), columns_M)


def together(labels_N) -> np.ndarray:
    """Returns which tasks share a group (N, N), whatever its number."""
    return np.asarray(labels_N)[:, None] == np.asarray(labels_N)


def test_gains_are_those_of_a_slow_loop():
    draw = np.random.default_rng(0)
    tasks_R, columns_M = draw.permutation(np.repeat(np.arange(5), 3)), np.array([1, 2, 4])
    losses_RM = draw.uniform(0, 5, (15, 3))
    found_NM = gains(losses_RM, tasks_R, 6, columns_M)
    assert not found_NM[5].any()  # a task without rows
    for n in range(5):
        for m, column in enumerate(columns_M):
            own = [max(np.median(row) - row[m], 0) for row in losses_RM[tasks_R == n]]
            expected = np.nan if n == column else np.mean(own)
            assert found_NM[n, m] == pytest.approx(expected, nan_ok=True)
            mean = np.mean([row[m] for row in losses_RM[tasks_R == n]])
            assert means_by_task(losses_RM, tasks_R, 6)[n, m] == pytest.approx(mean)


def test_affinities_are_symmetric_centred_and_scaled():
    gains_NN = np.array([[np.nan, 3, 1, 0], [5, np.nan, 0, 1], [0, 2, np.nan, 3], [0, 0, 9, np.nan]])
    found_NN = affinity(gains_NN)
    assert np.array_equal(found_NN, found_NN.T)
    assert (found_NN.diagonal() == 1).all()
    others_NN = found_NN[~np.eye(4, dtype=bool)]
    assert np.abs(others_NN).max() == 1
    better = gains_NN + np.array([[0], [2], [0], [7]])  # of tasks that gain more from all
    np.testing.assert_allclose(affinity(better), found_NN)


@pytest.mark.parametrize("columns", [12, 9])  # all, or a sample that others join
@pytest.mark.parametrize("seed", range(3))
def test_planted_groups_are_found_whatever_the_order_of_the_tasks(seed, columns):
    skills_N, columns_M, gains_NM = planted(seed, columns)
    found = grouped(gains_NM, columns_M)
    assert np.array_equal(together(found.labels_N), together(skills_N))
    assert 0.3 < found.silhouette <= 1
    order_N = np.random.default_rng(seed).permutation(12)  # the place of each task among them
    new_M = np.argsort(order_N)[columns_M]
    again = grouped(gains_NM[order_N][:, np.argsort(new_M)], np.sort(new_M))
    assert np.array_equal(together(again.labels_N), together(found.labels_N[order_N]))
    assert again.silhouette == pytest.approx(found.silhouette)


def test_fewer_than_three_experts_or_equal_losses_are_one_group_without_warnings(recwarn):
    _, columns_M, gains_NM = planted(0, columns=2)
    assert grouped(gains_NM, columns_M).labels_N.tolist() == [0] * 12
    assert np.isfinite(affinity(gains_NM[columns_M])).all()
    assert not recwarn
    gains_NM = gains(np.full((12, 6), 2.0), np.repeat(np.arange(6), 2), 6, np.arange(6))
    assert np.array_equal(affinity(gains_NM), np.eye(6))
    assert np.isfinite(grouped(gains_NM, np.arange(6)).silhouette)


def test_mates_are_the_others_of_a_group_in_the_sample():
    weights_NM = mates(np.array([0, 0, 1, 0, 2]), np.array([0, 1, 2]))
    assert weights_NM.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0], [0.5, 0.5, 0], [0, 0, 0]]


# ---- the command

COPIES = {"hue": "colour", "digits": "count", "antonym": "opposite"}  # tasks with the rows of others
TASKS = sorted([*ROWS, *COPIES])
LORA = FIXED | dict(task_routes="tasks", expert_kind="lora", lora_rank=2, init_eps=None, shared_base=True)
FILES = {"transfer.csv", "groups.json", "transfer.json", "transfer.png", "job.json", "losses"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A gym of seven train tasks, of which three have the rows of others, and a run of deltas on it."""
    world = World(tmp_path_factory.mktemp("transfer"))
    for copy, task in COPIES.items():
        (world.gym / copy).mkdir()
        for file in (world.gym / task).iterdir():
            shutil.copy(file, world.gym / copy / file.name.replace(task, copy))
    metrics = METRICS | {copy: METRICS[task] for copy, task in COPIES.items()}
    (world.gym / "metrics.json").write_text(json.dumps(metrics))
    (world.gym / "split.json").write_text(json.dumps({"train": TASKS, "dev": [], "test": []}))
    learning = dict(total_steps=60, eval_period=60, train_batch_size=8, learning_rate=0.04)
    with without_pictures():
        world.run("deltas", **LORA | learning, hide_task_names=True, num_beams=1, decoder_vanilla_layers="0")
    return world


def transfer(run, *words, **flags) -> int:
    return main([str(run), *words, *typed(flags)])


@pytest.fixture(scope="module")
def whole(place):
    """The folder of an uninterrupted command. Must not be changed."""
    with without_pictures():
        assert transfer(place / "deltas", rows=6) == 0
    return place / "deltas/transfer"


def saved(folder, name="transfer") -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def without_picture(folder) -> dict[str, bytes]:
    return {name: content for name, content in contents(folder).items() if name != "transfer.png"}


def train_rows(place):
    texts = TextFormat(max_input_length=24, max_output_length=6, hide_task_names=True)
    ids = {task: n for n, task in enumerate(TASKS)}
    return encode(Gym(place.gym).pool(TASKS, "train"), AutoTokenizer.from_pretrained(place.bart), texts, ids)


def test_losses_and_advantage_equal_those_of_one_plain_model_after_the_other(place, whole):
    model = load_mixture(place / "deltas/best").eval()
    pool = train_rows(place)
    # The two samples of a task have the same rows, in another order.
    rows = [evenly_spread(np.flatnonzero(pool.task_ids_N == n), 6) for n in range(7)]
    routes_NLE = model.routes_for(TASKS)

    def losses(route_LE, indices) -> list[float]:
        plain = RoutingBartForConditionalGeneration.from_bart(model.to_bart(route_LE), 1, 0.0).eval()
        return [slow_loss(plain, pool, i, torch.ones(3, 1)) for i in indices]

    table = pd.read_csv(whole / "transfer.csv", index_col=0)
    assert [*table.index, "(base)"] == list(table.columns) == [*TASKS, "(base)"]
    of_base_R = losses(torch.zeros_like(routes_NLE[0]), np.concatenate(rows))
    np.testing.assert_allclose(table.pop("(base)"), np.reshape(of_base_R, (7, 6)).mean(axis=1), atol=6e-5)
    slow_RM = np.array([losses(route_LE, np.concatenate(rows)) for route_LE in routes_NLE]).T
    for m, task in enumerate(TASKS):
        np.testing.assert_allclose(np.load(whole / f"losses/{task}.npy"), slow_RM[:, m], atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(table, slow_RM.reshape(7, 6, 7).mean(axis=1), atol=6e-5, rtol=1e-5)

    assert saved(whole)["clusters"] == groups_of(slow_RM, range(6)).max() + 1
    along_all_NR = np.reshape(losses(routes_NLE.mean(dim=0), np.concatenate(rows)), (7, 6))
    saves, of_halves = [], []
    for half, other in (([0, 2, 4], [1, 3, 5]), ([1, 3, 5], [0, 2, 4])):  # mates of rows by the other ones
        labels_N = groups_of(slow_RM, other)
        of_halves.append(labels_N)
        for n in range(7):
            if others := [m for m in range(7) if m != n and labels_N[m] == labels_N[n]]:
                of_mates = losses(routes_NLE[others].mean(dim=0), np.array(rows[n])[half])
                saves += list(along_all_NR[n, half] - of_mates)
    assert saved(whole)["advantage"] == pytest.approx(np.mean(saves), abs=1e-3)
    agreement = adjusted_mutual_info_score(*of_halves)
    assert saved(whole)["agreement"] == pytest.approx(agreement, abs=1e-4)


def groups_of(losses_RM, numbers) -> np.ndarray:
    """Returns the groups by these of the six rows of each of seven tasks."""
    some_RM = losses_RM.reshape(7, 6, 7)[:, list(numbers)].reshape(-1, 7)
    gains_NM = gains(some_RM, np.repeat(np.arange(7), len(numbers)), 7, np.arange(7))
    return grouped(gains_NM, np.arange(7)).labels_N


def test_tasks_with_the_same_rows_are_a_group_that_a_run_can_be_trained_with(place, whole):
    found, groups = saved(whole), saved(whole, "groups")
    assert list(groups) == TASKS
    assert all(groups[copy] == groups[task] for copy, task in COPIES.items())
    assert found["advantage"] > found["least_advantage"] == 0
    assert found["groups"] == len(set(groups.values()))
    assert (found["tasks"], found["experts"], found["rows"]) == (7, 7, 42)
    assert {path.name for path in whole.iterdir()} - {"lock"} == FILES
    place.run("groups", **FIXED | dict(task_routes=whole / "groups.json", total_steps=1))


@pytest.mark.parametrize("reliable", [-1.0, 1.1])  # an agreement is above the first, and below the other
def test_doubtful_groups_are_said(reliable, place, whole, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("routing_moe.cli.transfer.RELIABLE", reliable)
    shutil.copytree(whole, tmp_path / "copy")
    with without_pictures():
        assert transfer(place / "deltas", rows=6, output_dir=tmp_path / "copy") == 0
    assert ("these groups are doubtful" in capsys.readouterr().err) == (reliable > 1)


def test_one_group_where_mates_help_too_little(place, whole, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, tmp_path / "copy")
    lines = refusal(tmp_path, capsys, place / "deltas", "--rows=6", "--advantage=50", "--output_dir=copy")
    assert_problem(lines, "--advantage is 50, but copy/groups.json was made with 0", "delete it")
    (tmp_path / "copy/groups.json").unlink()
    (tmp_path / "copy/transfer.csv").unlink()
    assert transfer(place / "deltas", rows=6, advantage=50, output_dir=tmp_path / "copy") == 0
    assert saved(tmp_path / "copy", "groups") == dict.fromkeys(TASKS, 0)
    ours, theirs = saved(tmp_path / "copy"), saved(whole)
    assert ours == theirs | {"groups": 1, "least_advantage": 50}


def test_a_killed_command_continues_with_what_is_missing(place, whole, tmp_path, monkeypatch):
    flags = dict(rows=6, output_dir=tmp_path / "killed")
    killed(lambda: transfer(place / "deltas", **flags), "after", "losses/count.npy")
    assert not (tmp_path / "killed/groups.json").exists()
    computed, along = [], job.losses_along
    monkeypatch.setattr(job, "losses_along", lambda *args: computed.append(args) or along(*args))
    assert transfer(place / "deltas", **flags) == 0
    assert len(computed) == 7 - 1 - TASKS.index("count") + 1  # that of the base
    assert without_picture(tmp_path / "killed") == without_picture(whole)


def test_two_processes_write_the_files_of_one(place, whole, tmp_path):
    flags = dict(rows=6, output_dir=tmp_path / "two")
    codes, _ = in_two_processes(tmp_path, lambda: transfer(place / "deltas", **flags))
    assert codes == [0, 0]
    assert without_picture(tmp_path / "two") == without_picture(whole)


def test_of_a_sample_of_experts_the_other_tasks_join_a_group(place, whole, tmp_path):
    assert transfer(place / "deltas", rows=6, columns=5, output_dir=tmp_path / "sample") == 0
    table = pd.read_csv(tmp_path / "sample/transfer.csv", index_col=0)
    assert table.shape == (7, 6)
    every = pd.read_csv(whole / "transfer.csv", index_col=0)
    pd.testing.assert_frame_equal(table, every[table.columns], atol=2e-4)
    assert saved(tmp_path / "sample", "groups").keys() == set(TASKS)


# ---- of contested rows


def on_rows(place, folder, rows: dict, without: str = "") -> dict:
    """Returns the groups of a copy of the run as if only these of its 168 rows were contested."""
    shutil.copytree(place / "deltas", folder, ignore=shutil.ignore_patterns("transfer", without))
    rows = {task: rows.get(task, []) for task in TASKS}
    Contested(1.0, rows, 168, train_rows(place).fingerprint(), 1000).write(folder)
    assert transfer(folder) == 0
    return saved(folder / "transfer", "groups")


def test_a_task_without_contested_rows_joins_the_largest_group(place, tmp_path):
    rows = {task: [0, 1, 2, 20] for task in COPIES} | {"colour": [0], "opposite": [3, 4], "count": [5]}
    groups = on_rows(place, tmp_path / "run", rows)
    sizes = np.bincount([group for task, group in groups.items() if task != "plural"])
    assert groups["plural"] == sizes.argmax()
    found = saved(tmp_path / "run/transfer")
    assert (found["rows"], found["tasks"]) == (16, 6)
    assert (found["contested"], found["contested_above"]) == (round(16 / 168, 4), 1.0)


def test_few_contested_rows_are_one_group_without_a_checkpoint(place, tmp_path, capsys):
    rows = {task: [0] for task in COPIES}
    assert on_rows(place, tmp_path / "run", rows, without="best") == dict.fromkeys(TASKS, 0)
    found = saved(tmp_path / "run/transfer")
    assert (found["contested"], found["groups"], found["total_flops"]) == (0.0179, 1, 1000)
    assert "fewer than 5%" in capsys.readouterr().out


# ---- errors


def refusal(folder, capsys, run, *words) -> list[str]:
    command = lambda: transfer(run, *map(str, words))  # noqa: E731
    return refused(Place(folder, folder, folder), capsys, command).err.splitlines()


def test_a_run_without_an_expert_for_each_task_is_refused(originals, tmp_path, capsys):
    lines = refusal(tmp_path, capsys, originals.out, "--output_dir", tmp_path / "new")
    message = f"{originals.out}: colour and "
    assert_problem(lines, message, " share experts", "give a run with --task_routes tasks")
    assert "colour and colour" not in "".join(lines)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("job.json", b'{"checkpoint": 1}', "holds results of another checkpoint"),
        ("losses/hue.npy", npy_bytes(np.zeros(3)), "delete it to compute it again"),
        ("run.json", b"{}", "holds run.json of something else; name another folder"),
        ("transfer.json", None, "holds groups.json of something else"),
    ],
)
def test_files_of_something_else_are_kept(place, whole, tmp_path, capsys, file, content, message):
    folder = shutil.copytree(whole, tmp_path / "transfer")
    (folder / file).unlink(missing_ok=True)
    if content is not None:
        (folder / file).write_bytes(content)
    before = contents(folder)
    lines = refusal(tmp_path, capsys, place / "deltas", "--rows=6", "--output_dir", folder)
    assert_problem(lines, message)
    assert before.items() <= contents(folder).items()


def test_a_run_without_a_checkpoint_is_refused(place, tmp_path, capsys):
    run = shutil.copytree(place / "deltas", tmp_path / "run", ignore=shutil.ignore_patterns("best", "last"))
    assert_problem(refusal(tmp_path, capsys, run), f"{run}", "best")
    assert_problem(refusal(tmp_path, capsys, tmp_path), f"{tmp_path} is neither a run, with best/config.json")


def test_a_gym_of_other_tasks_is_refused(place, tmp_path, capsys):
    gym = shutil.copytree(place.gym, tmp_path / "gym")
    (gym / "colour").rename(gym / "shade")
    for file in (gym / "shade").iterdir():
        file.rename(file.with_name(file.name.replace("colour", "shade")))
    (gym / "metrics.json").write_text(json.dumps(METRICS | {"shade": METRICS["colour"]}))
    (gym / "split.json").write_text(json.dumps({"train": ["count", "shade"], "dev": [], "test": []}))
    lines = refusal(tmp_path, capsys, place / "deltas", "--train_dir", gym, "--output_dir", tmp_path / "new")
    words = "no task 'colour' in", "give the gym of its training"
    assert_problem(lines, f"--train_dir {gym}: {place / 'deltas'}: ", *words)
