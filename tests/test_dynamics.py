"""How routes came about: the table by hand, its curves, the animation, and the script, with every mistake."""

import json
import shutil
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import assert_apart_and_inside
from PIL import Image

from dataloader.ontology import Ontology
from routing_moe.analysis.dynamics import dynamics_table
from routing_moe.analysis.saved_routes import History, layer_names
from routing_moe.plots import animation, dynamics
from routing_moe.plots.animation import can_write_mp4, write_animation
from routing_moe.plots.dynamics import plot_dynamics
from routing_moe.plots.route_map import HEAT_COLOURS, draw_routes

ONTOLOGY = Ontology.load()
SCRIPT = Path(__file__).resolve().parents[1] / "example_scripts/create_gif.py"

_spec = spec_from_file_location("create_gif", SCRIPT)
create_gif = module_from_spec(_spec)
_spec.loader.exec_module(create_gif)

needs_ffmpeg = pytest.mark.skipif(not can_write_mp4(), reason="there is no ffmpeg with an H.264 encoder")


def history(n_steps=3, n_tasks=4, n_layers=4, n_experts=2, seed=0) -> History:
    values = np.random.default_rng(seed).dirichlet([0.5] * n_experts, (n_steps, n_tasks, n_layers))
    layers = layer_names(n_layers // 2, range(n_layers))
    steps = tuple(100 * (step + 1) for step in range(n_steps))
    return History("run", ONTOLOGY.tasks[:n_tasks], layers, steps, values)


# ---------------------------------------------------------------------------- the table and its curves


def test_the_table_is_as_worked_out_by_hand():
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


@pytest.fixture
def figures(monkeypatch):
    """The figures drawn, kept instead of written."""
    kept = []
    monkeypatch.setattr(dynamics, "write_figure", lambda figure, path: kept.append(figure))
    return kept


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


@pytest.mark.parametrize(("n_steps", "n_layers"), [(1, 2), (2, 4), (30, 24)])
def test_curves_overlap_nothing_are_as_wide_as_a_paper_s_text_and_not_cut_off(figures, n_steps, n_layers):
    plot_dynamics(dynamics_table(history(n_steps, 5, n_layers, 3)), "dynamics.png", "Dynamics " * 20)
    figure = figures[0]
    assert figure.get_figwidth() == 6.75
    *panels, key = figure.axes
    words = [text.get_window_extent() for text in key.texts]
    boxes = [axes.get_tightbbox() for axes in panels] + words + [figure.texts[0].get_window_extent()]
    assert_apart_and_inside(figure, boxes)
    assert {axes.get_xlim() for axes in panels} == {panels[0].get_xlim()}


def test_the_same_table_gives_the_same_bytes_and_another_ending_is_refused(tmp_path):
    table = dynamics_table(history())
    for kind in ("png", "pdf"):
        paths = [tmp_path / f"{number}.{kind}" for number in range(2)]
        for path in paths:
            plot_dynamics(table, path, "a $ and _")
        assert paths[0].read_bytes() == paths[1].read_bytes()
    with pytest.raises(ValueError, match=r"must end in .png or .pdf"):
        plot_dynamics(table, "x.svg")


# ---------------------------------------------------------------------------- the animation


def frames_of(path):
    """The frames as RGB arrays, their milliseconds, and how often the film is shown (0: for ever)."""
    frames, durations = [], []
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(image.info["duration"])
        return frames, durations, image.info["loop"]


def test_a_gif_has_a_frame_per_evaluation_holds_the_last_and_loops(tmp_path):
    path = tmp_path / "new" / "routes.gif"
    write_animation(history(), ONTOLOGY, path, "A title", seconds_per_frame=0.4, quiet=True)
    frames, durations, loop = frames_of(path)
    assert durations[:2] == [400, 400]
    assert durations[2] >= 3000
    assert len(durations) == 3
    assert loop == 0
    assert all((before != after).any() for before, after in pairwise(frames))
    assert [file.name for file in path.parent.iterdir()] == ["routes.gif"]


def test_every_frame_shows_the_routes_of_its_evaluation(tmp_path):
    """Each frame is what a still picture of its routes is, but for the coarser colours of a GIF."""
    film = history(3, 5, 4, 3)
    write_animation(film, ONTOLOGY, tmp_path / "routes.gif", quiet=True)
    frames, _, _ = frames_of(tmp_path / "routes.gif")
    for number, frame in enumerate(frames):
        caption = animation._caption(film, number)
        still = draw_routes(film.values_SNLE[number], film.tasks, ONTOLOGY, 2, caption, film.layers)
        height, width, _ = frame.shape
        still.figure.set_dpi(128)
        still.figure.set_size_inches(width / 128, height / 128)
        still.figure.canvas.draw()
        expected = np.asarray(still.figure.canvas.buffer_rgba(), dtype=int)[..., :3]
        off = np.abs(expected - frame).max(axis=2)
        assert (off > 16).mean() < 0.002  # edges of coloured things
        cells = still.heat.get_position()
        rows = slice(round(height * (1 - cells.y1)) + 2, round(height * (1 - cells.y0)) - 2)
        columns = slice(round(width * cells.x0) + 2, round(width * cells.x1) - 2)
        assert off[rows, columns].max() <= 16


@pytest.mark.parametrize("n_tasks", [1, 2, 3, 4, 60])
def test_frames_have_even_sides_of_whole_pixels_and_not_too_many(n_tasks):
    film = history(1, n_tasks, 24, 4)
    picture = draw_routes(film.values_SNLE[0], film.tasks, ONTOLOGY, 12, "title", film.layers)
    height, width, _ = animation._Frames(picture).draw(film.values_SNLE[0], "title").shape
    assert ((width, height) == picture.figure.get_size_inches() * picture.figure.dpi).all()
    assert width % 2 == height % 2 == 0
    assert width * height <= animation.MOST_PIXELS


def test_pixels_survive_being_reported_in_inches():
    pixels = np.arange(1, 10_000)
    assert all(((pixels / dots) * dots == pixels).all() for dots in animation.DOTS)


def test_a_caption_tells_step_and_entropy(tmp_path):
    values = np.array([[[[0.5, 0.5]]], [[[1.0, 0.0]]]])
    film = History("run", ("boolq",), ("enc 0",), (500, 30000), values)
    assert animation._caption(film, 0) == "step 500 of 30000, mean entropy 1.00 log E"
    assert animation._caption(film, 1) == "step 30000 of 30000, mean entropy 0.00 log E"


def test_blends_lie_between_evaluations_and_take_no_more_time(tmp_path):
    film = history(3)
    drawn = [values for values, _ in animation._film(film, 1)]
    assert len(drawn) == 5
    assert np.allclose(drawn[1], (film.values_SNLE[0] + film.values_SNLE[1]) / 2)
    assert np.array_equal(drawn[2], film.values_SNLE[1])
    write_animation(film, ONTOLOGY, tmp_path / "routes.gif", seconds_per_frame=0.4, tween=1, quiet=True)
    _, durations, _ = frames_of(tmp_path / "routes.gif")
    assert durations[:4] == [200] * 4


def test_evaluations_that_are_alike_keep_their_time(tmp_path, monkeypatch):
    film = history(3)
    film.values_SNLE[1] = film.values_SNLE[0]
    monkeypatch.setattr(animation, "_caption", lambda *_: "the same")
    write_animation(film, ONTOLOGY, tmp_path / "routes.gif", seconds_per_frame=0.5, quiet=True)
    frames, durations, _ = frames_of(tmp_path / "routes.gif")
    assert sum(durations[:-1]) == 1000
    assert (frames[0] != frames[-1]).any()


def test_a_gif_shows_each_shade_of_the_map_nearly_as_it_is():
    frame = Image.new("RGB", (40, 40), "white")
    frame.paste("#b3e2d5", (0, 0, 20, 20))  # a pale colour of some kind of task
    palette = np.array(animation._palette(frame).getpalette()).reshape(-1, 3)
    assert len(palette) <= animation.CLEAR
    wanted = [*animation.colormaps[HEAT_COLOURS](np.arange(256), bytes=True)[:, :3].astype(int).tolist()]
    for colour in (*wanted, [255, 255, 255], [0, 0, 0], [0xB3, 0xE2, 0xD5]):
        assert np.abs(palette - colour).max(axis=1).min() <= 6


def test_a_film_that_fails_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "routes.gif"
    path.write_bytes(b"old")
    add = animation._GifWriter.add
    calls = []

    def fail(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("disk full")
        return add(*arguments)

    monkeypatch.setattr(animation._GifWriter, "add", fail)
    with pytest.raises(OSError, match="disk full"):
        write_animation(history(), ONTOLOGY, path, quiet=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("x.avi", {}, "must end in .gif or .mp4"),
        ("x.gif", {"seconds_per_frame": 0.0}, "0; it must be from 0.02 to 60 seconds"),
        ("x.gif", {"seconds_per_frame": float("nan")}, "nan; it must be"),
        ("x.gif", {"seconds_per_frame": 0.1, "tween": 9}, "0.1 for 10 frames each; it must be"),
        ("x.gif", {"tween": -1}, "tween is -1"),
    ],
)
def test_what_cannot_be_a_film_is_refused(tmp_path, name, numbers, message):
    with pytest.raises(ValueError, match=message):
        write_animation(history(), ONTOLOGY, tmp_path / name, quiet=True, **numbers)
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
def test_an_ffmpeg_that_fails_is_reported_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(animation, "MP4_FORMAT", ("-pix_fmt", "no-such-format"))
    with pytest.raises(OSError, match=r"routes.mp4: ffmpeg failed \(.*no-such-format"):
        write_animation(history(), ONTOLOGY, tmp_path / "routes.mp4", quiet=True)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------- the script


@pytest.fixture
def run_folder(tmp_path):
    """A run of three evaluations as training leaves it, with a vanilla layer, and its own ontology."""
    folder, film = tmp_path / "gate", history(3, 4, 3)
    for step, values_NLE in zip(film.steps, film.values_SNLE, strict=True):
        place = folder / f"{step}-steps"
        place.mkdir(parents=True)
        np.save(place / "route.npy", values_NLE.astype(np.float32))
        (place / "route_tasks.txt").write_text("".join(f"{task}\n" for task in film.tasks))
    (folder / "best").mkdir()
    config = dict(encoder_layers=2, decoder_layers=1, encoder_vanilla_layers=[0])
    (folder / "best/config.json").write_text(json.dumps(config))
    (folder / "losses.csv").write_text(",steps,dev_performance\n0,100,0.5\n")
    (tmp_path / "gym").mkdir()
    (tmp_path / "gym/ontology.json").write_text(json.dumps({"kind": {"sub": list(film.tasks)}}))
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
    monkeypatch.setattr(create_gif, "can_write_mp4", lambda: False)


FILES = ["dynamics.csv", "dynamics.pdf", "dynamics.png", "routes.gif", "routes.mp4"]


@needs_ffmpeg
def test_the_script_writes_films_curves_and_table_beside_the_run(run_folder, capsys):
    assert call("--run", run_folder, "--seconds_per_frame", "0.3") == 0
    place = run_folder / "analysis"
    assert sorted(file.name for file in place.iterdir()) == FILES
    output = capsys.readouterr()
    assert sorted(output.out.split()) == [str(place / name) for name in FILES]
    assert "warning" not in output.err
    table = pd.read_csv(place / "dynamics.csv")
    assert table["layer"].tolist() == ["enc 1", "dec 0", "all"] * 3  # enc 0 has no experts
    _, durations, _ = frames_of(place / "routes.gif")
    assert durations[:2] == [300, 300]


def test_without_ffmpeg_the_mp4_is_left_out_and_that_is_reported(run_folder, tmp_path, capsys, no_ffmpeg):
    out = tmp_path / "films"
    assert call("--run", run_folder, "--output_dir", out, "--routes", "chosen", "--title", "My title") == 0
    assert sorted(file.name for file in out.iterdir()) == FILES[:-1]
    assert "routes.mp4 is left out: it needs ffmpeg" in capsys.readouterr().err
    assert (pd.read_csv(out / "dynamics.csv")["entropy"] == 0).all()  # one-hot


def test_a_run_that_was_evaluated_once_has_curves_and_no_film(run_folder, capsys, no_ffmpeg):
    for step in (200, 300):
        shutil.rmtree(run_folder / f"{step}-steps")
    assert call("--run", run_folder) == 0
    assert sorted(file.name for file in (run_folder / "analysis").iterdir()) == FILES[:-2]
    assert capsys.readouterr().err == (
        f"{run_folder}: evaluated once, nothing to animate; --eval_period says how often\n"
    )


def test_tasks_without_a_category_are_reported(run_folder, capsys, no_ffmpeg):
    (run_folder.parent / "gym/ontology.json").write_text('{"kind": {"sub": ["other"]}}')
    assert call("--run", run_folder) == 0
    assert "warning: no task has a category" in capsys.readouterr().err


def test_a_run_without_run_json_is_drawn_in_the_shipped_ontology(run_folder, capsys, no_ffmpeg):
    (run_folder / "run.json").unlink()
    assert call("--run", run_folder) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "output"),
    [
        (["--run", "<here>/nowhere"], "error: --run <here>/nowhere: no such folder"),
        (["--run", "<here>"], "error: --run <here>: holds no <step>-steps/route.npy"),
        (
            ["--routes", "soft_t1"],
            "error: --run <run>/100-steps/route_t1.npy: not found; a run without a router",
        ),
        (["--seconds_per_frame", "0"], "error: --seconds_per_frame is 0; it must be from 0.02 to 60 seconds"),
        (["--seconds_per_frame", "nan"], "error: --seconds_per_frame is nan; it must be from 0.02"),
        (
            ["--seconds_per_frame", "fast"],
            "create_gif.py: error: argument --seconds_per_frame: invalid float",
        ),
        (["--output_dir", "<run>/run.json"], "error: --output_dir <run>/run.json: <run>/run.json is a file"),
        (["--task_ontology", "<here>/no.json"], "error: --task_ontology <here>/no.json: no such file"),
        (["--routes", "hard"], "create_gif.py: error: argument --routes: invalid choice: 'hard'"),
        (["--titel", "x"], "unrecognized arguments: --titel x; did you mean '--title'?"),
    ],
)
def test_a_mistake_is_reported_in_one_line_and_nothing_is_written(
    run_folder, capsys, monkeypatch, flags, output
):
    monkeypatch.setattr("sys.argv", ["create_gif.py"])

    def filled(text):
        return text.replace("<run>", str(run_folder)).replace("<here>", str(run_folder.parent))

    before = sorted(run_folder.parent.rglob("*"))
    given = [] if "--run" in flags else ["--run", run_folder]
    assert call(*given, *map(filled, flags)) == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    (line,) = [line for line in printed.err.splitlines() if "error:" in line]
    assert filled(output) in line
    assert printed.out == ""
    assert sorted(run_folder.parent.rglob("*")) == before


def test_all_mistakes_are_reported_together(run_folder, capsys):
    assert call("--run", "/nowhere", "--seconds_per_frame", "-1", "--task_ontology", "/nothing.json") == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_full_disk_is_reported_in_one_line(run_folder, capsys, monkeypatch):
    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(create_gif, "write_text", fail)
    assert call("--run", run_folder) == 2
    assert capsys.readouterr().err == "error: No space left on device\n"
