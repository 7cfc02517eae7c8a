"""Write groups of the train tasks of a run, which a method finds, for `train --task_routes`.

    python example_scripts/methods/find_groups.py mbc --run models/library --groups 9 --output_dir models/mbc
    python example_scripts/methods/find_groups.py my.py --run models/dense --groups 9 --output_dir models/my

A method is a file of this folder, or of yours, with a function find(tasks: Tasks, groups: int) that returns a
group of each task, numbers from 0. groups.json has them, transfer.json beside it the FLOPs of the matrix
products of the search, so that `cost.json` of a training along them has its cost.
"""

import argparse
import sys
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also without installation

from dataloader.encoded import EncodedExamples
from dataloader.encoding import encode
from dataloader.errors import InputError
from dataloader.gym import Example, Gym
from routing_moe.analysis.transfer import write_groups
from routing_moe.answering.routed import Routed
from routing_moe.config.console import reporting_errors
from routing_moe.io.run_folder import GROUPS_FILE, load_run_settings

FOLDER = Path(__file__).parent


@dataclass(frozen=True, eq=False)
class Tasks:
    """What a method may read: a trained run, and the train rows of its N tasks.

    examples: R train rows. rows: these encoded; task_ids_N are numbers of names. seed: of what is drawn.
    """

    routed: Routed
    gym: Gym
    names: list[str]
    examples: list[Example]
    rows: EncodedExamples
    seed: int

    @property
    def model(self):
        return self.routed.model

    def rows_of(self, n: int) -> np.ndarray:
        """Returns the numbers of the rows of task n."""
        return np.flatnonzero(self.rows.task_ids_N == n)

    @classmethod
    def of_run(cls, run: str, seed: int) -> "Tasks":
        routed, gym, names = loaded(run)
        ids, examples = {name: n for n, name in enumerate(names)}, gym.pool(names, "train")
        rows = encode(examples, routed.tokenizer, routed.text_format, ids)
        return cls(routed, gym, names, examples, rows, seed)


def loaded(run: str) -> tuple[Routed, Gym, list[str]]:
    """Returns the model of a run, without gradients, its gym, and the tasks that it was trained on."""
    if (saved := load_run_settings(Path(run))) is None:
        raise InputError(f"--run {run} is not a run: it has no run.json")
    routed, gym = Routed.load(run), Gym(saved["train_dir"], saved.get("skip_malformed", False))
    config = routed.model.requires_grad_(False).config
    return routed, gym, [name for name in config.task_names if name in config.trained_tasks]


def load_method(name: str):
    """Returns the function `find` of a method. Raises InputError."""
    path = Path(name) if name.endswith(".py") else FOLDER / f"{name}.py"
    known = sorted(p.stem for p in FOLDER.glob("*.py") if "\ndef find(" in p.read_text(encoding="utf-8"))
    if not path.is_file():
        raise InputError(f"method {name}: no such file {path}; give a file, or one of {', '.join(known)}")
    sys.modules.setdefault("find_groups", sys.modules[__name__])  # for methods that import from here
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    sys.path.insert(0, str(FOLDER))
    spec.loader.exec_module(module)
    if not callable(getattr(module, "find", None)):
        raise InputError(f"{path} has no function find(tasks, groups)")
    return module.find


def find_groups(method: str, run: str, groups: int, folder: Path, seed: int) -> None:
    """Finds the groups and writes them. Raises InputError for others than numbers from 0 to groups - 1."""
    find, tasks = load_method(method), Tasks.of_run(run, seed)
    N = len(tasks.names)
    if not 2 <= groups <= N:
        raise InputError(f"--groups is {groups}; it must be from 2 to {N}, the number of train tasks")
    torch.manual_seed(seed)
    with FlopCounterMode(display=False) as counter:
        labels_N = np.asarray(find(tasks, groups))
    if labels_N.shape != (N,) or not np.isin(labels_N, range(groups)).all():
        raise InputError(f"method {method} must return {N} numbers from 0 to {groups - 1}, not {labels_N}")
    used, flops = len(np.unique(labels_N)), counter.get_total_flops()
    summary = {"run": str(run), "method": method, "groups": used, "total_flops": flops}
    write_groups(folder, dict(zip(tasks.names, labels_N.tolist(), strict=True)), summary)
    print(f"{method}: {N} tasks, {used} groups, {flops / 1e9:.1f} GFLOPs, in {folder}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("method", help="name of a file of this folder, or FILE.py")
    parser.add_argument("--run", required=True, help="trained run whose tasks are grouped")
    parser.add_argument("--groups", type=int, required=True, help="number of groups")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of groups.json, which is kept")
    parser.add_argument("--seed", type=int, default=0, help="seed of what the method draws (0)")
    given = parser.parse_args(argv)
    with reporting_errors() as result:
        if not (given.output_dir / GROUPS_FILE).is_file():
            find_groups(given.method, given.run, given.groups, given.output_dir, given.seed)
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
