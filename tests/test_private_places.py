"""Sharing a run: no secret of this machine is in any file, whatever its files and settings say."""

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

from dataloader.building.report import UNCOMPARED, Line, write_report
from routing_moe.cli import push
from routing_moe.config.assemble import AssembleSettings, AverageSettings, MergeSettings
from routing_moe.config.flags import flags_of, parse, value_type
from routing_moe.config.train import TrainSettings
from routing_moe.report.shared_run import without_places

pytestmark = pytest.mark.usefixtures("no_gpu", "empty_pictures")
MADE_BY = {"merge": MergeSettings, "assembled": AssembleSettings, "averaged": AverageSettings}


def may_be_places(command) -> list[str]:
    """Returns the flags of a command that take a text which is not one of a few choices."""
    kinds = {field.name: value_type(field.type)[0] for field in dataclasses.fields(command)}
    return [
        name
        for name, flag in flags_of(command).items()
        if kinds[name] in (str, Path) and not flag.choices and not flag.range
    ]


def described(command, value_of) -> dict:
    """Returns the record of a command all of whose places are `value_of(flag)`, as run.json has it."""
    values = {name: value_of(name) for name in may_be_places(command)}
    several = {field.name for field in dataclasses.fields(command) if value_type(field.type)[1]}
    settings = {name: [one, f"task={one}"] if name in several else one for name, one in values.items()}
    return {"settings": settings, "command": f"routing-moe {value_of('command')}"}


def change(path: Path, **fields) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | fields))


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "copied/run"))


class Secrets:
    """Values and texts with a secret of a name: of folders whose last one is called so, or of a URL."""

    def __init__(self, kind: str, folder: Path):
        self.kind, self.folder = kind, folder

    def value(self, name: str) -> str:
        if self.kind == "url":
            return f"https://user:Secret-{name}@host/owner/{name}?token=Secret-{name}#Secret-{name}"
        return f"{self.folder}/Secret-{name} of 'Älice' \"s\"/Secret-{name} run 1/{name}"

    def text(self, name: str) -> str:
        value = self.value(name)
        return f"no cost with {value}; random:{value}:3 (see '{value}')"

    def into_gym(self, gym: Path) -> None:
        """Writes the files that settings name, as paths."""
        own = Path(shutil.copytree(gym, self.value("train_dir")))
        Path(self.value("task_ontology")).parent.mkdir(parents=True)
        shutil.copy(gym / "ontology.json", self.value("task_ontology"))
        change(Path(self.value("task_ontology")), colours={self.text("category"): []})
        table = pd.DataFrame({"task": ["colour"], "note": [self.text("skills")]})
        table.to_csv(own / "skills.csv", index=False)
        write_report(own, [Line("colour", UNCOMPARED, terms=self.text("terms"))])

    def into_run(self, run: Path) -> None:
        """Writes secrets into every file of a run that has texts."""
        record = described(TrainSettings, self.value)
        assert {"train_dir", "model", "task_routes", "taskvecs"} <= record["settings"].keys()
        if self.kind == "url":  # no files
            record["settings"] |= {"task_ontology": None}
        record["settings"]["initialize_from_vanilla"] = self.kind == "path"  # else from --checkpoint
        settings = json.loads((run / "run.json").read_text())["settings"] | record["settings"]
        settings["unknown"] = "Secret-unknown"
        change(run / "run.json", **record | {"settings": settings}, hub={self.value("hub"): "commit"})
        for name, command in MADE_BY.items():
            made = {self.value("made"): {}}
            change(run / f"best/{name}.json", **described(command, self.value), made_of=made)
        change(run / "cost.json", start_unknown=self.text("unknown"), start=self.value("start"))
        change(run / "best/config.json", given_routes=f"clusters:8 of {self.value('routes')}")
        for name in ("tokenizer_config", "generation_config"):
            change(run / f"best/{name}.json", name_or_path=self.value(name), note=self.text(name))
        row = dict(task_prefix="colour", sample="colour_12_13", metric="ACC", performance=1, n=3, constant=1)
        row |= dict(route=self.text("route"), vector_seen=self.value("seen"))
        pd.DataFrame([row]).to_csv(run / "best/eval-test-performance.csv")
        clusters = pd.DataFrame([{"source": self.text("clusters"), "n": 1}])
        clusters.to_csv(run / "clusters.csv", index=False)


@pytest.mark.parametrize("kind", ["path", "url"])
def test_no_secret_in_a_setting_a_record_or_a_text_is_shared(kind, copy, world, tmp_path):
    secrets = Secrets(kind, tmp_path)
    secrets.into_run(copy)
    if kind == "path":
        secrets.into_gym(world.gym)
    folder = tmp_path / "shared"
    assert push.main([str(copy), "my-group/moe", "--dry_run", str(folder)]) == 0
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    expected = {"run.json", "cost.json", "clusters.csv", "best/eval-test-performance.csv", "README.md"}
    expected |= {f"{name}.json" for name in (*MADE_BY, "config", "tokenizer_config", "generation_config")}
    expected |= {"skills.csv", "ontology.json"} if kind == "path" else set()
    assert expected <= files.keys()
    pattern = rb"Secret-\w+|" + re.escape(str(tmp_path)).encode()
    found = {n: set(re.findall(pattern, n.encode() + path.read_bytes())) for n, path in files.items()}
    assert {name: places for name, places in found.items() if places} == {}
    sent = json.loads(files["run.json"].read_text())
    assert sent["settings"]["taskvecs"] == ("taskvecs" if kind == "path" else "")
    assert sent["settings"]["seed"] == 42
    assert "unknown" not in sent["settings"]
    card = files["README.md"].read_text()
    assert sent["command"] in card
    assert "routing-moe train" in card


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/my runs/moe/", "moe"),
        ("clusters of /home/me/secret proj/run 1/vec", "vec"),
        ("see /secret", "secret"),
        ("C:\\Users\\me\\moe", "moe"),
        ("~/moe", "moe"),
        ("data/../../me/gym here", "gym here"),
        ("hf_tok@host/x", "x"),
        ("a, https://me:secret@host/x?token=secret", ""),
        ({"a": ["/home/me/x", 3, None], "/home/me/y": 1, "command": "moe"}, {"a": ["x", 3, None], "y": 1}),
        *(
            (text, text)
            for text in ("data/gym", "owner/name@v1", "n/a", "yes/no questions", "clusters:8", "")
        ),
        *(({key: "</s>, a /b/ c"}, {key: "</s>, a /b/ c"}) for key in ("eos_token", "chat_template")),
    ],
)
def test_of_a_path_the_last_part_is_shared_and_of_a_url_nothing(text, shown):
    assert without_places(text) == shown


def test_runs_before_of_the_same_name_stay_distinct():
    before = {"/home/me/moe/seed1": [100, 1e9], "/home/me/dense/seed1": [200, 5e9]}
    shared = without_places({"runs_before": before})["runs_before"]
    assert list(shared.values()) == list(before.values())
    assert all(re.fullmatch(r"seed1-[0-9a-f]{8}", name) for name in shared)
    assert without_places({"runs_before": shared}) == {"runs_before": shared}  # shared again


def test_the_command_on_the_card_gives_the_settings_that_are_shared(copy, tmp_path):
    assert push.main([str(copy), "my-group/moe", "--dry_run", str(tmp_path / "shared")]) == 0
    sent = json.loads((tmp_path / "shared/run.json").read_text())
    given = parse(TrainSettings, shlex.split(sent["command"])[2:])
    remade = json.loads(json.dumps(TrainSettings(**given).to_dict()))
    assert {name: value for name, value in remade.items() if value != sent["settings"][name]} == {}


def test_a_file_that_a_run_names_is_not_shared_as_something_else(copy, tmp_path):
    (tmp_path / "token").write_text("hf_secret")
    settings = json.loads((copy / "run.json").read_text())["settings"]
    change(copy / "run.json", settings=settings | {"task_ontology": str(tmp_path / "token")})
    assert push.main([str(copy), "my-group/moe", "--dry_run", str(tmp_path / "shared")]) == 2
    assert not (tmp_path / "shared").exists()


@pytest.mark.parametrize("link", ["cost.json", "best"])
def test_a_link_to_a_file_outside_the_run_is_not_followed(link, copy, tmp_path, capsys):
    (copy / link).rename(tmp_path / "outside")
    (copy / link).symlink_to(tmp_path / "outside")
    assert push.main([str(copy), "my-group/moe", "--dry_run", str(tmp_path / "shared")]) == 2
    assert f"is a link to {tmp_path / 'outside'}" in capsys.readouterr().err
    assert not (tmp_path / "shared").exists()
