"""A run as a folder to share: its checkpoint, what the commands that explain runs read, and a model card.

    model.safetensors, config.json, tokenizer, task_vecs.npy, ...       the checkpoint
    run.json, cost.json, losses.csv, curves.csv, reassignments.csv      settings, costs, curves
    clusters.csv                                                        sizes and silhouette of clusters
    best/eval-*.csv                                                     its scores
    <step>-steps/route.npy, route_tasks.txt                             its routes
    ontology.json, skills.csv, split.json                               what the gym says of its tasks
    README.md, routes.png                                               the model card

Files are those of a run folder, except that the checkpoint is the folder itself, as the hub expects it.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.building.report import REPORT
from dataloader.building.task_folder import sources_of
from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object
from dataloader.ontology import ONTOLOGY_FILE, Ontology
from dataloader.recipes import RECIPES
from routing_moe.analysis.features import OWN_FEATURES
from routing_moe.analysis.runs import ontology_of
from routing_moe.analysis.saved_routes import Routes, best_step, encoder_part, load_routes, steps_with_routes
from routing_moe.checkpoints.assemble import ASSEMBLED_FILE
from routing_moe.checkpoints.average import AVERAGED_FILE
from routing_moe.checkpoints.find import SavedMixture
from routing_moe.checkpoints.folder import PROGRESS_FILE, load_progress
from routing_moe.checkpoints.merge_stages import MERGE_FILE
from routing_moe.checkpoints.tokenizer_files import OTHER_FILES, TOKENIZER_FILES
from routing_moe.config.push import PushSettings
from routing_moe.io.hub import is_hub_name
from routing_moe.io.run_folder import CLUSTERS_FILE, CURVES_FILE, REASSIGNMENTS_FILE
from routing_moe.model.task_vectors import NAMES_FILE, VECTORS_FILE
from routing_moe.plots.route_map import plot_routes
from routing_moe.report.data import scores_of
from routing_moe.results.run_cost import COST_FILE, read_cost
from routing_moe.task_choice.texts import TEXTS_FILE

PICTURE, SPLIT_FILE = "routes.png", "split.json"
# Patterns of the files of a checkpoint, and of what is shared in addition to it and the card.
OF_TOKENIZER = (
    *TOKENIZER_FILES, *OTHER_FILES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
OF_CHECKPOINT = (
    "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json",
    *OF_TOKENIZER, NAMES_FILE, VECTORS_FILE, TEXTS_FILE, PROGRESS_FILE, MERGE_FILE, ASSEMBLED_FILE,
    AVERAGED_FILE,
)  # fmt: skip
BESIDE = (
    "run.json", COST_FILE, "losses.csv", CURVES_FILE, CLUSTERS_FILE, REASSIGNMENTS_FILE, ONTOLOGY_FILE,
    SPLIT_FILE, OWN_FEATURES, PICTURE, "best/*", "*-steps/*",
)  # fmt: skip
# In a text: an absolute path of two parts (not "and /or"), or one with "~" or "..".
PART = r"[^\s\"',;()/=:]+"
PLACE = re.compile(rf"(?:file:/+{PART}|(?<![\w/.~<-])(?:~|/{PART}|(?:{PART}/)*\.\.))(?:/{PART})+/?")


@dataclass(frozen=True, eq=False)
class SharedRun:
    """What is known of a run.

    run: its folder; None for a checkpoint without one. described: of run.json, with `measured`; cost: of
    cost.json; empty if missing. scores: {(part, section): table}. no_routes: why there are none.
    """

    mixture: SavedMixture
    run: Path | None
    described: dict = field(default_factory=dict)
    cost: dict = field(default_factory=dict)
    scores: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict)
    routes: Routes | None = None
    no_routes: str = ""
    ontology: Ontology | None = None
    gym: Path | None = None

    @property
    def settings(self) -> dict:
        return self.described.get("settings") or {}

    @property
    def tasks(self) -> list[str]:
        """The tasks that the model was trained on, and those that it was scored on."""
        scored = [task for table in self.scores.values() for task in table["task_prefix"]]
        return sorted({*self.mixture.config.trained_tasks, *scored})


def read_shared_run(mixture: SavedMixture) -> SharedRun:
    """Returns what is known of the run of a checkpoint. Raises InputError if files of it are damaged."""
    checkpoint = mixture.checkpoint
    if mixture.is_published:
        raise InputError(
            f"{checkpoint.parent} is a run of the published code, whose weights are pickled; save it with "
            "RoutingBartForConditionalGeneration.from_upstream(RUN).save_pretrained(FOLDER), and push FOLDER"
        )
    if not any(checkpoint.glob("model*.safetensors")):
        raise InputError(f"{checkpoint} has no model.safetensors")
    names = mixture.config.task_names
    if len(names) == 1 and names != mixture.config.trained_tasks:
        raise InputError(
            f"{checkpoint} is fine-tuned on {names[0]}, and a model card describes a run of many tasks; "
            f"`hf upload OWNER/NAME {checkpoint}` uploads it without a card, for answer --checkpoint "
            f"OWNER/NAME --task {names[0]}"
        )
    folders = (checkpoint, checkpoint.parent)
    run = next((folder for folder in folders if (folder / "run.json").is_file()), None)
    if run is None:
        return _with_routes(SharedRun(mixture, run, ontology=Ontology.load()), checkpoint, "best")
    described = load_json_object(run / "run.json", "the description of a run")
    trained = described.get("settings") or {}
    gym = Path(trained.get("train_dir") or "")
    shared = SharedRun(
        mixture,
        run,
        described | measured(run / "log.txt"),
        read_cost(run) or {},
        scores_of(run, _checkpoint_name(run, checkpoint)),
        ontology=ontology_of(run, trained, None),
        gym=gym if trained.get("train_dir") and gym.is_dir() else None,
    )
    steps = steps_with_routes(run)
    step = load_progress(checkpoint).get("step")
    if step is None and steps:
        step = best_step(run, steps)
    return _with_routes(shared, *((run, step) if step in steps else (checkpoint, "best")))


def _checkpoint_name(run: Path, checkpoint: Path) -> str:
    return "best" if run == checkpoint else checkpoint.name


def measured(log: Path) -> dict:
    """Returns seconds of training and the device as a run's log has them: run.json keeps them, shared."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    seconds = re.findall(r" trained \d+ steps in ([\d.]+) s", text)
    devices = re.findall(r"(\d+) process\(es\) on (\w+)", text)
    training = {"seconds": round(sum(map(float, seconds)), 1)} if seconds else {}
    return training | ({"device": "{1}, {0} process(es)".format(*devices[-1])} if devices else {})


def _with_routes(shared: SharedRun, folder: Path, step: int | str) -> SharedRun:
    config = shared.mixture.config
    if config.num_experts == 1:
        why = "it has one expert, a plain BART"
    elif not config.routes_by_task:
        why = f"they are {config.route_source}, not of a task"
    else:
        try:
            routes = load_routes(folder, step)
        except InputError as error:
            why = str(error)
        else:
            return replace(shared, routes=routes.of(shared.ontology.order(routes.tasks)))
    return replace(shared, no_routes=without_places(why))


# ---- writing


def write_shared_run(shared: SharedRun, settings: PushSettings, folder: Path) -> None:
    """Writes the files into an empty folder, without pickles, predictions, absolute paths and the card."""
    checkpoint, complete = shared.mixture.checkpoint, set()
    if refers_to_a_place_here(shared.mixture.config):
        model = shared.mixture.load()
        model.config.base_model = model.config.base_sha256 = None
        model.save_pretrained(folder)
        complete = {file.name for file in folder.iterdir()} - {"generation_config.json"}
    for file in sorted(checkpoint.iterdir()):
        if file.is_file() and matches(file.name, OF_CHECKPOINT) and file.name not in complete:
            _copy(file, folder / file.name)
    if shared.run:
        _copy_run(shared, folder)
    for name, file in _of_gym(shared).items():
        if file.is_file():
            _copy(file, folder / name)
    if shared.routes:
        layers, n = shared.routes.layers, encoder_part(shared.routes.layers)
        plot_routes(
            *(shared.routes.values_NLE, shared.routes.tasks, shared.ontology, folder / PICTURE, n),
            title=f"Routes of {settings.name}",
            layers=layers,
        )


def refers_to_a_place_here(config) -> bool:
    """Returns whether experts refer to a BART that is not on the hub, so that its weights must be shared."""
    return config.base_model is not None and (
        Path(config.base_model).exists() or not is_hub_name(config.base_model)
    )


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _copy_run(shared: SharedRun, folder: Path) -> None:
    run, name = shared.run, _checkpoint_name(shared.run, shared.mixture.checkpoint)
    named = {"custom_tasks_splits": None, "task_ontology": None}  # files of the folder, see `_of_gym`
    described = shared.described | {"settings": shared.settings | named, "command": command_of(shared)}
    write_text(folder / "run.json", json.dumps(without_places(described), indent=1))
    if shared.cost:  # of the steps taken, which last/ tells, which is not shared
        write_text(folder / COST_FILE, json.dumps(without_places(shared.cost), indent=1))
    files = [run / name for name in ("losses.csv", CURVES_FILE, CLUSTERS_FILE, REASSIGNMENTS_FILE)]
    if shared.routes and shared.routes.step is not None:
        files += sorted((run / f"{shared.routes.step}-steps").glob("route*"))
    for file in files:
        if file.is_file() and file.suffix != ".png":
            _copy(file, folder / file.relative_to(run))
    for file in sorted((run / name).glob("eval-*.csv")):
        _copy(file, folder / "best" / file.name)


def _of_gym(shared: SharedRun) -> dict[str, Path]:
    """Returns {name in the shared folder: file} of what the gym says of its tasks."""
    flags = {ONTOLOGY_FILE: "task_ontology", SPLIT_FILE: "custom_tasks_splits"}
    named = {name: Path(shared.settings[flag]) for name, flag in flags.items() if shared.settings.get(flag)}
    gym = shared.gym or shared.run  # which has them if it was shared before
    return {name: gym / name for name in (*flags, OWN_FEATURES) if gym} | named


def _copy(file: Path, target: Path) -> None:
    """Copies a file. In texts, absolute paths become the names of their files."""
    target.parent.mkdir(exist_ok=True)
    # Tokens such as </s> may look like paths.
    if file.suffix == ".json" and not matches(file.name, OF_TOKENIZER):
        content = json.loads(file.read_text(encoding="utf-8"))
        if (cleaned := without_places(content)) != content:  # else the file keeps its checksum
            return write_text(target, json.dumps(cleaned, indent=1, ensure_ascii=False))
    elif file.suffix == ".csv":
        return write_text(target, PLACE.sub(_name_of, file.read_text(encoding="utf-8")))
    shutil.copyfile(file, target)


def without_places(value):
    """Returns a JSON value in whose texts each absolute path is replaced by the name of its file."""
    if isinstance(value, dict):
        return {key: without_places(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_places(one) for one in value]
    if not isinstance(value, str):
        return value
    if Path(value).is_absolute() or value.startswith(("~", "../")):
        return Path(value).name
    return PLACE.sub(_name_of, value)


def _name_of(match: re.Match) -> str:
    return Path(match[0]).name


def command_of(shared: SharedRun) -> str:
    """Returns the command of the run's run.json without absolute paths."""
    return shlex.join(without_places(shlex.split(shared.described.get("command") or "")))


# ---- the data


def data_sources(shared: SharedRun) -> dict[str, tuple[str, str]]:
    """Returns {task: (source, terms of use)}, as far as known: of the gym's report, or of our recipes.

    Neither is of a task whose folder names another source. Without a gym, the terms are those of the recipe
    of that name, which they say, and the source is "".
    """
    known, sources = {}, {}
    for task in shared.tasks:
        sources[task] = set(sources_of(shared.gym / task).values()) if shared.gym else set()
        if recipe := RECIPES.get(task):
            by_name = f"{recipe.terms} (by the task's name: its source is not recorded)"
            source = " or ".join(map(str, recipe.sources)) if sources[task] else ""
            known[task] = (source, recipe.terms if source or not recipe.terms else by_name)
    report = shared.gym / REPORT if shared.gym else None
    if report and report.is_file():
        with report.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                known[row.get("task", "")] = (row.get("source") or "", row.get("terms") or "")
    return {
        task: known[task]
        for task in shared.tasks
        if task in known and all(source in known[task][0] for source in sources[task])
    }
