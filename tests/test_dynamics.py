"""How routes developed: the table by hand, the animation, and the command with its mistakes."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context
from PIL import Image
from planted_routes import write_run
from sample_pictures import ONTOLOGY, history

from routing_moe.analysis.route_metrics import dynamics_table
from routing_moe.analysis.saved_routes import History
from routing_moe.cli import create_gif
from routing_moe.pictures.animation import save_animation
from routing_moe.pictures.heat_maps import plot_routes
from routing_moe.pictures.style import STYLE, finished


def test_the_table_equals_the_one_computed_by_hand():
    # Two tasks, two layers, two experts: from even routes; in enc 0 to one expert each, in dec 0 to the same.
    even, split, same = [[0.5, 0.5]] * 2, [[1, 0], [0, 1]], [[1, 0], [1, 0]]
    values_SNLE = np.array([[even, even], [split, same]], dtype=float).swapaxes(1, 2)
    table = dynamics_table(History("run", ("a", "b"), ("enc 0", "dec 0"), (10, 30), values_SNLE))
    nan = np.nan
    expected = pd.DataFrame(
        [(10, "enc 0", 1, 1, 0.5, 0, 0.5, nan), (10, "dec 0", 1, 1, 0.5, 0, 0.5, nan),
         (10, "all", 1, 1, 0.5, 0, 0.5, nan), (30, "enc 0", 0, 1, 0.5, 1, 0, 0.5),
         (30, "dec 0", 0, 0, 1, 0, 0, 0.5), (30, "all", 0, 0.5, 0.75, 0.5, 0, 0.5)],
        columns=["step", "layer", "entropy", "load_entropy", "largest_load", "information",
                 "distance_to_final", "distance_to_previous"],
    )  # fmt: skip
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)


# ---------------------------------------------------------------------------- the animation


def frames_of(path):
    """The frames as RGB arrays, their milliseconds, how often the animation runs (0: it loops forever)."""
    frames, durations = [], []
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB"), dtype=int))
            durations.append(image.info["duration"])
        return frames, durations, image.info["loop"]


def test_every_frame_is_the_route_map_of_its_evaluation_with_step_and_entropy(tmp_path):
    run_history, path = history(2, 3, 2, 3), tmp_path / "routes.gif"
    save_animation(run_history, ONTOLOGY, path, "A title")
    frames, (first, last), loop = frames_of(path)
    assert (first, last) == (500, 3000)
    assert loop == 0
    assert (frames[0] != frames[1]).any()
    weights = run_history.values_SNLE
    entropies = -(weights * np.log(weights)).sum(axis=-1).mean(axis=(1, 2)) / np.log(3)
    for number, frame in enumerate(frames):
        step = f"step {100 * (number + 1)} of 200, mean entropy {entropies[number]:.2f} log E"
        drawn = io.BytesIO()
        figure = plot_routes(weights[number], run_history.tasks, run_history.layers, ONTOLOGY)
        with rc_context(STYLE):
            box = finished(figure, f"A title\n{step}")
        figure.savefig(drawn, dpi=128, bbox_inches=box)
        expected = np.asarray(Image.open(drawn).convert("RGB"), dtype=int)
        difference = np.abs(expected - frame).max(axis=2)  # a GIF has 256 colours
        assert (frame[expected.min(axis=2) == 255] == 255).all()  # white
        assert difference.max() <= 32
        assert (difference > 16).mean() < 0.001


# ---------------------------------------------------------------------------- the command


@pytest.fixture
def run_folder(tmp_path):
    """A run of two evaluations as training leaves it, with a vanilla layer, and its own ontology."""
    gym, run_history = tmp_path / "gym", history(2, 3, 3)
    gym.mkdir()
    (gym / "ontology.json").write_text(json.dumps({"kind": {"sub": list(run_history.tasks)}}))
    of_steps = dict(zip(run_history.steps, run_history.values_SNLE, strict=True))
    fields = dict(encoder_layers=2, encoder_vanilla_layers=[0])
    return write_run(tmp_path / "gate", of_steps, run_history.tasks, gym=gym, **fields)


def call(*flags) -> int:
    try:
        return create_gif.main([str(flag) for flag in flags])
    except SystemExit as stopped:  # argparse's own
        return stopped.code


FILES = ["dynamics.csv", "routes.gif"]


def test_the_default_run_gets_an_animation_and_a_table(run_folder, monkeypatch, capsys):
    monkeypatch.chdir(run_folder.parent)
    assert call() == 2
    assert capsys.readouterr().err == "error: --run models/routing_bart: no such folder\n"
    Path("models").mkdir()
    run_folder.rename("models/routing_bart")
    assert call() == 0
    folder = Path("models/routing_bart/analysis")
    assert sorted(file.name for file in folder.iterdir()) == FILES
    printed = capsys.readouterr()
    assert sorted(printed.out.split()) == [str(folder / name) for name in FILES]
    assert "warning" not in printed.err
    table = pd.read_csv(folder / "dynamics.csv")
    assert table["layer"].tolist() == ["enc 1", "dec 0", "all"] * 2  # enc 0 has no experts


def test_a_run_with_one_evaluation_has_a_table_and_no_animation(run_folder, capsys):
    (run_folder.parent / "gym/ontology.json").write_text('{"kind": {"sub": ["other"]}}')
    shutil.rmtree(run_folder / "200-steps")
    out = run_folder.parent / "out"
    assert call("--run", run_folder, "--output_dir", out, "--routes", "chosen") == 0
    assert sorted(file.name for file in out.iterdir()) == FILES[:-1]
    assert (pd.read_csv(out / "dynamics.csv")["entropy"] == 0).all()  # one-hot
    assert capsys.readouterr().err == (
        "warning: no task has a category; name an ontology with --task_ontology\n"
        f"{run_folder}: evaluated only once, nothing to animate; --eval_period sets how often\n"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--run", "<here>"], "error: --run <here> holds no <step>-steps/route.npy"),
        (["--output_dir", "<run>/run.json"], "error: --output_dir <run>/run.json: <run>/run.json is a file"),
    ],
)
def test_a_mistake_is_an_error_of_one_line_and_nothing_is_written(run_folder, capsys, flags, message):
    def filled(text):
        return text.replace("<run>", str(run_folder)).replace("<here>", str(run_folder.parent))

    before = sorted(run_folder.parent.rglob("*"))
    run = [] if "--run" in flags else ["--run", run_folder]
    assert call(*run, *map(filled, flags)) == 2
    printed = capsys.readouterr()
    (line,) = [line for line in printed.err.splitlines() if "error:" in line]
    assert filled(message) in line
    assert printed.out == ""
    assert sorted(run_folder.parent.rglob("*")) == before
