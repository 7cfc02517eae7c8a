"""Write a conflict gym: small tasks of hidden skills that give the same input contradictory answers.

    python -m task.conflict_gym.generate --output_dir data/conflict_gym
    python -m task.conflict_gym.generate --output_dir data/agreeing --conflict 0     # the control
    python -m task.conflict_gym.generate --output_dir data/36_skills --encoder_parts 6 --decoder_parts 6

All tasks draw inputs from the same distribution, so only the name of a task, or its route, says which skill
to use. A skill is composed of an encoder-side and a decoder-side part; several tasks share it. Train tasks
have one sample (seed 0), unseen tasks five (100, 13, 21, 42, 87) of the same test file.

Other files: `metrics.json`, `split.json`, `ontology.json` (encoder part, then decoder part), `skills.csv`,
`oracle_routes.json` (the parts of each task), `skill_routes.json` (the skill number of each task) and
`gym.json` (the settings). The same settings write the same bytes. An interrupted command continues when it is
given again.
"""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from routing_moe.cli.console import run_command
from routing_moe.config.flags import differences
from routing_moe.io.files import unwritable
from task.conflict_gym.settings import SETTINGS_FILE, GymSettings, faults_of, load_settings
from task.conflict_gym.skills import Skills, draw_skills
from task.conflict_gym.tasks import Row, Task, draw_tasks, task_files


def main(argv: list[str] | None = None) -> int:
    return run_command(run, GymSettings, argv, __doc__)


def run(settings: GymSettings) -> None:
    if faults := faults_of(settings) or folder_faults(settings):
        raise InputError(faults)
    generate(settings)
    print(
        f"{settings.tasks} train tasks and {settings.unseen_tasks} unseen tasks of {settings.skills} skills "
        f"written to {settings.output_dir}"
    )


def folder_faults(settings: GymSettings) -> list[str]:
    """Returns faults of an output folder that holds something else than this gym."""
    folder = settings.output_dir
    if reason := unwritable(folder):
        return [f"--output_dir {reason}"]
    if not folder.is_dir() or not any(folder.iterdir()):
        return []
    if not (folder / SETTINGS_FILE).is_file():
        return [f"--output_dir {folder} is not empty and no conflict gym; name a new folder"]
    saved = load_settings(folder).to_dict()
    found = differences(settings, saved, str(folder / SETTINGS_FILE))
    return [f"{fault}; name a new folder, or delete this one" for fault in found]


def generate(settings: GymSettings) -> None:
    """Writes the gym into `settings.output_dir`: gym.json first, split.json last."""
    skills = draw_skills(settings)
    tasks = draw_tasks(settings, skills)
    folder = settings.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "split.json").unlink(missing_ok=True)
    write_text(folder / SETTINGS_FILE, _as_json(description(settings, skills, tasks)))
    for task in tasks:
        (folder / task.name).mkdir(exist_ok=True)
        for name, rows in task_files(settings, skills, task).items():
            _write_rows(folder / task.name / name, rows)
    for name, text in tables(skills, tasks).items():
        write_text(folder / name, text)


def _write_rows(path: Path, rows: list[Row]) -> None:
    path.write_bytes("".join(f"{text}\t{answer}\n" for text, answer in rows).encode())


def _as_json(value: dict) -> str:
    return json.dumps(value, indent=2) + "\n"


def description(settings: GymSettings, skills: Skills, tasks: list[Task]) -> dict:
    """Returns the settings, the share of inputs on which skills contradict, and the tasks' second skills.

    contradiction: the lowest and the mean of all pairs of skills; 0 if there is only one.
    """
    pairs = settings.conflict * skills.disagreements()[np.triu_indices(skills.count, 1)]
    chosen = settings.to_dict()
    del chosen["output_dir"]
    return {
        "settings": chosen,
        "contradiction": {
            "lowest": round(float(pairs.min()), 6) if len(pairs) else 0.0,
            "mean": round(float(pairs.mean()), 6) if len(pairs) else 0.0,
        },
        "second_skills": {task.name: task.second_skill for task in tasks if task.second_words},
    }


def tables(skills: Skills, tasks: list[Task]) -> dict[str, str]:
    """Returns {file name: text} of the files beside the tasks, in the order of writing."""
    parts = {task.name: skills.parts(task.skill) for task in tasks}
    oracle = {name: {"encoder": a, "decoder": b} for name, (a, b) in parts.items()}
    ontology: dict[str, dict[str, list[str]]] = {}
    for name, (a, b) in sorted(parts.items(), key=lambda item: item[1]):
        ontology.setdefault(f"e{a}", {}).setdefault(f"d{b}", []).append(name)
    split = {
        "train": [task.name for task in tasks if not task.unseen],
        "dev": [],
        "test": [task.name for task in tasks if task.unseen],
    }
    return {
        "metrics.json": _as_json({task.name: "EM" for task in tasks}),
        "ontology.json": _as_json(ontology),
        "skills.csv": _skills_csv(skills, parts),
        "oracle_routes.json": _as_json(oracle),
        "skill_routes.json": _as_json({task.name: task.skill for task in tasks}),
        "split.json": _as_json(split),
    }


def _skills_csv(skills: Skills, parts: dict[str, tuple[int, int]]) -> str:
    """Returns a table of 0 and 1: columns `skill:e0d1`, then `encoder:e0`, then `decoder:d1`."""
    pairs = [skills.parts(skill) for skill in range(skills.count)]
    columns = [f"skill:e{a}d{b}" for a, b in pairs]
    columns += dict.fromkeys(f"encoder:e{a}" for a, _ in pairs)
    columns += dict.fromkeys(f"decoder:d{b}" for _, b in pairs)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", *columns])
    for name, (a, b) in parts.items():
        own = {f"skill:e{a}d{b}", f"encoder:e{a}", f"decoder:d{b}"}
        writer.writerow([name, *(int(column in own) for column in columns)])
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(main())
