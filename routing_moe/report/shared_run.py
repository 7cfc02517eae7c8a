"""A run as a folder to share, which has no private path, no secret, no data of tasks, and no pickle.

    model.safetensors, config.json, tokenizer, task_vecs.npy, ...       the checkpoint
    run.json, cost.json, losses.csv, curves.csv, clusters.csv           settings, costs, curves
    best/eval-*.csv, <step>-steps/route.npy, route_tasks.txt            its scores and routes
    ontology.json, skills.csv                                           what the gym says of its tasks
    README.md, routes.png                                               the model card

Only files of these names below the run's own folder are copied. A run.json that came from elsewhere may name
any file of this machine: one that it names is only read as what it should be, and written again.
"""

import json
import re
import shlex
import shutil
from pathlib import Path

import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.building.report import read_report
from dataloader.building.task_folder import sources_of
from dataloader.errors import InputError, problem_context
from dataloader.jsonfile import load_json_object
from dataloader.labels import read_task_table
from dataloader.ontology import ONTOLOGY_FILE, Ontology
from routing_moe.analysis.features import OWN_FEATURES
from routing_moe.analysis.runs import ontology_of
from routing_moe.analysis.saved_routes import best_step, steps_with_routes
from routing_moe.checkpoints.assemble import ASSEMBLED_FILE, AVERAGED_FILE
from routing_moe.checkpoints.find import SavedMixture
from routing_moe.checkpoints.folder import PROGRESS_FILE, load_progress
from routing_moe.checkpoints.merge_stages import MERGE_FILE
from routing_moe.checkpoints.tokenizer_files import OTHER_FILES, TOKENIZER_FILES
from routing_moe.io.csv_files import read_table
from routing_moe.io.hub import is_hub_name
from routing_moe.io.run_folder import CLUSTERS_FILE, CURVES_FILE, load_run_settings
from routing_moe.model.task_vectors import NAMES_FILE, VECTORS_FILE
from routing_moe.results.run_cost import COST_FILE, read_cost
from routing_moe.task_choice.texts import TEXTS_FILE

PICTURE = "routes.png"
TOKENS = (*TOKENIZER_FILES, "added_tokens.json")  # JSON with tokens, which may look like paths
# Patterns of files of a checkpoint, of its run, and of all that is shared beside the card.
OF_CHECKPOINT = (
    "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json",
    *TOKENS, *OTHER_FILES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", NAMES_FILE,
    VECTORS_FILE, TEXTS_FILE, PROGRESS_FILE, MERGE_FILE, ASSEMBLED_FILE, AVERAGED_FILE,
)  # fmt: skip
OF_RUN = ("losses.csv", CURVES_FILE, CLUSTERS_FILE)
WRITTEN = ("run.json", COST_FILE, ONTOLOGY_FILE, OWN_FEATURES, PICTURE, "best/*", "*-steps/*")
SHARED = (*OF_CHECKPOINT, *OF_RUN, *WRITTEN)
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


def write_shared_run(mixture: SavedMixture, folder: Path) -> dict[str, tuple[str, str]]:
    """Writes all but the card and its picture into an empty folder; returns `data_sources`.

    Raises InputError for a file that is damaged or not the run's own.
    """
    checkpoint, config = mixture.checkpoint, mixture.config
    if not any(checkpoint.glob("model*.safetensors")):
        raise InputError(
            f"{checkpoint} has no model.safetensors; save a run of the published code with "
            "RoutingBartForConditionalGeneration.from_upstream(RUN).save_pretrained(FOLDER), and push FOLDER"
        )
    if len(config.task_names) == 1 and config.task_names != config.trained_tasks:
        raise InputError(
            f"{checkpoint} is fine-tuned on {config.task_names[0]}, and a model card describes a run of many "
            f"tasks; `hf upload OWNER/NAME {checkpoint}` uploads it without a card"
        )
    run = next((place for place in (checkpoint, checkpoint.parent) if (place / "run.json").is_file()), None)
    files = files_to_share(checkpoint, run)
    if config.base_model and (Path(config.base_model).exists() or not is_hub_name(config.base_model)):
        model = mixture.load()  # with the weights of the BART on this machine that the experts refer to
        model.config.base_model = model.config.base_sha256 = None
        model.save_pretrained(folder)
        files |= {file.name: file for file in folder.iterdir() if file.name != "generation_config.json"}
    for name, file in files.items():
        _copy(file, folder / name)
    if run is None:
        return {}
    trained = load_run_settings(run)
    gym = Path(str(trained["train_dir"])) if trained.get("train_dir") else run
    described = load_json_object(run / "run.json", "the description of a run")
    described["settings"] = trained | {"custom_tasks_splits": None, "task_ontology": None}
    _write(folder / "run.json", described)
    if cost := read_cost(run):
        _write(folder / COST_FILE, cost)
    with problem_context(f"{run / 'run.json'}, files of its data: "):
        ontology = ontology_of(run, trained, None)
        if ontology.tree != Ontology.load().tree:
            _write(folder / ONTOLOGY_FILE, ontology.tree)
        skills = [place / OWN_FEATURES for place in (run, gym) if (place / OWN_FEATURES).is_file()]
        if skills:
            header, rows = read_task_table(skills[0])
            _write(folder / OWN_FEATURES, pd.DataFrame([header, *rows.values()]))
    return data_sources(gym)


def files_to_share(checkpoint: Path, run: Path | None) -> dict[str, Path]:
    """Returns {name in the shared folder: file} of a checkpoint and its run.

    Raises InputError for links to other places: what they lead to need not be of the run.
    """
    found = {file.name: file for pattern in OF_CHECKPOINT for file in checkpoint.glob(pattern)}
    if run:
        found |= {name: run / name for name in OF_RUN}
        scores = (checkpoint if run != checkpoint else run / "best").glob("eval-*.csv")
        found |= {f"best/{file.name}": file for file in scores}
        steps, step = steps_with_routes(run), load_progress(checkpoint).get("step")
        step = best_step(run, steps) if step is None and steps else step
        if step in steps:
            routes = (run / f"{step}-steps").glob("route*")
            found |= {f"{step}-steps/{file.name}": file for file in routes if file.suffix in (".npy", ".txt")}
    files = {name: file for name, file in sorted(found.items()) if file.is_file()}
    folder = (run or checkpoint).resolve()
    if folder.parent.name == "snapshots":  # of the hub's cache, whose files are links into the repository
        folder = folder.parents[1]
    read = [*files.values(), *((run / "run.json", run / COST_FILE) if run else ())]
    if outside := [file for file in read if not file.resolve().is_relative_to(folder)]:
        raise InputError(
            f"{file} is a link to {file.resolve()}, outside of {folder}; put it there" for file in outside
        )
    return files


def data_sources(gym: Path) -> dict[str, tuple[str, str]]:
    """Returns {task: (source, terms of use)} of the report of a built gym; {} of another folder.

    Neither is of a task whose folder names another source.
    """
    return {
        task: (line["source"], without_places(line["terms"]))
        for task, line in read_report(gym).items()
        if all(source in line["source"] for source in sources_of(gym / task).values())
    }


# ---- texts without private places


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
            without_places(key): _command(text) if key == "command" else without_places(text)
            for key, text in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_places(text) for text in value]
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
