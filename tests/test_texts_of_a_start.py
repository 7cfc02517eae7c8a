"""Commands that start from a run read texts as it was trained to, unless flags say otherwise."""

import json

import pytest
from tiny_answers import load
from tiny_grids import ONE_EXPERT, QUICK, finetune
from tiny_runs import NO_LEARNING, World, fail_in_step, flags, typed
from tiny_runs import run as train
from tiny_vectors import run as make_vectors
from tiny_vectors import settings_of

from dataloader.errors import InputError
from routing_moe.answering.training import train as train_in_python
from routing_moe.checkpoints import start
from routing_moe.cli.merge import main as merge
from routing_moe.config.flags import parse
from routing_moe.config.train import TrainSettings, train_settings
from routing_moe.training.checks import check_inputs

HIDDEN = dict(hide_task_names=True, do_lowercase=True)
TEXTS = dict(max_input_length=None, max_output_length=None, num_beams=None)  # no flags
NEW = dict.fromkeys(("initialize_from_vanilla", "model", "init_eps", "num_experts", "taskvecs_dim"))
CONTINUED = NEW | TEXTS | NO_LEARNING | dict(router_hidden_dim=None)
TRAINED = dict(max_input_length=24, max_output_length=6, num_beams=1)

pytestmark = pytest.mark.usefixtures("quick_pictures")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> World:
    """A world with a mixture and a plain BART that were trained on lowercase texts without names."""
    world = World(tmp_path_factory.mktemp("texts"))
    world.run("moe", **NO_LEARNING | HIDDEN, router_mode="softmax")
    world.run("dense", **ONE_EXPERT | HIDDEN)
    return world


def settings_in(folder) -> dict:
    return json.loads((folder / "run.json").read_text())["settings"]


def checked(place, **changed) -> TrainSettings:
    """The settings of a training after the checks, with the texts of its start."""
    given = parse(TrainSettings, flags(place.gym, place.bart, place / "checked", **changed))
    return check_inputs(train_settings(given), given).settings


def texts_of(settings) -> dict:
    names = (*HIDDEN, *TRAINED)
    return {name: getattr(settings, name) for name in names}


# ---- inherited


def test_stage_2_and_its_checkpoint_have_the_texts_of_stage_1(place):
    words = dict(routes_from=place / "moe", model=place.bart, output_dir=place / "two")
    assert merge(typed(words)) == 0
    folder = place.run("two", **CONTINUED, checkpoint_name="init", no_text_vectors=True)
    saved = settings_in(folder)
    kept = json.loads((folder / "best/config.json").read_text())["text_settings"]
    for name, value in (HIDDEN | TRAINED).items():
        assert saved[name] == kept[name] == value
    words = "max_input_length 24, max_output_length 6, do_lowercase True, hide_task_names True, num_beams 1"
    assert f"texts are those of the training of {folder}/init: {words}\n" in (folder / "log.txt").read_text()


@pytest.mark.parametrize("where", ["checkpoint", "vanilla_checkpoint", "model"])
def test_every_kind_of_start_keeps_its_texts(where, place, tmp_path):
    begin, new = place / "moe/best", TEXTS
    if where == "checkpoint":
        new = CONTINUED
    elif where == "vanilla_checkpoint":
        begin = place / "dense"
    else:
        load(place / "moe").export("colour", begin := tmp_path / "plain", argmax=True)
    assert texts_of(checked(place, **new | {where: begin})) == HIDDEN | TRAINED


def test_a_start_of_unknown_training_has_the_default_texts(place):
    lengths = dict(max_input_length=20, max_output_length=6)
    file = place / "dense/best/model.safetensors"
    plain = checked(place, **TEXTS | lengths)
    assert texts_of(plain) == lengths | dict.fromkeys(HIDDEN, False) | dict(num_beams=4)
    copy = place / "weights.safetensors"
    copy.write_bytes(file.read_bytes())
    assert texts_of(checked(place, **TEXTS | lengths, vanilla_checkpoint=copy)) == texts_of(plain)


def test_given_lengths_and_beams_may_differ_and_are_noted(place):
    given = dict(checkpoint=place / "moe/best", max_input_length=20, hide_task_names=True)
    folder = place.run("longer", **CONTINUED | given, no_text_vectors=True)
    assert settings_in(folder)["max_input_length"] == 20
    log = (folder / "log.txt").read_text()
    assert f"--max_input_length is 20, but in the training of {given['checkpoint']} it was 24\n" in log
    assert "max_output_length 6, do_lowercase True, num_beams 1\n" in log


def test_a_run_that_stopped_before_its_first_checkpoint_keeps_its_own_texts(place):
    mine = CONTINUED | dict(checkpoint=place / "moe/best", no_text_vectors=True)
    other = {"no-do_lowercase": True, "max_input_length": 20}
    other |= dict(append_another_bos=True, change_texts=True)
    fail_in_step(1, lambda: place.run("early", **mine | other))
    before = settings_in(place / "early")
    assert not (place / "early/last").exists()
    folder = place.run("early", **mine, resume=True)
    assert settings_in(folder) == before | {"resume": True}
    assert before["change_texts"]


def test_a_resumed_run_keeps_its_own_texts_without_its_start(place):
    begin = place.copy(place / "moe", "gone")
    again = CONTINUED | dict(total_steps=6, checkpoint=begin / "best", no_text_vectors=True)
    fail_in_step(5, lambda: place.run("resumed", **again))
    before = settings_in(place / "resumed")
    begin.rename(place / "moved")
    folder = place.run("resumed", **again, resume=True)
    assert settings_in(folder) == before | {"resume": True}
    assert before["hide_task_names"]


# ---- contradictions


def message(name: str, value: str, where, was: str) -> str:
    return f"--{name} is {value}, but in the training of {where} it was {was}; leave the flag out"


def test_a_training_of_other_texts_is_refused_before_a_model_is_loaded(place, capsys, monkeypatch):
    monkeypatch.setattr(start, "load_checkpoint", None)
    monkeypatch.setattr(start, "new_model", None)
    moe, dense = place / "moe/best", f"{place.bart} with the weights of {place / 'dense'}"
    for start_flags, flag, where in (
        (CONTINUED | dict(checkpoint=moe), "no-hide_task_names", moe),
        (TEXTS | dict(vanilla_checkpoint=place / "dense"), "no-hide_task_names", dense),
    ):
        assert train(place.gym, place.bart, place / "refused", **start_flags, **{flag: True}) == 2
        expected = message("hide_task_names", "not given", where, "given")
        assert f"error: {expected}, or add --change_texts\n" in capsys.readouterr().err
    assert not (place / "refused").exists()
    wanted = dict(checkpoint=moe, change_texts=True, append_another_bos=True) | {"no-do_lowercase": True}
    settings = checked(place, **CONTINUED | wanted)
    assert settings.append_another_bos
    assert (settings.do_lowercase, settings.hide_task_names) == (False, True)


def test_scores_and_fine_tuning_of_other_texts_are_refused(place, capsys):
    other = {"append_another_bos": True}
    expected = message("append_another_bos", "given", place / "moe/best", "not given")
    predicting = ["--do_predict", "--output_dir", str(place / "moe"), "--append_another_bos"]
    with pytest.raises(InputError, match="leave the flag out, or add --change_texts") as error:
        check_inputs(train_settings(parse(TrainSettings, predicting)))
    assert expected in str(error.value)
    check_inputs(train_settings(parse(TrainSettings, [*predicting, "--change_texts"])))
    mixture = dict(moe_init=True, init_dir=place / "moe", task_dir=place.gym / "plural")
    assert finetune(place.gym, place.bart, place / "tuned", **QUICK | mixture | other) == 2
    assert expected in capsys.readouterr().err


def test_answers_and_vectors_of_other_texts_are_refused(place, capsys):
    where = place / "moe/best"
    with pytest.raises(InputError) as error:
        load(place / "moe", do_lowercase=False)
    assert str(error.value) == message("do_lowercase", "not given", where, "given").removeprefix("--")
    model = load(place / "moe")
    with pytest.raises(InputError, match="append_another_bos is given, but in the training of the model it"):
        train_in_python(model.model, model.tokenizer, place.gym, place / "x", append_another_bos=True)
    vectors = ("gradient", place.gym, place / "moe", place / "vectors")
    assert make_vectors(*vectors, append_another_bos=True) == 2
    expected = message("append_another_bos", "given", place / "moe", "not given")
    assert f"error: {expected}\n" in capsys.readouterr().err
    words = typed(dict(train_dir=place.gym, output_dir="x", model=where))
    assert settings_of("gradient", words).hide_task_names
