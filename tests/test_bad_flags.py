"""Errors for wrong flags: they name the flag, its value and what is right."""

import importlib.util

import pytest
from mistakes import assert_fault, complaint

pytestmark = pytest.mark.usefixtures("no_gpu")

FLAGS = {
    "a learning rate below 0": (dict(learning_rate=-1), "--learning_rate is -1.0; it must be 0 or greater"),
    "a temperature that would rise": (
        dict(minimum_tau=3, initial_tau=2),
        "--minimum_tau is 3.0, above --initial_tau 2.0; the temperature falls",
    ),
    "a probability of 2": (
        dict(exploration_epsilon=2),
        "--exploration_epsilon is 2.0; it must be from 0 to 1",
    ),
    "a misspelt mode": (
        dict(router_mode="gumbel_sofmax_st"),
        "--router_mode is 'gumbel_sofmax_st'; choose from softmax, gumbel_softmax, gumbel_softmax_st, top_k; "
        "did you mean 'gumbel_softmax_st'?",
    ),
    "two sources of routes": (
        dict(avg_routing=True, random_routing=True),
        "--avg_routing and --random_routing each set the source of routes; give one of them",
    ),
    "a router's rate without a router": (
        dict(avg_routing=True),
        "--router_lr has no effect with average routes: they use no router",
    ),
    "task vectors without a router": (
        dict(random_routing=True, taskvecs="<here>/nowhere"),
        "--taskvecs has no effect with random routes: they use no router",
    ),
    "exploration of drawn routes": (
        dict(task_level_random_routing=True, exploration_epsilon=0.1),
        "--exploration_epsilon has no effect with fixed routes: they use no router",
    ),
    "a source of routes for one expert": (
        dict(num_experts=1, avg_routing=True),
        "--avg_routing has no effect with one expert: there is nothing to select or mix",
    ),
    "noise for one expert": (
        dict(num_experts=1),
        "--init_eps has no effect with one expert: there is nothing to select or mix",
    ),
    "more random experts than exist": (
        dict(task_level_random_routing=True, task_level_random_n=3),
        "--task_level_random_n is 3, but a layer has 2 experts",
    ),
    "a number of random experts without random routes": (
        dict(task_level_random_n=2),
        "--task_level_random_n has no effect without --task_level_random_routing",
    ),
    "draws of routes that are not random": (
        dict(random_eval_draws=3),
        "--random_eval_draws has no effect without --random_routing",
    ),
    "more best experts than exist": (
        dict(router_mode="top_k", router_top_k=3),
        "--router_top_k is 3, but a layer has 2 experts",
    ),
    "one best expert, whose weight is always 1": (
        dict(router_mode="top_k", router_top_k=1),
        "--router_top_k is 1: the weight of a top-1 route is always 1, so the router gets no gradient;",
    ),
    "a temperature of hard choices": (
        dict(do_predict=True, predict_temperature=2),
        "--predict_temperature has no effect with gumbel_softmax_st: the choice is the same at any",
    ),
    "best experts in another mode": (
        dict(router_top_k=1),
        "--router_top_k has no effect without --router_mode top_k",
    ),
    "merging one-hot routes": (
        dict(random_routing=True, expert_mixing="parameters"),
        "--expert_mixing has no effect with one-hot routes: there is nothing to mix",
    ),
    "sampling of routes without noise": (
        dict(router_mode="softmax", eval_sampled_routes=True),
        "--eval_sampled_routes has no effect with softmax routes: nothing is sampled",
    ),
    "alternation with a frozen part": (
        dict(router_lr=0, freeze_task_model=True, alternate_every=2),
        "--alternate_every has no effect with a frozen router and frozen task vectors: routes are fixed",
    ),
    "freezing twice": (
        dict(task_model_lr=0, freeze_task_model=True),
        "--freeze_task_model has no effect with --task_model_lr 0, which freezes them too",
    ),
    "only vanilla layers": (
        dict(encoder_vanilla_layers="0,1", decoder_vanilla_layers="0"),
        "--encoder_vanilla_layers and decoder_vanilla_layers name every layer; for a plain BART, set",
    ),
    "a router that does not exist": (
        dict(router_nn_type="liner"),
        "--router_nn_type is 'liner'; choose from linear, ",
        "did you mean 'linear'?",
    ),
    "a vanilla layer beyond the last": (
        dict(encoder_vanilla_layers="0,5"),
        "--encoder_vanilla_layers names [5]; the encoder has layers 0 to 1",
    ),
    "vanilla layers that are not numbers": (
        dict(decoder_vanilla_layers="first"),
        "argument --decoder_vanilla_layers: 'first' is not a comma-separated list of layer numbers",
    ),
    "no experts": (dict(num_experts=0), "--num_experts is 0; it must be at least 1"),
    "a width that heads cannot share": (
        dict(router_nn_type="transformer", taskvecs_dim=6),
        "--taskvecs_dim is 6; it must be a multiple of 4",
    ),
    "inputs longer than the positions": (
        dict(max_input_length=2000),
        "--max_input_length is 2000, but <bart> has 32 positions",
    ),
    "outputs without room for a token": (
        dict(max_output_length=2),
        "--max_output_length is 2, must be at least 3 to hold a token of the text",
    ),
    "a seed that is too large": (
        dict(seed=2**32),
        "--seed is 4294967296; it must be 0 or greater and below 2**32",
    ),
    "nothing to do": (dict(do_train=None), "nothing to do: give --do_train, --do_predict or both"),
    "two starts": (
        dict(checkpoint="<here>"),
        "--initialize_from_vanilla and --checkpoint both name a start; give one of them",
    ),
    "weights of a start that is not used": (
        dict(initialize_from_vanilla=None, vanilla_checkpoint="<bart>"),
        "--vanilla_checkpoint has no effect without --initialize_from_vanilla",
    ),
    "prediction flags without prediction": (
        dict(predict_split="test", prefix="x-"),
        "--prefix has no effect without --do_predict",
    ),
    "a checkpoint's name where best predicts": (
        dict(checkpoint_name="last"),
        "--checkpoint_name has no effect with --initialize_from_vanilla",
    ),
    "no model folder": (dict(model="<here>/nowhere"), "--model <here>/nowhere: no such folder"),
    "no gym": (
        dict(train_dir="<here>/nowhere"),
        "--train_dir <here>/nowhere: no such folder, expected a gym",
    ),
    "no split": (
        dict(custom_tasks_splits="<here>/no.json"),
        "--custom_tasks_splits <here>/no.json: no such file",
    ),
    "no ontology": (dict(task_ontology="<here>/no.json"), "--task_ontology <here>/no.json: no such file"),
    "no task vectors": (
        dict(taskvecs="<gym>"),
        "--taskvecs <gym> is not a task-vector folder: it lacks id2task.json",
    ),
    "a file of task vectors": (
        dict(taskvecs="<here>/vectors/task_vecs.npy"),
        "--taskvecs <here>/vectors/task_vecs.npy: give its folder, <here>/vectors, with id2task.json and",
    ),
    "no vanilla checkpoint": (
        dict(vanilla_checkpoint="<here>/x.pt"),
        "--vanilla_checkpoint <here>/x.pt: not found",
    ),
    "no checkpoint to start from": (
        dict(initialize_from_vanilla=None),
        "--output_dir <out> --checkpoint_name best: no checkpoint there",
        "to train from a plain BART give --initialize_from_vanilla",
    ),
    "no checkpoint where one is named": (
        dict(initialize_from_vanilla=None, checkpoint="<here>/nowhere"),
        "--checkpoint <here>/nowhere: no checkpoint there",
    ),
    "a sample that no task has": (
        dict(predict_samples="999"),
        "--predict_samples is '999': no such sample of colour, count, opposite; "
        "give all, first, or a seed such as 100",
    ),
    "a part of the split without tasks": (
        dict(do_predict=True, predict_split="dev"),
        "--predict_split is 'dev', but this section of <gym>/split.json is empty",
    ),
    "an abbreviated flag": (
        dict(learning="0.1"),
        "unrecognized arguments: --learning 0.1; did you mean '--learning_rate'?",
    ),
}


@pytest.mark.parametrize("name", FLAGS)
def test_a_wrong_flag_is_an_error(name, fresh, capsys):
    changed, *fragments = FLAGS[name]
    assert_fault(complaint(fresh, capsys, **changed), *map(fresh.filled_in, fragments))


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed_is_an_error(tracker, fresh, capsys, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == tracker else find_spec(name, *a)
    )
    output = complaint(fresh, capsys, log_with=tracker)
    assert_fault(output, f"--log_with is '{tracker}', which needs: pip install {tracker}")


@pytest.mark.parametrize("changed", [{}, dict(total_steps=0)], ids=["no other", "another"])
def test_the_hub_is_asked_only_if_no_other_fault_was_found(changed, fresh, capsys, local_hub):
    output = complaint(fresh, capsys, model="someone/bart", **changed)
    assert local_hub.requests == ([] if changed else ["api/models/someone/bart/revision/main"])
    fault = (
        "--total_steps is 0" if changed else "--model someone/bart: no such folder, and no model of the hub"
    )
    assert_fault(output, fault)
    assert len(output) == 1
