"""Errors of the fine-tuning command for wrong flags; it writes nothing then."""

import importlib.util

import pytest
from finetuning_mistakes import MIX, complaint, filled_in
from mistakes import assert_fault
from tiny_grids import finetune

pytestmark = pytest.mark.usefixtures("no_gpu")

FLAGS = {
    # ---- the grid
    "an empty list": (dict(bsz_list=[]), "argument --bsz_list: expected at least one argument"),
    "a value twice": (
        dict(learning_rate_list=[0.1, 0.03, 1e-1]),
        "--learning_rate_list holds a value twice: 0.1 0.03 0.1",
    ),
    "an empty batch": (dict(bsz_list=[4, 0]), "--bsz_list holds 0; it must be at least 1"),
    "no learning rate": (
        dict(learning_rate_list=["nan", "inf"]),
        "--learning_rate_list holds nan; it must be 0 or greater",
    ),
    "a list and a value": (
        dict(learning_rate=0.1, train_batch_size=4),
        "--learning_rate and --learning_rate_list both set the values to try; give one of them",
    ),
    "a number out of range": (dict(wait_step=0), "--wait_step is 0; it must be at least 1"),
    "nothing to do": (dict(do_train=None, do_predict=None), "nothing to do: give --do_train, --do_predict"),
    # ---- the data
    "a misspelt task": (
        dict(task_dir="<gym>/plurals"),
        "--task_dir <gym>/plurals: no such folder; did you mean 'plural'?",
    ),
    "a folder that is not of a task": (dict(task_dir="<bart>"), "--task_dir <bart> has no bart_<k>_<seed>_"),
    "another task's name": (
        dict(dataset="colour"),
        "--dataset is 'colour', but --task_dir is the folder of 'plural'",
        "leave --dataset out",
    ),
    "a missing sample": (
        dict(samples=["13", "99"]),
        "--samples is '99': no such sample of plural; give all, first, or some of plural_12_100, ",
    ),
    "ranking without options": (
        dict(scoring="rank"),
        "--scoring is rank, but plural has no answer options",
        "give --scoring generate",
    ),
    "outputs longer than a mixture's positions": (
        MIX | dict(max_output_length=33),
        "--max_output_length is 33, but <run>/best has 32 positions",
    ),
    # ---- the start
    "a missing checkpoint": (
        dict(checkpoint="<here>/weights.pt"),
        "--checkpoint <here>/weights.pt: not found; name a folder or a hub name",
    ),
    "a folder without a checkpoint": (
        dict(checkpoint="<gym>"),
        "--checkpoint <gym> is neither a run, with best/config.json, nor a checkpoint",
    ),
    "a mixture as a plain BART": (
        dict(checkpoint="<run>"),
        "--checkpoint <run>/best is a mixture of 2 experts; start from it with --moe_init --init_dir <run>",
    ),
    "a plain BART as a mixture": (
        dict(moe_init=True, init_dir="<one>"),
        "--init_dir <one>/best has one expert, a plain BART; give it as --checkpoint",
    ),
    "a missing mixture": (
        dict(moe_init=True, init_dir="<here>/x"),
        "--init_dir <here>/x: no such folder",
    ),
    "a mixture without a name": (
        dict(moe_init=True),
        "--moe_init starts from a mixture; name its run or checkpoint with --init_dir",
    ),
    "two starts": (
        MIX | dict(checkpoint="<bart>"),
        "--moe_init --init_dir and --checkpoint both name a start; give one of them",
    ),
    "a missing checkpoint of a run": (
        MIX | dict(init_checkpoint_name="7-steps"),
        "--init_dir <run> has no checkpoint '7-steps'; choose one with --init_checkpoint_name: best, last",
    ),
    "a checkpoint's checkpoint": (
        dict(moe_init=True, init_dir="<run>/last", init_checkpoint_name="last"),
        "--init_dir <run>/last is a checkpoint; --init_checkpoint_name has an effect with run folders only",
    ),
    # ---- the route
    "two routes": (
        MIX | dict(moe_avg_route=True, moe_random2_route=True),
        "--moe_avg_route and --moe_random2_route each set the source of the route; give one of them",
    ),
    "training the vector of an average": (
        MIX | dict(moe_avg_route=True, route_training="vector"),
        "--route_training is vector, but average routes use no router; give plain or fixed",
    ),
    "one BART of an average of outputs": (
        MIX | dict(moe_avg_route=True, route_training="plain"),
        "--route_training is plain, but averaged outputs have no equivalent plain BART; give fixed",
    ),
    "training a router without gradient": (
        dict(moe_init=True, init_dir="<top>", route_training="router"),
        "<top>/best has top-1 routes, whose weight is always 1, so a vector gets no gradient",
    ),
    "learning a vector without gradient": (
        dict(moe_init=True, init_dir="<top>", task_vector="learned"),
        "<top>/best has top-1 routes, whose weight is always 1, so a vector gets no gradient",
    ),
    # ---- running
    "Ray without its package": (
        dict(ray="no_ray"),
        "--ray is 'no_ray', which needs the extra: pip install .[ray]",
    ),
}

UNUSED = {
    "init_dir": (dict(init_dir="<run>"), "out --moe_init"),
    "init_checkpoint_name": (dict(init_checkpoint_name="last"), "out --moe_init"),
    "moe_avg_route": (dict(moe_avg_route=True), "out --moe_init"),
    "route_training": (dict(route_training="fixed"), "out --moe_init"),
    "task_vector": (dict(task_vector="stored"), "out --moe_init"),
    "train_dir": (dict(train_dir="<gym>"), "out --moe_init"),
    "save_best": (dict(do_train=None, save_best=True), "out --do_train"),
    "taskvecs": (
        MIX | dict(moe_avg_route=True, taskvecs="<gym>"),
        " average routes: they use no router",
    ),
    "random_eval_draws": (MIX | dict(random_eval_draws=3), "out random routes for each example"),
    "text_vectors": (
        MIX | dict(task_vector="stored", text_vectors="<gym>"),
        " --task_vector stored: no nearest task is searched for",
    ),
    "vector_steps": (MIX | dict(vector_steps=3), "out --task_vector learned"),
    "task_model_lr": (MIX | dict(task_model_lr=0.1), " a vector that is not trained"),
    "router_lr": (MIX | dict(route_training="vector", router_lr=0.1), "out --route_training router"),
    "eval_sampled_routes": (MIX | dict(eval_sampled_routes=True), " a route that is not sampled"),
}


@pytest.mark.parametrize("name", FLAGS)
def test_a_wrong_flag_is_an_error(name, fresh, capsys, starts):
    changed, *fragments = FLAGS[name]
    with pytest.MonkeyPatch.context() as patch:
        if changed.get("ray") == "no_ray":
            find_spec = importlib.util.find_spec
            patch.setattr(
                importlib.util, "find_spec", lambda name, *a: None if name == "ray" else find_spec(name, *a)
            )
        output = complaint(fresh, capsys, starts, **changed)
    assert_fault(output, *(filled_in(fresh, fragment, starts) for fragment in fragments))


@pytest.mark.parametrize("flag", UNUSED)
def test_a_flag_without_effect_is_an_error(flag, fresh, capsys, starts):
    changed, reason = UNUSED[flag]
    assert_fault(complaint(fresh, capsys, starts, **changed), f"--{flag} has no effect with{reason}")


def test_route_training_of_routes_that_are_drawn_for_each_example_is_an_error(fresh, capsys, starts):
    start = dict(moe_init=True, init_dir="<random>", route_training="fixed")
    output = complaint(fresh, capsys, starts, **start)
    assert_fault(
        output,
        "--route_training has no effect with random routes: examples have different ones",
    )


def test_a_gym_of_neighbours_for_a_task_that_has_a_vector_is_an_error(fresh, capsys, starts):
    output = complaint(fresh, capsys, starts, **MIX, task_dir="<gym>/colour", train_dir="<gym>")
    assert_fault(output, "--train_dir has no effect with colour, whose vector is in the mixture")


def test_all_mistakes_are_reported_together(fresh, capsys, starts):
    output = complaint(
        fresh, capsys, starts, bsz_list=[0], samples="99", checkpoint="<run>", total_steps=0, max_grad_norm=-1
    )
    for fragment in (
        "--bsz_list holds 0",
        "--samples is '99'",
        "a mixture of 2 experts",
        "--total_steps is 0",
    ):
        assert_fault(output, fragment)


def test_training_flags_of_a_command_that_only_scores_are_a_note(fresh, capsys):
    assert finetune(fresh.gym, fresh.bart, fresh.out, task_dir=fresh.gym / "plural", do_train=None) == 0
    note = "without --do_train these flags have no effect: --bsz_list, --eval_period, --learning_rate_list"
    assert note in capsys.readouterr().err
