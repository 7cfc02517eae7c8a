"""Fine-tuning along given routes: a sample's cluster, a file's route, the run's own, equal weights."""

import json

import pytest
import torch
from test_finetuning_routes import assert_is_the_bart_of
from test_task_routes import FIXED, FORMS, PAIRS, SEEN
from tiny_grids import QUICK, SAMPLES, TASK, by_sample
from tiny_vectors import write_vectors

from routing_moe.finetuning.starting_model import StartingModels
from routing_moe.model.mixtures import load_mixture

pytestmark = pytest.mark.usefixtures("empty_pictures")

KINDS = ("clusters", "file", "learned")
# The first sample is like colour, the second like count.
OF_SAMPLES = dict(zip((TASK, *SAMPLES), [[4, 3], [4, 3], [3, 4]], strict=True))


@pytest.fixture
def mixture_of(grids):
    """mixture_of(kind): the folder of a run with clusters, with routes of a file, or with learned ones."""

    def mixture(kind: str):
        if kind == "learned":
            return grids.mixture("mixture_one-hot")  # as in test_finetuning_routes.py
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
def tune(grids, mixture_of):
    """tune(name, kind, code=0, **flags): the folder of a grid of both samples from a mixture."""

    def run(name, kind, code=0, **changed):
        asked = QUICK | dict(samples="all", learning_rate_list=[0.01], moe_init=True) | changed
        return grids.run(name, code, init_dir=mixture_of(kind), **asked)

    return run


def test_each_sample_gets_the_cluster_of_its_own_vector(tune, tmp_path):
    of_task = dict.fromkeys(SAMPLES, TASK)
    vectors = write_vectors(tmp_path / "each", OF_SAMPLES, seen=SEEN, sample_of=of_task)
    folder = tune("given_each", "clusters", taskvecs=vectors)
    found = by_sample(folder)
    assert found[SAMPLES[0]] == "cluster 0 (cosine 1.00); plain model"
    assert found[SAMPLES[1]] == "cluster 1 (cosine 1.00); plain model"
    for sample, seen in by_sample(folder, "vector_seen").items():
        assert seen == f"labelled rows of one sample: {sample.removesuffix('_best')}"


def starting(grids, mixture_of, kind, **changed):
    """Returns (model before fine-tuning, its route in words, what it has seen, the mixture)."""
    init_dir = mixture_of(kind)
    settings = grids.settings("unused", moe_init=True, init_dir=init_dir, **changed)
    found = StartingModels(settings, torch.device("cpu")).model_for(settings.samples[0], None)
    return *found, load_mixture(init_dir / "best")


def test_a_sample_starts_as_the_plain_bart_of_its_route(grids, mixture_of, tmp_path):
    vectors = write_vectors(tmp_path / "new", {TASK: [3, 4]}, seen=SEEN)
    model, words, _, mixture = starting(grids, mixture_of, "clusters", taskvecs=vectors)
    assert words.endswith("; plain model")
    route_LE = torch.eye(2)[[1, 1, 1]]
    assert_is_the_bart_of(model, mixture, route_LE)


def test_logits_start_at_the_route_of_the_nearest_cluster(grids, mixture_of, tmp_path):
    vectors = write_vectors(tmp_path / "new", {TASK: [3, 4]}, seen=SEEN)
    flags = dict(taskvecs=vectors, route_training="logits")
    model, words, *_ = starting(grids, mixture_of, "clusters", **flags)
    assert words.endswith("; logits trained")
    assert model.routes_for([TASK])[0].argmax(dim=-1).tolist() == [1, 1, 1]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 3 * 2


def test_a_task_of_the_run_keeps_its_route(grids, mixture_of):
    task = dict(task_dir=grids.gym / "opposite")
    model, words, seen, mixture = starting(grids, mixture_of, "clusters", **task)
    assert (words, seen) == ("given route; plain model", "labelled rows of all samples")
    assert_is_the_bart_of(model, mixture, mixture.task_routes[mixture.config.task_names.index("opposite")])
    words, seen = starting(grids, mixture_of, "clusters", task_dir=grids.gym / "plural")[1:3]
    assert words.startswith("cluster 1 (cosine ")
    assert seen == "labelled rows of one sample"
    model, words, _, mixture = starting(grids, mixture_of, "file", task_dir=grids.gym / "plural")
    assert words == "given route; fixed"
    assert torch.equal(model.routes_for(["plural"])[0], torch.tensor(FORMS["plural"]))
    words = starting(grids, mixture_of, "clusters", **task, moe_random2_route=True)[1]
    assert words == "random for the task; plain model"


@pytest.mark.parametrize(("kind", "why"), [("clusters", "no vector"), ("file", "no route")])
def test_a_task_of_which_nothing_is_known_has_equal_weights(kind, why, grids, mixture_of):
    assert starting(grids, mixture_of, kind)[1:3] == (f"average: {why}; fixed", "nothing")


def test_a_route_can_be_given_for_any_mixture(grids, mixture_of, tune, tmp_path, capsys):
    path = tmp_path / "route.json"
    path.write_text(json.dumps({TASK: [0, 1, 1], "other": 3}))
    for kind in KINDS:
        assert starting(grids, mixture_of, kind, task_routes=path)[1] == "given route; plain model"
    tune("given_file", "learned", samples="first", task_routes=path)
    path.write_text(json.dumps({TASK: [0, 0, 1]}))  # a grid continues with the same route only
    capsys.readouterr()
    tune("given_file", "learned", code=2, samples="first", task_routes=path)
    assert "its grid started from other files" in capsys.readouterr().err
