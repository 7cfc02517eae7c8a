"""The checks of the data that `routing-moe train` reads: gyms, split, ontology, files, answer options."""

from pathlib import Path

from dataloader.errors import Problems, in_short
from dataloader.gym import Gym
from dataloader.ontology import Ontology, ontology_path
from dataloader.options import find_options
from dataloader.task_splits import Split, load_split
from routing_moe.config.train import TrainSettings


def open_data(settings: TrainSettings, problems: Problems):
    """Returns the gyms of training and prediction, the split and the ontology; None for one with problems."""
    train_gym = problems.of(Gym, settings.train_dir, settings.skip_malformed, flag="train_dir")
    predict_gym = train_gym
    if settings.predict_dir != settings.train_dir:
        predict_gym = problems.of(Gym, settings.predict_dir, settings.skip_malformed, flag="predict_dir")
    split = None
    if train_gym and not settings.custom_tasks_splits and not split_path(settings).is_file():
        problems.append(
            f"--train_dir {settings.train_dir} has no split.json; name one with --custom_tasks_splits"
        )
    elif train_gym or settings.custom_tasks_splits:
        flag = "custom_tasks_splits" if settings.custom_tasks_splits else None
        split = problems.of(load_split, split_path(settings), flag=flag)
    flag = "task_ontology" if settings.task_ontology else None
    ontology = problems.of(
        Ontology.load, ontology_path(settings.train_dir, settings.task_ontology), flag=flag
    )
    return train_gym, predict_gym, split, ontology


def split_path(settings: TrainSettings) -> Path:
    """Returns `--custom_tasks_splits`, else the gym's `split.json`."""
    return Path(settings.custom_tasks_splits or Path(settings.train_dir) / "split.json")


def data_problems(settings: TrainSettings, train_gym: Gym, predict_gym: Gym, split: Split) -> list[str]:
    """Returns problems of missing or malformed files and unknown metrics of the tasks that the run reads."""
    trained = split.train if settings.do_train else ()
    predicted = split.section(settings.predict_split) if settings.do_predict else ()
    read_in = {train_gym: trained, predict_gym: (*trained, *predicted)}  # often the same gym
    problems = [problem for gym, tasks in read_in.items() for problem in gym.lacking(tasks, split.path)]
    if settings.do_train:
        if not split.train:
            problems.append(f"{split.path}: the train section is empty; there is nothing to train on")
        problems += task_problems(trained, train_gym, ["train"], "all")
        problems += task_problems(trained, predict_gym, ["dev"], settings.predict_samples)
    if settings.do_predict:
        if not predicted:
            problems.append(
                f"--predict_split is {settings.predict_split!r}, but this section of {split.path} is empty"
            )
        problems += task_problems(predicted, predict_gym, ["dev", "test"], settings.predict_samples)
    if settings.reads_options and not problems:
        problems += option_problems(settings, train_gym, predict_gym, split)
    return list(dict.fromkeys(problems))


def option_problems(settings: TrainSettings, train_gym: Gym, predict_gym: Gym, split: Split) -> list[str]:
    """Returns problems of options: unreadable train files, sections with none to rank for --scoring rank."""
    parts = {"train": ["dev"]} if settings.do_train else {}
    if settings.do_predict:
        parts[settings.predict_split] = ["dev", "test"]
    problems = Problems()
    for section, of_section in parts.items():
        sources = [
            problems.of(
                find_options,
                task,
                predict_gym.metric(task),
                (train_gym, predict_gym),
                predict_gym.examples(task, part, settings.predict_samples),
            )
            for task in split.section(section)
            for part in of_section
        ]
        if settings.scoring == "rank" and not any(source is None or source.name for source in sources):
            problems.append(
                f"--scoring is rank, but no task of the {section} section of {split.path} has answer "
                "options: an options field in .jsonl files, a list (A) ... (B) ... in the inputs, or a few "
                "labels that recur in the train files; give generate"
            )
    return problems


def task_problems(tasks, gym: Gym, parts: list[str], samples: str) -> list[str]:
    """Returns problems of the files of those of the tasks that the gym has."""
    problems, known = Problems(), set(gym.tasks())
    tasks = [task for task in tasks if task in known]
    if samples not in ("all", "first"):
        lacking = [task for task in tasks if not gym.named_samples(task, samples)]
        if lacking:
            problems.append(
                f"--predict_samples is {samples!r}: no such sample of {in_short(lacking)}; give all, first, "
                f"or a seed such as {gym.samples(lacking[0])[0].rsplit('_', 1)[-1]}"
            )
        tasks = [task for task in tasks if task not in lacking]
    for task in tasks:
        problems.of(gym.metric, task)
    for part in parts:
        problems.of(gym.pool, tasks, part, samples)
    return problems
