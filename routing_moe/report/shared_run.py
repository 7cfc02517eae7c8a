"""A run as a folder to share: its checkpoint, what the commands that explain runs read, and a model card.

    model.safetensors, config.json, tokenizer, task_vecs.npy, ...       the checkpoint
    run.json, cost.json, losses.csv, curves.csv                         settings, costs, curves
    clusters.csv                                                        sizes and silhouette of clusters
    best/eval-*.csv                                                     its scores
    <step>-steps/route.npy, route_tasks.txt                             its routes
    ontology.json, skills.csv, split.json                               what the gym says of its tasks
    README.md, routes.png                                               the model card

Files are those of a run folder, except that the checkpoint is the folder itself, as the hub expects it.
Only files below the run's own folder are copied. A run.json that came from elsewhere may name any file of
this machine: a file that it names is only read as what it should be, and written again.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.building.report import read_report
from dataloader.building.task_folder import sources_of
from dataloader.errors import InputError, problem_context
from dataloader.jsonfile import load_json_object
from dataloader.labels import read_task_table
from dataloader.ontology import ONTOLOGY_FILE, Ontology
from dataloader.recipes import RECIPES
from dataloader.task_splits import SECTIONS, load_split
from routing_moe.analysis.features import OWN_FEATURES
from routing_moe.analysis.runs import ontology_of
from routing_moe.analysis.saved_routes import Routes, best_step, encoder_part, load_routes, steps_with_routes
from routing_moe.checkpoints.assemble import ASSEMBLED_FILE, AVERAGED_FILE
from routing_moe.checkpoints.find import SavedMixture
from routing_moe.checkpoints.folder import PROGRESS_FILE, load_progress
from routing_moe.checkpoints.merge_stages import MERGE_FILE
from routing_moe.checkpoints.tokenizer_files import OTHER_FILES, TOKENIZER_FILES
from routing_moe.config.push import PushSettings
from routing_moe.io.csv_files import read_table
from routing_moe.io.hub import is_hub_name, repository_folder
from routing_moe.io.run_folder import CLUSTERS_FILE, CURVES_FILE, load_run_settings
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
    "run.json", COST_FILE, "losses.csv", CURVES_FILE, CLUSTERS_FILE, ONTOLOGY_FILE, SPLIT_FILE, OWN_FEATURES,
    PICTURE, "best/*", "*-steps/*",
)  # fmt: skip
TOKENS = (*TOKENIZER_FILES, "added_tokens.json")  # JSON with tokens, which may look like paths
# Of a URL: user and password before the host, and the query.
SECRETS = re.compile(r"(?<=://)(?:[^/\s]*@)?([^?#\s]*)\S*")
# In a text: from the start of a path to the last slash of the text. Where the path ends cannot be known,
# because names may have spaces; what follows the last slash is in no folder.
PLACES = re.compile(
    r"""(?: file:/.*/
        |   (?<![\w/.])(?!(?<=:)//[^/\s])/(?!\w*>)\S.*/    # absolute; not a URL, "and /or", </s>
        |   (?<!\w)~[\w.-]*/(?:.*/)?                      # in a home
        |   (?:(?<![^\s"',;()=:])(?:[^\s"',;()/=:]+/)+)?\.\./(?:.*/)?    # above this folder
        )(?=.)""",
    re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True, eq=False)
class SharedRun:
    """What is known of a run.

    run: its folder; None for a checkpoint without one. described: of run.json, with `measured`; cost: of
    cost.json; empty if missing. scores: {(part, section): table}. no_routes: why there are none. All texts of
    these are `without_places`. of_gym: see `_of_gym`. gym: the folder, if it is here.
    """

    mixture: SavedMixture
    run: Path | None
    described: dict = field(default_factory=dict)
    cost: dict = field(default_factory=dict)
    scores: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict)
    routes: Routes | None = None
    no_routes: str = ""
    ontology: Ontology | None = None
    of_gym: dict[str, dict | pd.DataFrame] = field(default_factory=dict)
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
    trained = load_run_settings(run)
    gym = Path(str(trained.get("train_dir") or ""))
    gym = gym if trained.get("train_dir") and gym.is_dir() else None
    with problem_context(f"{run / 'run.json'}, files of its data: "):
        ontology = ontology_of(run, trained, None)
        of_gym = _of_gym(run, gym, trained, ontology)
    named = {"custom_tasks_splits": None, "task_ontology": None}  # files of the shared folder
    described = load_json_object(run / "run.json", "the description of a run")
    described |= {"settings": trained | named} | measured(run / "log.txt")
    scores = scores_of(run, _checkpoint_name(run, checkpoint))
    shared = SharedRun(
        mixture,
        run,
        without_places(described),
        without_places(read_cost(run) or {}),
        {key: table.map(without_places) for key, table in scores.items()},
        ontology=ontology,
        of_gym=of_gym,
        gym=gym,
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
    """Writes the files into an empty folder, without pickles, predictions, absolute paths and the card.

    Raises InputError for a file that is damaged or not the run's own.
    """
    files = _own_files(shared)
    if refers_to_a_place_here(shared.mixture.config):
        model = shared.mixture.load()
        model.config.base_model = model.config.base_sha256 = None
        model.save_pretrained(folder)
        files |= {file.name: file for file in folder.iterdir() if file.name != "generation_config.json"}
    for name, file in files.items():
        _copy(file, folder / name)
    known = {"run.json": shared.described, COST_FILE: shared.cost}  # of the steps taken, which last/ tells
    for name, content in (known | shared.of_gym).items():
        if len(content):
            _write(folder / name, content)
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


def _own_files(shared: SharedRun) -> dict[str, Path]:
    """Returns {name in the shared folder: file} of the checkpoint and its run.

    Raises InputError for links to other places: what they lead to need not be of the run.
    """
    checkpoint, run = shared.mixture.checkpoint, shared.run
    files = {file.name: file for file in sorted(checkpoint.iterdir()) if matches(file.name, OF_CHECKPOINT)}
    if run:
        patterns = ["run.json", COST_FILE, "losses.csv", CURVES_FILE, CLUSTERS_FILE]
        if shared.routes and shared.routes.step is not None:
            patterns += [f"{shared.routes.step}-steps/{name}" for name in ("route*.npy", "route_tasks.txt")]
        of_run = [file for pattern in patterns for file in sorted(run.glob(pattern))]
        files |= {file.relative_to(run).as_posix(): file for file in of_run}
        scores = (run / _checkpoint_name(run, checkpoint)).glob("eval-*.csv")
        files |= {f"best/{file.name}": file for file in sorted(scores)}
    files = {name: file for name, file in files.items() if file.is_file()}
    folder = repository_folder(run or checkpoint)
    outside = [file for file in files.values() if not file.resolve().is_relative_to(folder)]
    if outside:
        raise InputError(
            f"{file} is a link to {file.resolve()}, outside of {folder}; put it there" for file in outside
        )
    return files


def _of_gym(run: Path, gym: Path | None, trained: dict, ontology: Ontology) -> dict[str, dict | pd.DataFrame]:
    """Returns {name in the shared folder: content} of what the gym says of its tasks, as far as it is here.

    A run that was shared before has these files itself. Raises InputError for files of another kind.
    """
    found = {}
    if ontology.tree != Ontology.load().tree:
        found[ONTOLOGY_FILE] = ontology.tree
    split, skills = (
        next((file for place in (run, gym) if place and (file := place / name).is_file()), None)
        for name in (SPLIT_FILE, OWN_FEATURES)
    )
    if named := trained.get("custom_tasks_splits"):
        split = Path(str(named))
    if split and split.is_file():
        tasks = load_split(split)
        found[SPLIT_FILE] = {name: tasks.section(name) for name in SECTIONS}
        found[SPLIT_FILE] |= {"all": tasks.listed} if tasks.listed else {}
    if skills:
        header, rows = read_task_table(skills)
        found[OWN_FEATURES] = pd.DataFrame([header, *rows.values()])
    return found


def _copy(file: Path, target: Path) -> None:
    """Copies a file; one of texts is written again if it has places. Raises InputError if it is damaged."""
    if file.suffix == ".csv":
        return _write(target, read_table(file, header=None, dtype=str, keep_default_na=False))
    if file.suffix == ".json" and file.name not in TOKENS:
        content = load_json_object(file, "a file of a run")
        if without_places(content) != content:  # else the file keeps its checksum
            return _write(target, content)
    if file != target:
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)


def _write(target: Path, content: dict | pd.DataFrame) -> None:
    """Writes JSON, or a table whose header is its first row, `without_places`."""
    target.parent.mkdir(exist_ok=True)
    if isinstance(content, dict):
        text = json.dumps(without_places(content), indent=1)
    else:
        text = content.map(without_places).to_csv(index=False, header=False)
    write_text(target, text)


def without_places(value):
    """Returns a JSON value whose texts have no absolute path, but names of files, and no secret of a URL.

    The value of a key "command" is a line of a shell, whose words are texts of their own.
    """
    if isinstance(value, dict):
        return {
            without_places(key): _command(one) if key == "command" else without_places(one)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_places(one) for one in value]
    if not isinstance(value, str):
        return value
    value = SECRETS.sub(r"\1", value)
    if Path(value).is_absolute() or value.startswith(("~/", "../")):
        return Path(value).name
    return PLACES.sub("", value)


def _command(line):
    try:
        return shlex.join(map(without_places, shlex.split(line))) if isinstance(line, str) else None
    except ValueError:  # an open quote
        return without_places(line)


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
    for task, line in read_report(shared.gym).items() if shared.gym else ():
        known[task] = (line["source"], without_places(line["terms"]))
    return {
        task: known[task]
        for task in shared.tasks
        if task in known and all(source in known[task][0] for source in sources[task])
    }
