"""Errors of the merge command: wrong routes, wrong BART, wrong target."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import tiny_bart_config
from mistakes import Place, assert_fault, refused
from safetensors.torch import save_file
from test_merge import typed
from tiny_runs import weights, write_bart
from transformers import BartForConditionalGeneration

from routing_moe.cli.merge import main


def change_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def of_run(**changes):
    return lambda place: change_json(place.out / "best/config.json", **changes)


def half(name):
    return lambda place: place.write(place.folder / name, (place.folder / name).read_bytes()[:3000])


def without_a_weight(place):
    state = weights(place.out / "best")
    state.pop("router.units.0.hidden.bias")
    save_file(state, place.out / "best/model.safetensors", {"format": "pt"})


def published(name="config.json", content=None, **changes):
    """Returns a function that writes a run of the published code into <here>/published, with a change."""

    def make(place):
        config = tiny_bart_config(decoder_layers=1).to_dict() | {"router_block_num": 2} | changes
        place.write(place.folder / "published/config.json", config)
        place.write(place.folder / "published/best/model.pt", b"garbage")
        place.vectors(["colour"])
        for path in (place.folder / "vectors").iterdir():
            shutil.copy(path, place.folder / "published/best")
        if content is not None:
            place.write(place.folder / "published" / name, content)

    return make


def deeper(place):
    write_bart(place.folder / "deep", encoder_layers=1, decoder_layers=2)


def small_vocabulary(place):
    write_bart(place.folder / "small")
    bart = BartForConditionalGeneration(tiny_bart_config(decoder_layers=1, vocab_size=50))
    bart.save_pretrained(place.folder / "small")


def existing(place):
    place.write(place.folder / "new/init/something", "of the user's")


MISTAKES = {
    "weights of a mixture": (
        None,
        dict(vanilla_checkpoint="<out>"),
        "--vanilla_checkpoint <out>/best is a mixture of 2 experts; give a plain BART, or a run with",
    ),
    "no such run": (None, dict(routes_from="<here>/none"), "--routes_from <here>/none: no such folder"),
    "a folder that is not a run": (
        None,
        dict(routes_from="<gym>"),
        "--routes_from <gym> is neither a run, with best/config.json, nor a checkpoint, with config.json",
    ),
    "a missing checkpoint of the run": (
        None,
        dict(routes_checkpoint_name="bset"),
        "--routes_from <out> has no checkpoint 'bset'; choose one with --routes_checkpoint_name: best, last",
    ),
    "a checkpoint's name for a checkpoint": (
        None,
        dict(routes_from="<out>/best", routes_checkpoint_name="best"),
        "--routes_from <out>/best is a checkpoint; --routes_checkpoint_name",
    ),
    "a run of one expert": (
        of_run(num_experts=1),
        {},
        "--routes_from <out>/best has 1 expert per layer: there are no routes to keep",
    ),
    "a run with average routes": (
        of_run(route_source="average"),
        {},
        "--routes_from <out>/best has average routes: tasks have none to keep",
    ),
    "an unknown router": (
        of_run(router_nn_type="linaer"),
        {},
        "<out>/best/config.json: not a valid configuration (router_nn_type is 'linaer'",
    ),
    "broken weights of the run": (
        half("out/best/model.safetensors"),
        {},
        "--routes_from <out>/best: not a valid checkpoint of a routing BART",
    ),
    "a router that lacks a weight": (
        without_a_weight,
        {},
        "--routes_from <out>/best: its files lack 1 weights, such as router.units.0.hidden.bias",
    ),
    "a published run without the checkpoint": (
        published(),
        dict(routes_from="<here>/published", routes_checkpoint_name="last"),
        "--routes_from <here>/published/last/model.pt: not found; checkpoints there: best",
    ),
    "a checkpoint folder of a published run": (
        published(),
        dict(routes_from="<here>/published/best"),
        "<here>/published/best has no config.json; for a run of the published code, give its parent folder",
    ),
    "a BART of another depth": (
        deeper,
        dict(model="<here>/deep"),
        "--model <here>/deep has 1+2 layers (encoder+decoder), but the routes of <out>/best are of 2+1",
    ),
    "a routing checkpoint as the BART": (
        None,
        dict(model="<out>/best"),
        "--model <out>/best is a 'routing_bart' model; experts can only be made from a 'bart' model",
    ),
    "a tokenizer too large for the BART": (
        small_vocabulary,
        dict(model="<here>/small"),
        "--model <here>/small: its tokenizer has",
    ),
    "plain weights of another size": (
        deeper,
        dict(vanilla_checkpoint="<here>/deep/model.safetensors"),
        "--vanilla_checkpoint <here>/deep/model.safetensors: these are not the weights of a plain BART with",
    ),
    "negative noise": (None, dict(init_eps=-0.5), "--init_eps is -0.5; it must be 0 or greater"),
    "an existing checkpoint": (
        None,
        dict(output_dir="<out>", checkpoint_name="init2"),
        "--output_dir <out>: <out>/init2 exists already; delete it to merge again",
    ),
    "an existing folder": (existing, {}, "<here>/new/init exists already"),
    "an existing folder to keep": (
        existing,
        dict(keep_existing=""),
        "--keep_existing: <here>/new/init was made from other sources",
    ),
    "a checkpoint that training writes": (
        None,
        dict(checkpoint_name="best"),
        "--checkpoint_name is 'best', which training writes; choose another name, such as init",
    ),
    "a path as a name": (
        None,
        dict(checkpoint_name="../init"),
        "--checkpoint_name is '../init'; it must be the name of a folder in --output_dir",
    ),
    "an empty name": (None, dict(checkpoint_name=""), "--checkpoint_name is ''"),
    "no run given": (None, dict(routes_from=None), "required: --routes_from"),
}


def complaint(place: Place, capsys, **changed) -> list[str]:
    """Returns the lines of the merge command's errors."""
    chosen = dict(routes_from="<out>", model="<bart>", output_dir="<here>/new") | changed
    flags = [place.filled_in(part) for part in typed(chosen) if part or "keep_existing" not in chosen]
    output = refused(place, capsys, lambda: main(flags))
    assert output.out == ""
    return output.err.splitlines()


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_reported(name, originals, tmp_path, capsys):
    change, changed, *fragments = MISTAKES[name]
    place = Place(tmp_path, originals.gym, Path(shutil.copytree(originals.bart, tmp_path / "bart")))
    shutil.copytree(originals.out, place.out)
    if changed.get("checkpoint_name") == "init2":
        shutil.copytree(place.out / "best", place.out / "init2")
    if change:
        change(place)
    output = complaint(place, capsys, **changed)
    assert_fault(output, *map(place.filled_in, fragments))


def test_all_mistakes_are_reported_together(with_run, capsys):
    output = complaint(
        with_run,
        capsys,
        routes_from="<bart>",
        model="<out>/best",
        init_eps="nan",
        vanilla_checkpoint="<here>/none",
    )
    assert len(output) == 4
    for fragment in (
        f"--routes_from {with_run.bart} holds a 'bart' model, not a routing BART",
        f"--model {with_run.out}/best is a 'routing_bart' model",
        "--init_eps is nan",
        f"--vanilla_checkpoint {with_run.folder}/none: not found",
    ):
        assert_fault(output, fragment)
