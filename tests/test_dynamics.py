"""How routes developed: the table by hand, its curves, the animation, and the script with its mistakes."""

import json
import shutil
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sample_pictures import ONTOLOGY, history

from routing_moe.analysis.dynamics import dynamics_table
from routing_moe.analysis.saved_routes import History
from routing_moe.cli import create_gif
from routing_moe.plots import animation
from routing_moe.plots.animation import can_write_mp4, write_animation
from routing_moe.plots.dynamics import plot_dynamics
from routing_moe.plots.route_map import route_map

needs_ffmpeg = pytest.mark.skipif(not can_write_mp4(), reason="there is no ffmpeg with an H.264 encoder")


# ---------------------------------------------------------------------------- the table and its curves


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


def test_there_is_a_curve_per_layer_from_the_table_and_the_mean_is_bold(figures):
    table = dynamics_table(history())
    plot_dynamics(table, "dynamics.png")
    entropy = figures[0].axes[0]
    assert entropy.get_title(loc="left") == "route entropy / log E"
    for line, layer in zip(entropy.lines, ["enc 0", "enc 1", "dec 0", "dec 1", "all"], strict=True):
        rows = table[table["layer"] == layer]
        assert list(line.get_xdata()) == [100, 200, 300]
        assert list(line.get_ydata()) == rows["entropy"].tolist()
    widths = [line.get_linewidth() for line in entropy.lines]
    assert widths[-1] > 2 * max(widths[:-1])
    colours = [line.get_color()[:3] for line in entropy.lines[:-1]]
    assert all(blue > red for red, _, blue in colours[:2])
    assert all(red > blue for red, _, blue in colours[2:])
    assert sum(colours[0]) > sum(colours[1])  # later layers are darker
    assert sum(colours[2]) > sum(colours[3])


def test_all_panels_share_their_steps_and_the_key_names_every_layer(figures):
    plot_dynamics(dynamics_table(history(30, 5, 4)), "dynamics.png")
    *panels, encoder, decoder, mean = figures[0].axes
    assert len(panels) == 6
    assert len({axes.get_xlim() for axes in panels}) == 1
    for bar, name in ((encoder, "encoder layer"), (decoder, "decoder layer")):
        assert bar.get_title(loc="left") == name
        assert [label.get_text() for label in bar.get_xticklabels()] == ["0", "1"]
    assert [text.get_text() for text in mean.get_legend().get_texts()] == ["mean over layers"]


def test_a_run_without_decoder_experts_has_a_key_of_the_encoder_only(figures):
    values_SNLE = history(3, 4, 2).values_SNLE
    run_history = History("run", ONTOLOGY.tasks[:4], ("enc 0", "enc 5"), (1, 2, 3), values_SNLE)
    plot_dynamics(dynamics_table(run_history), "dynamics.png")
    encoder, decoder = figures[0].axes[6:8]
    assert [label.get_text() for label in encoder.get_xticklabels()] == ["0", "5"]
    assert not decoder.axison


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


def expected_frame(history, number, caption):
    """The frame of one evaluation at the resolution of the animation: (route map, RGB array)."""
    layers, encoder_layers = history.layers, len(history.layers) // 2
    picture = route_map(history.values_SNLE[number], history.tasks, ONTOLOGY, encoder_layers, caption, layers)
    picture.figure.set_dpi(animation.DOTS_PER_INCH)
    picture.figure.canvas.draw()
    return picture, np.asarray(picture.figure.canvas.buffer_rgba(), dtype=int)[..., :3]


def test_a_gif_has_a_frame_per_evaluation_holds_the_last_and_loops(tmp_path):
    path = tmp_path / "new" / "routes.gif"
    write_animation(history(), ONTOLOGY, path, "A title", seconds_per_frame=0.4, quiet=True)
    frames, durations, loop = frames_of(path)
    assert durations[:2] == [400, 400]
    assert 3000 <= durations[2] < 3400
    assert len(durations) == 3
    assert loop == 0
    assert all((before != after).any() for before, after in pairwise(frames))
    assert [file.name for file in path.parent.iterdir()] == ["routes.gif"]


def test_a_single_evaluation_is_a_gif_of_one_frame(tmp_path):
    write_animation(history(1), ONTOLOGY, tmp_path / "routes.gif", quiet=True)
    _, durations, _ = frames_of(tmp_path / "routes.gif")
    assert durations == [3000]


@pytest.mark.parametrize("shape", [(3, 1, 2, 2), (3, 5, 4, 3), (2, 40, 12, 3)])
def test_every_frame_is_the_route_map_of_its_evaluation_with_step_and_entropy(tmp_path, shape):
    run_history = history(*shape)
    write_animation(run_history, ONTOLOGY, tmp_path / "routes.gif", "A title", quiet=True)
    frames, _, _ = frames_of(tmp_path / "routes.gif")
    weights = run_history.values_SNLE
    entropies = -(weights * np.log(weights)).sum(axis=-1).mean(axis=(1, 2)) / np.log(shape[-1])
    for number, frame in enumerate(frames):
        step = f"step {100 * (number + 1)} of {100 * shape[0]}, mean entropy {entropies[number]:.2f} log E"
        picture, expected = expected_frame(run_history, number, f"A title\n{step}")
        assert frame.shape == expected.shape
        difference = np.abs(expected - frame).max(axis=2)  # a GIF has 256 colours
        assert (frame[expected.min(axis=2) == 255] == 255).all()  # white
        assert difference.max() <= 32
        assert (difference > 16).mean() < 0.001
        cells = picture.heat.get_window_extent()
        height = len(frame)
        rows = slice(round(height - cells.y1) + 2, round(height - cells.y0) - 2)
        assert difference[rows, round(cells.x0) + 2 : round(cells.x1) - 2].max() <= 20


def test_the_same_history_gives_the_same_bytes(tmp_path):
    for name in ("one.gif", "two.gif"):
        write_animation(history(), ONTOLOGY, tmp_path / name, "$x_{", quiet=True)
    assert (tmp_path / "one.gif").read_bytes() == (tmp_path / "two.gif").read_bytes()


def test_a_large_map_is_drawn_with_fewer_dots_per_inch(tmp_path, monkeypatch):
    monkeypatch.setattr(animation, "MOST_PIXELS", 50_000)
    write_animation(history(2, 30), ONTOLOGY, tmp_path / "routes.gif", quiet=True)
    frames, _, _ = frames_of(tmp_path / "routes.gif")
    assert 40_000 < frames[0].shape[0] * frames[0].shape[1] <= 51_000


def test_equal_frames_keep_their_time(tmp_path):
    run_history = replace(history(3), steps=(100, 100, 200))
    run_history.values_SNLE[1] = run_history.values_SNLE[0]
    write_animation(run_history, ONTOLOGY, tmp_path / "routes.gif", seconds_per_frame=0.5, quiet=True)
    frames, durations, _ = frames_of(tmp_path / "routes.gif")
    assert sum(durations[:-1]) == 1000
    assert (frames[0] != frames[-1]).any()


def test_an_animation_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "routes.gif"
    path.write_bytes(b"old")
    quantize = Image.Image.quantize
    calls = []

    def fail(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("disk full")
        return quantize(*arguments, **options)

    monkeypatch.setattr(Image.Image, "quantize", fail)
    with pytest.raises(OSError, match="disk full"):
        write_animation(history(), ONTOLOGY, path, quiet=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "seconds", "message"),
    [
        ("x.avi", 0.5, "must end in .gif or .mp4"),
        ("x.gif", 0.0, "0; it must be from 0.02 to 60 seconds"),
        ("x.gif", 61.0, "61; it must be"),
        ("x.gif", float("nan"), "nan; it must be"),
    ],
)
def test_another_ending_and_seconds_out_of_range_are_errors(tmp_path, name, seconds, message):
    with pytest.raises(ValueError, match=message):
        write_animation(history(), ONTOLOGY, tmp_path / name, seconds_per_frame=seconds, quiet=True)
    assert list(tmp_path.iterdir()) == []


@needs_ffmpeg
def test_an_mp4_is_in_a_format_that_all_players_show(tmp_path):
    path = tmp_path / "routes.mp4"
    write_animation(history(), ONTOLOGY, path, "A title", seconds_per_frame=0.5, quiet=True)
    assert path.read_bytes()[4:8] == b"ftyp"
    if shutil.which("ffprobe"):
        entries = "stream=codec_name,pix_fmt,width,height,duration"
        command = ["ffprobe", "-v", "error", "-show_entries", entries, "-of", "json", path]
        found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["streams"][0]
        assert (found["codec_name"], found["pix_fmt"]) == ("h264", "yuv420p")
        assert found["width"] % 2 == found["height"] % 2 == 0
        assert float(found["duration"]) == pytest.approx(4.0, abs=0.6)  # 2 frames and 3 seconds


@needs_ffmpeg
def test_a_failure_of_ffmpeg_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(animation, "MP4_FORMAT", ("-pix_fmt", "no-such-format"))
    with pytest.raises(OSError, match=r"routes.mp4: ffmpeg failed \(.*no-such-format"):
        write_animation(history(), ONTOLOGY, tmp_path / "routes.mp4", quiet=True)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------- the script


@pytest.fixture
def run_folder(tmp_path):
    """A run of three evaluations as training leaves it, with a vanilla layer, and its own ontology."""
    folder, run_history = tmp_path / "gate", history(3, 4, 3)
    for step, values_NLE in zip(run_history.steps, run_history.values_SNLE, strict=True):
        place = folder / f"{step}-steps"
        place.mkdir(parents=True)
        np.save(place / "route.npy", values_NLE.astype(np.float32))
        (place / "route_tasks.txt").write_text("".join(f"{task}\n" for task in run_history.tasks))
    (folder / "best").mkdir()
    config = dict(model_type="routing_bart", encoder_layers=2, decoder_layers=1, encoder_vanilla_layers=[0])
    (folder / "best/config.json").write_text(json.dumps(config))
    (folder / "losses.csv").write_text(",steps,dev_performance\n0,100,0.5\n")
    (tmp_path / "gym").mkdir()
    (tmp_path / "gym/ontology.json").write_text(json.dumps({"kind": {"sub": list(run_history.tasks)}}))
    settings = dict(train_dir=str(tmp_path / "gym"), task_ontology=None)
    (folder / "run.json").write_text(json.dumps({"settings": settings}))
    return folder


def call(*flags) -> int:
    try:
        return create_gif.main([str(flag) for flag in flags])
    except SystemExit as stopped:  # argparse's own
        return stopped.code


@pytest.fixture
def no_ffmpeg(monkeypatch):
    monkeypatch.setattr(animation, "can_write_mp4", lambda: False)


def test_by_default_the_run_is_that_of_the_training_script(run_folder, no_ffmpeg, monkeypatch, capsys):
    monkeypatch.chdir(run_folder.parent)
    assert call() == 2
    assert capsys.readouterr().err == "error: --run models/routing_bart: no such folder\n"
    (run_folder.parent / "models").mkdir()
    run_folder.rename("models/routing_bart")
    assert call() == 0
    assert Path("models/routing_bart/analysis/routes.gif").is_file()


FILES = ["dynamics.csv", "dynamics.pdf", "dynamics.png", "routes.gif", "routes.mp4"]


@needs_ffmpeg
def test_the_script_writes_animations_curves_and_table_beside_the_run(run_folder, capsys):
    assert call("--run", run_folder, "--seconds_per_frame", "0.3") == 0
    place = run_folder / "analysis"
    assert sorted(file.name for file in place.iterdir()) == FILES
    printed = capsys.readouterr()
    assert sorted(printed.out.split()) == [str(place / name) for name in FILES]
    assert "warning" not in printed.err
    table = pd.read_csv(place / "dynamics.csv")
    assert table["layer"].tolist() == ["enc 1", "dec 0", "all"] * 3  # enc 0 has no experts
    _, durations, _ = frames_of(place / "routes.gif")
    assert durations[:2] == [300, 300]


def test_without_ffmpeg_a_note_reports_that_no_mp4_is_written(run_folder, tmp_path, capsys, no_ffmpeg):
    out = tmp_path / "animations"
    assert call("--run", run_folder, "--output_dir", out, "--routes", "chosen", "--title", "My title") == 0
    assert sorted(file.name for file in out.iterdir()) == FILES[:-1]
    assert "routes.mp4 is not written: it needs ffmpeg" in capsys.readouterr().err
    assert (pd.read_csv(out / "dynamics.csv")["entropy"] == 0).all()  # one-hot


def test_a_run_with_one_evaluation_has_curves_and_no_animation(run_folder, capsys, no_ffmpeg):
    for step in (200, 300):
        shutil.rmtree(run_folder / f"{step}-steps")
    assert call("--run", run_folder) == 0
    assert sorted(file.name for file in (run_folder / "analysis").iterdir()) == FILES[:-2]
    assert capsys.readouterr().err == (
        f"{run_folder}: evaluated only once, nothing to animate; --eval_period sets how often\n"
    )


def test_tasks_without_a_category_are_a_warning(run_folder, capsys, no_ffmpeg):
    (run_folder.parent / "gym/ontology.json").write_text('{"kind": {"sub": ["other"]}}')
    assert call("--run", run_folder) == 0
    assert "warning: no task has a category" in capsys.readouterr().err


def test_a_run_without_run_json_is_drawn_in_the_shipped_ontology(run_folder, capsys, no_ffmpeg):
    (run_folder / "run.json").unlink()
    assert call("--run", run_folder) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--run", "<here>/nowhere"], "error: --run <here>/nowhere: no such folder"),
        (["--run", "<here>"], "error: --run <here> holds no <step>-steps/route.npy"),
        (
            ["--routes", "soft_t1"],
            "error: --run <run>/100-steps/route_t1.npy: not found; a run without a router",
        ),
        (
            ["--seconds_per_frame", "0"],
            "error: --seconds_per_frame is 0.0; it must be from 0.02 to 60 seconds",
        ),
        (["--seconds_per_frame", "nan"], "error: --seconds_per_frame is nan; it must be from 0.02"),
        (
            ["--seconds_per_frame", "fast"],
            "create_gif: error: argument --seconds_per_frame: invalid float",
        ),
        (["--output_dir", "<run>/run.json"], "error: --output_dir <run>/run.json: <run>/run.json is a file"),
        (["--task_ontology", "<here>/no.json"], "error: --task_ontology <here>/no.json: no such file"),
        (["--routes", "hard"], "error: --routes is 'hard'; choose from soft, soft_t1, chosen"),
        (["--titel", "x"], "unrecognized arguments: --titel x; did you mean '--title'?"),
    ],
)
def test_a_mistake_is_an_error_of_one_line_and_nothing_is_written(run_folder, capsys, flags, message):
    def filled(text):
        return text.replace("<run>", str(run_folder)).replace("<here>", str(run_folder.parent))

    before = sorted(run_folder.parent.rglob("*"))
    given = [] if "--run" in flags else ["--run", run_folder]
    assert call(*given, *map(filled, flags)) == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    (line,) = [line for line in printed.err.splitlines() if "error:" in line]
    assert filled(message) in line
    assert printed.out == ""
    assert sorted(run_folder.parent.rglob("*")) == before


def test_all_mistakes_are_reported_at_once(run_folder, capsys):
    assert call("--run", "/nowhere", "--seconds_per_frame", "-1", "--task_ontology", "/nothing.json") == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_full_disk_is_an_error_of_one_line(run_folder, capsys, monkeypatch):
    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(create_gif, "write_text", fail)
    assert call("--run", run_folder) == 2
    assert capsys.readouterr().err == "error: No space left on device\n"
