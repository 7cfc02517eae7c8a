"""Fine-tuning from a mixture: its route or a given one, the parts that are trained, and what is logged."""

import json
from pathlib import Path

import pytest
import torch
from test_task_routes import FIXED, FORMS, PAIRS, SEEN
from tiny_grids import NO_ROUTER, QUICK, SAMPLES, TASK, by_sample, learned, predictions, results
from tiny_runs import assert_equal, weights
from tiny_vectors import write_vectors

from routing_moe.config.finetune import Configuration
from routing_moe.finetuning.starting_model import StartingModels
from routing_moe.finetuning.trial import TrialRunner
from routing_moe.model.mixtures import load_mixture
from routing_moe.model.task_vectors import load_task_vectors

pytestmark = pytest.mark.usefixtures("empty_pictures")

SOFT = dict(router_mode="softmax", initial_tau=0.5, total_steps=1)
MIXTURES = {
    "one-hot": {},
    "soft": SOFT,
    "merged": SOFT | dict(expert_mixing="parameters"),
    "average": NO_ROUTER | dict(avg_routing=True),
    "random": NO_ROUTER | dict(random_routing=True),
    "task random": NO_ROUTER | dict(task_level_random_routing=True),
}


@pytest.fixture
def mixture_of(grids):
    """mixture_of(kind): the folder of a run; "clusters" and "file" have given routes, others two experts."""

    def mixture(kind: str):
        if kind in MIXTURES:
            return grids.mixture(f"mixture_{kind}", **MIXTURES[kind])
        place = grids.world / "given_inputs"
        place.mkdir(exist_ok=True)
        if kind == "clusters":
            vectors = write_vectors(place / "vectors", PAIRS, seen=SEEN)
            changed = dict(task_routes="clusters:2", taskvecs=vectors)
        else:
            (place / "routes.json").write_text(json.dumps(FORMS))
            changed = dict(task_routes=place / "routes.json")
        return grids.mixture(f"given_{kind}", **FIXED, **changed, learning_rate=0)

    return mixture


@pytest.fixture
def start_of(grids, mixture_of):
    """start_of(kind, **flags): (model before fine-tuning, its route in words, what it has seen, mixture)."""

    def start(kind: str, **changed):
        init_dir = mixture_of(kind)
        settings = grids.settings("unused", moe_init=True, init_dir=init_dir, **changed)
        found = StartingModels(settings, torch.device("cpu")).model_for(settings.samples[0], None)
        return *found, load_mixture(init_dir / "best")

    return start


def plural(grids) -> Path:
    """Returns the folder of a task whose vector is in the mixtures."""
    return grids.gym / "plural"


STORED = dict(task_vector="stored")
ONE = QUICK | dict(learning_rate_list=[0.03])


def along(grids, mixture_of, name: str, kind: str, code: int = 0, **changed) -> Path:
    return grids.run(name, code, moe_init=True, init_dir=mixture_of(kind), **(ONE | changed))


def routes(folder: Path) -> set[str]:
    return set(results(folder)["route"])


def assert_is_the_bart_of(model, mixture, route_LE) -> None:
    """Asserts that `model` is the equivalent plain BART of the mixture's route."""
    assert model.config.num_experts == 1
    plain = mixture.to_bart(route_LE).state_dict()
    ours = model.to_bart(torch.ones(model.config.num_layers, 1)).state_dict()
    assert_equal(ours, plain)


def test_a_one_hot_route_trains_equally_as_a_plain_bart_and_with_its_experts(grids, mixture_of):
    # A norm's sum has more terms with experts.
    changed = dict(max_grad_norm="inf", learning_rate_list=[0.003], total_steps=1)
    plain = along(grids, mixture_of, "one_hot_plain", "one-hot", **changed)
    fixed = along(grids, mixture_of, "one_hot_fixed", "one-hot", route_training="fixed", **changed)
    assert learned(plain) == learned(fixed)
    assert predictions(plain) == predictions(fixed)
    (words,), (among,) = routes(plain), routes(fixed)
    assert words.startswith("vector of ")
    assert words.endswith("); plain model")
    assert among == words.replace("plain model", "fixed")


def test_merged_parameters_become_a_plain_bart_and_fixed_ones_have_the_same_loss(start_of, grids):
    task = dict(task_dir=plural(grids), **STORED)
    model, words, _, mixture = start_of("merged", **task)
    assert words == "random vector; plain model"
    assert_is_the_bart_of(model, mixture, mixture.routes_for(["plural"])[0])
    apart, words, *_ = start_of("merged", route_training="fixed", **task)
    assert words == "random vector; fixed"
    inputs = dict(input_ids=torch.tensor([[0, 9, 8, 7, 2]]), labels=torch.tensor([[0, 6, 5, 2]]))
    losses = [one(**inputs, task_ids=torch.tensor([0])).loss for one in (model.eval(), apart.eval())]
    torch.testing.assert_close(*losses)


def test_soft_routes_keep_the_experts_unless_a_plain_bart_is_requested(start_of, grids):
    task = dict(task_dir=plural(grids), **STORED)
    model, words, _, mixture = start_of("soft", **task)
    assert words == "random vector; fixed"
    assert (model.router, model.task_vectors) == (None, None)
    route_LE = mixture.routes_for(["plural"])[0]
    assert ((route_LE > 0) & (route_LE < 1)).all()
    assert torch.equal(model.routes_for(["plural"])[0], route_LE)
    model, words, _, mixture = start_of("soft", route_training="plain", **task)
    assert words == "random vector; plain model"
    assert_is_the_bart_of(model, mixture, route_LE)


@pytest.mark.parametrize(("kind", "flags"), [("soft", dict(moe_avg_route=True)), ("average", {})])
def test_average_routes_are_requested_or_those_of_the_run(start_of, kind, flags):
    model, words, *_ = start_of(kind, **flags)
    assert words == "average"
    assert torch.equal(model.routes_for([TASK]), torch.full((1, 3, 2), 0.5))


def test_random_routes_are_drawn_for_each_example(grids, mixture_of, start_of):
    for kind, flags in (("soft", dict(moe_random_route=True)), ("random", {})):
        model, words, *_ = start_of(kind, **flags)
        assert words == "random for each example"
        assert len(model.draw_routes(torch.zeros(20, dtype=torch.long)).unique(dim=0)) > 1
    folder = along(grids, mixture_of, "random_route", "random", random_eval_draws=3)
    assert routes(folder) == {"random for each example"}
    line = json.loads(predictions(folder)[f"{SAMPLES[0]}_best_test.jsonl"].splitlines()[0])
    assert len(line["other_draws"]) == 2


def drawn_for(start_of, grids, task: str, kind="one-hot", **flags):
    model, words, _, mixture = start_of(kind, task_dir=grids.gym / task, moe_random2_route=True, **flags)
    return model.to_bart(torch.ones(3, 1)).state_dict(), words, mixture


def test_task_random_routes_are_drawn_for_each_task_and_kept_from_a_run_that_has_one(start_of, grids):
    naming, words, _ = drawn_for(start_of, grids, TASK)
    assert words == "random for the task; plain model"
    assert_equal(naming, drawn_for(start_of, grids, TASK)[0])
    others = [drawn_for(start_of, grids, task, seed=seed)[0] for task, seed in (("count", 42), (TASK, 1))]
    for other in others:
        assert any(not torch.equal(naming[name], other[name]) for name in naming)
    stored, words, mixture = drawn_for(start_of, grids, "plural", "task random")
    assert words == "random for the task, drawn in the run; plain model"
    route_LE = mixture.task_routes[mixture.config.task_names.index("plural")]
    assert_equal(stored, mixture.to_bart(route_LE).state_dict())


def test_given_text_vectors_find_the_nearest_task(start_of, tmp_path):
    rows = {task: [float(task in (TASK, "count")), 1.0] for task in (TASK, "colour", "count", "opposite")}
    words = start_of("one-hot", text_vectors=write_vectors(tmp_path, rows))[1]
    assert words == "vector of count (nearest by text, cosine 1.00); plain model"


def test_a_vector_is_learned_from_each_sample_and_does_not_affect_the_next(grids, mixture_of):
    how = dict(task_vector="learned", vector_steps=3, task_model_lr=0.3, total_steps=2, num_beams=1)
    settings = grids.settings("learned", moe_init=True, init_dir=mixture_of("soft"), **how)
    first, second = (Configuration(sample, 0.03, 6) for sample in SAMPLES)
    runner = TrialRunner(settings)
    both = [runner.run(first), runner.run(second)]
    assert [one["route"] for one in both] == ["vector learned from 12 examples; fixed"] * 2
    assert TrialRunner(settings).run(second) == both[1]
    routes_1LE = []
    for sample in SAMPLES:
        model, *_ = runner.starts.model_for(sample, lambda s=sample: runner.file(s, "train").encoded)
        routes_1LE.append(model.routes_for([TASK]))
    assert not torch.equal(*routes_1LE)


def trained(grids, mixture_of, name: str, kind: str, **changed) -> tuple[dict, dict, Path]:
    """Returns (weights of the mixture, of the best model of the first sample, its folder)."""
    folder = along(grids, mixture_of, name, kind, save_best=True, task_dir=plural(grids), **STORED, **changed)
    best = folder / "models/plural_12_100_best"
    return weights(mixture_of(kind) / "best"), weights(best), best


def moved(before: dict, after: dict) -> set[str]:
    return {name for name in after if name in before and not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("training", "parts", "words"),
    [
        ("vector", {"task_vectors"}, "vector trained"),
        ("router", {"task_vectors", "router"}, "router and vector trained"),
    ],
)
def test_router_and_vector_are_trained_only_if_requested(grids, mixture_of, training, parts, words):
    rates = dict(learning_rate_list=[0.0], task_model_lr=0.5, eval_period=100)
    before, after, best = trained(grids, mixture_of, training, "soft", route_training=training, **rates)
    row = load_task_vectors(mixture_of("soft") / "best")[0].index("plural")
    before["task_vectors.weight"] = before["task_vectors.weight"][[row]]
    assert {key.split(".")[0] for key in moved(before, after)} == parts
    assert load_task_vectors(best)[0] == ["plural"]
    assert routes(grids / training) == {f"random vector; {words}"}


# ---- given routes: a sample's cluster, a file's route, the run's own, equal weights

# The first sample is like colour, the second like count.
OF_SAMPLES = dict(zip((TASK, *SAMPLES), [[4, 3], [4, 3], [3, 4]], strict=True))


def test_each_sample_gets_the_cluster_of_its_own_vector(grids, mixture_of, tmp_path):
    of_task = dict.fromkeys(SAMPLES, TASK)
    vectors = write_vectors(tmp_path / "each", OF_SAMPLES, seen=SEEN, sample_of=of_task)
    folder = along(grids, mixture_of, "given_each", "clusters", samples="all", taskvecs=vectors)
    found = by_sample(folder)
    assert found[SAMPLES[0]] == "cluster 0 (cosine 1.00); plain model"
    assert found[SAMPLES[1]] == "cluster 1 (cosine 1.00); plain model"
    for sample, seen in by_sample(folder, "vector_seen").items():
        assert seen == f"labelled rows of one sample: {sample.removesuffix('_best')}"


def test_a_sample_starts_as_the_plain_bart_of_its_nearest_cluster_or_with_its_logits(start_of, tmp_path):
    vectors = write_vectors(tmp_path / "new", {TASK: [3, 4]}, seen=SEEN)
    model, words, _, mixture = start_of("clusters", taskvecs=vectors)
    assert words.endswith("; plain model")
    assert_is_the_bart_of(model, mixture, torch.eye(2)[[1, 1, 1]])
    model, words, *_ = start_of("clusters", taskvecs=vectors, route_training="logits")
    assert words.endswith("; logits trained")
    assert model.routes_for([TASK])[0].argmax(dim=-1).tolist() == [1, 1, 1]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 3 * 2


def test_a_task_of_the_run_keeps_its_route(grids, start_of):
    task = dict(task_dir=grids.gym / "opposite")
    model, words, seen, mixture = start_of("clusters", **task)
    assert (words, seen) == ("given route; plain model", "labelled rows of all samples")
    assert_is_the_bart_of(model, mixture, mixture.task_routes[mixture.config.task_names.index("opposite")])
    words, seen = start_of("clusters", task_dir=grids.gym / "plural")[1:3]
    assert words.startswith("cluster 1 (cosine ")
    assert seen == "labelled rows of one sample"
    model, words, _, mixture = start_of("file", task_dir=grids.gym / "plural")
    assert words == "given route; fixed"
    assert torch.equal(model.routes_for(["plural"])[0], torch.tensor(FORMS["plural"]))
    words = start_of("clusters", **task, moe_random2_route=True)[1]
    assert words == "random for the task; plain model"


@pytest.mark.parametrize(("kind", "why"), [("clusters", "no vector"), ("file", "no route")])
def test_a_task_of_which_nothing_is_known_has_equal_weights(kind, why, start_of):
    assert start_of(kind)[1:3] == (f"average: {why}; fixed", "nothing")


def test_a_route_can_be_given_for_any_mixture(grids, mixture_of, start_of, tmp_path, capsys):
    path = tmp_path / "route.json"
    path.write_text(json.dumps({TASK: [0, 1, 1], "other": 3}))
    for kind in ("clusters", "file", "one-hot"):
        assert start_of(kind, task_routes=path)[1] == "given route; plain model"
    along(grids, mixture_of, "given_file", "one-hot", task_routes=path)
    path.write_text(json.dumps({TASK: [0, 0, 1]}))  # a grid continues with the same route only
    capsys.readouterr()
    along(grids, mixture_of, "given_file", "one-hot", code=2, task_routes=path)
    assert "its grid started from other files" in capsys.readouterr().err
