"""A run as a folder to share: the files and settings of a list, and a model card.

Only regular files of known names in the run's own folder are sent, and only settings of `routing-moe train`;
the command is made of these. Ontology and skills of the gym that run.json names are read as such and written
again: a run.json from elsewhere may name any file. Of a path in a text only the last part is sent.
"""

import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
from huggingface_hub import ModelCard, ModelCardData

from dataloader.atomic_files import write_text
from dataloader.building.report import read_report
from dataloader.building.task_folder import sources_of
from dataloader.errors import InputError, counted, problem_context
from dataloader.jsonfile import load_json_object
from dataloader.ontology import ONTOLOGY_FILE
from routing_moe.analysis.features import OWN_FEATURES, read_task_table
from routing_moe.analysis.runs import ontology_of
from routing_moe.checkpoints.assemble import AVERAGED_FILE
from routing_moe.checkpoints.find import SavedMixture, weight_files
from routing_moe.checkpoints.folder import PROGRESS_FILE, load_progress
from routing_moe.checkpoints.merge_stages import MERGE_FILE
from routing_moe.config.assemble import ASSEMBLED_FILE
from routing_moe.config.flags import flags_of
from routing_moe.config.measures import BASELINES
from routing_moe.config.train import TrainSettings
from routing_moe.io.csv_files import read_table
from routing_moe.io.hub import OTHER_TOKENIZERS, TOKENIZER_FILES, is_hub_name
from routing_moe.io.run_folder import CLUSTERS_FILE, CURVES_FILE, load_run_settings
from routing_moe.model.configuration import Mixture
from routing_moe.model.task_vectors import NAMES_FILE, VECTORS_FILE
from routing_moe.results.markdown import markdown_table
from routing_moe.results.run_cost import COST_FILE
from routing_moe.results.scores import ScoresFile, read_scores, with_values
from routing_moe.task_choice.texts import TEXTS_FILE

TOKENS = (*TOKENIZER_FILES, "added_tokens.json")  # JSON with tokens, which may look like paths
AS_THEY_ARE = re.compile(  # keys of tokenizer_config.json, and the texts around inputs
    r"input_templates|(bos|eos|unk|sep|pad|cls|mask)_token|(additional|extra)_special_tokens|added_tokens_decoder|chat_template"
)
# All that is sent: files of the checkpoint and of the run in the folder itself, scores, routes of a step.
CHECKPOINT_FILES = (
    "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json",
    *TOKENS, *OTHER_TOKENIZERS, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "*.jinja",
    NAMES_FILE, VECTORS_FILE, TEXTS_FILE, PROGRESS_FILE, MERGE_FILE, ASSEMBLED_FILE, AVERAGED_FILE,
)  # fmt: skip
RUN_FILES = ("run.json", COST_FILE, "losses.csv", CURVES_FILE, CLUSTERS_FILE, ONTOLOGY_FILE, OWN_FEATURES)
ROUTE_FILES = ("route.npy", "route_t1.npy", "route_tasks.txt")
SHARED = (*CHECKPOINT_FILES, *RUN_FILES, "best/*", "*-steps/*")
# A text that is no path: without slashes, or with one between words, as in a hub name; a URL without secrets.
NO_PATH = re.compile(r"[^/\\]*|\w([\w. -]*\w)?( / |/)\w[\w. @-]*|https://[\w.-]+(/[\w.-]+)*/?")
CARD = """\
A {kind} with {layers} layers and {experts}{routes}, trained on {tasks}, by the package `routing-moe`.

```python
from routing_moe import Routed
model = Routed.load("{name}")
task = model.task("my_task", inputs=texts)
model.answer(task, texts)
```

Scores on test files; n: examples. Without a model: always the most frequent training answer (constant), a
random option (chance), the input (copy). Other texts are untested, and answers can be wrong.

{scores}

Weights: {license}. Terms of use of the data: {terms}. Trained at commit {git} by

```bash
{command}
```
"""


def write_shared_run(mixture: SavedMixture, name: str, license: str | None, folder: Path) -> None:
    """Writes all files and the card into an empty folder. name: owner/name on the hub."""
    checkpoint, config = mixture.place, mixture.config
    if not weight_files(checkpoint):
        raise InputError(f"{checkpoint} has no model.safetensors; load it, save_pretrained, and push that")
    if len(config.task_names) == 1 and config.task_names != config.trained_tasks:
        raise InputError(f"{checkpoint} is fine-tuned; `hf upload {name} {checkpoint}` needs no card")
    run = next((p for p in (checkpoint, checkpoint.parent) if (p / "run.json").is_file()), checkpoint)
    files, terms = files_to_share(checkpoint, run), "not recorded"
    if config.base_model and (Path(config.base_model).exists() or not is_hub_name(config.base_model)):
        model = mixture.load()  # with the weights of the model on this machine that the experts refer to
        model.config.base_model = model.config.base_sha256 = None
        model.save_pretrained(folder)
        files |= {file.name: file for file in folder.iterdir()}
    for place, file in files.items():
        if file.suffix == ".csv":
            write(folder / place, read_table(file, header=None, dtype=str, keep_default_na=False))
        elif file.suffix == ".json" and file.name not in TOKENS:
            write(folder / place, load_json_object(file, "a file of a run"))
        elif file != folder / place:
            (folder / place).parent.mkdir(exist_ok=True)
            shutil.copyfile(file, folder / place)
    if settings := load_run_settings(run):
        sent = {name: without_places(settings[name]) for name in flags_of(TrainSettings) if name in settings}
        sent |= {"custom_tasks_splits": None, "task_ontology": None}
        described = load_json_object(run / "run.json", "the description of a run") | {"settings": sent}
        write(folder / "run.json", described, command_of(sent))
        gym = Path(str(settings.get("train_dir") or run))
        terms = terms_of_use(gym, config.trained_tasks)
        with problem_context(f"{run / 'run.json'}, files of its data: "):
            write(folder / ONTOLOGY_FILE, ontology_of(run, settings, None).tree)
            if (gym / OWN_FEATURES).is_file():
                header, rows = read_task_table(gym / OWN_FEATURES)
                write(folder / OWN_FEATURES, pd.DataFrame([header, *rows.values()]))
    write_card(folder, name, license, terms)


def files_to_share(checkpoint: Path, run: Path) -> dict[str, Path]:
    """Returns {place in the shared folder: file}. Raises InputError for a link, which may lead anywhere."""
    steps = f"{load_progress(checkpoint).get('step')}-steps"
    parts = [(".", checkpoint, CHECKPOINT_FILES), (".", run, RUN_FILES), (steps, run / steps, ROUTE_FILES)]
    parts.append(("best", run / "best" if run == checkpoint else checkpoint, ["eval-*.csv"]))
    files = {}
    for place, folder, patterns in parts:
        found = [file for pattern in patterns for file in folder.glob(pattern) if file.is_file()]
        files |= {str(Path(place, file.name)): file for file in found}
    for file in files.values():
        if file.resolve() != run.resolve() / file.relative_to(run):
            raise InputError(f"{file} is a link to {file.resolve()}; put the file itself there")
    return files


def write(target: Path, content: dict | pd.DataFrame, command: str | None = None) -> None:
    """Writes JSON, with a command, or a table whose header is its first row, `without_places`."""
    target.parent.mkdir(exist_ok=True)
    if isinstance(content, dict):
        made_by = {"command": command} if command else {}
        write_text(target, json.dumps(without_places(content) | made_by, indent=1))
    else:
        write_text(target, content.map(without_places).to_csv(index=False, header=False))


def command_of(settings: dict) -> str:
    """Returns the command with these settings, without those of defaults."""
    words = TrainSettings.program.split()
    for name, flag in flags_of(TrainSettings).items():
        value = settings.get(name)
        if value is None or value is False or value == getattr(TrainSettings, name, None):
            continue
        values = [] if value is True else map(str, value if isinstance(value, list) else [value])
        words += [f"--{name}", *([",".join(values)] if flag.parse else values)]
    return shlex.join(words)


def without_places(value):
    """Returns a JSON value without commands and places: of a path its last part, of a text with a URL "".

    URLs without user, port and query stay, and texts with tokens, such as "</s>".
    """
    if isinstance(value, dict):
        if runs := value.get("runs_before"):
            value = value | {"runs_before": distinct_keys(runs)}
        return {
            without_places(key): text if AS_THEY_ARE.fullmatch(key) else without_places(text)
            for key, text in value.items()
            if key != "command"
        }
    if isinstance(value, list | tuple):
        return [without_places(text) for text in value]
    if not isinstance(value, str) or NO_PATH.fullmatch(value):
        return value
    return "" if "://" in value else re.split(r"[/\\]", value.rstrip("/\\"))[-1]


def distinct_keys(runs: dict) -> dict:
    """Returns {path: cost} with the name and a short hash of each path: all runs named alike count."""
    names = {path: without_places(path) for path in runs}
    sums = {path: hashlib.sha256(path.encode()).hexdigest()[:8] for path in runs}
    return {path if name == path else f"{name}-{sums[path]}": runs[path] for path, name in names.items()}


def terms_of_use(gym: Path, tasks: list[str]) -> str:
    """Returns the terms in the report of a built gym, but of no task with rows of another source."""
    tasks_of = {}
    for task, line in read_report(gym).items():
        if task in tasks and all(source in line.source for source in sources_of(gym / task).values()):
            tasks_of.setdefault(without_places(line.terms), []).append(task)
    return "; ".join(f"{terms} ({', '.join(tasks)})" for terms, tasks in tasks_of.items()) or "not recorded"


def write_card(folder: Path, name: str, license: str | None, terms: str) -> None:
    """Writes README.md, from the files in the folder alone."""
    config, path = Mixture.load(folder), folder / "run.json"
    run = load_json_object(path, "the description of a run") if path.is_file() else {}
    scores = []
    for section, heading in (("train", "Train tasks"), ("test", "Unseen tasks")):
        if (path := folder / ScoresFile(section=section).path).is_file():
            table = read_scores(path).set_index("sample").rename_axis(heading).astype({"n": int})
            columns = ("metric", "performance", "n", *BASELINES, "route", "vector_seen")
            scores.append(markdown_table(table[with_values(table, columns)]))
    kind = getattr(config, "backbone", config).model_type.removeprefix("routing_").replace("bart", "BART")
    tags = [kind.lower(), "mixture-of-experts", "multi-task", "text2text-generation"]
    data = ModelCardData(library_name="routing-moe", tags=tags, license=license)
    text = CARD.format(
        kind=kind,
        layers=config.num_layers,
        experts=config.experts_described,
        routes=f", {config.route_source} routes" if config.num_experts > 1 else "",
        tasks=counted(len(config.trained_tasks), "task"),
        name=name,
        scores="\n\n".join(scores) or "It is not scored.",
        license=license or "no licence is stated; those of the base model and of the data apply",
        terms=terms,
        git=run.get("git") or "unknown",
        command=run.get("command") or "unknown",
    )
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {name}\n\n{text}").save(folder / "README.md")
