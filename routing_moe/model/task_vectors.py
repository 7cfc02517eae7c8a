"""The interchange format for task vectors: a folder with `id2task.json` and `task_vecs.npy`.

`id2task.json` maps row numbers (as strings) to task names, `{"0": "boolq", ...}`; `task_vecs.npy` is an
(N, D) float array. The published code writes and reads the same two files. The commands of `task/task_emb`
add `meta.json`, which describes how the vectors were computed; it is optional. Two of its fields are used:

    seen       the data of its task that a vector is based on, one of SEEN; "unknown" if missing
    sample_of  {row: task} of rows that are for one sample and named after it: {"boolq_16_100": "boolq"}
"""

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np

from dataloader.atomic_files import write_bytes, write_text
from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object
from routing_moe.io.arrays import load_array
from routing_moe.io.files import npy_bytes

NAMES_FILE, VECTORS_FILE, META_FILE = "id2task.json", "task_vecs.npy", "meta.json"

# The data of its task that a vector is based on. A vector based on labels of an unseen task is not zero-shot.
NOTHING = "nothing"
INPUTS_OF_ONE = "unlabelled inputs of one sample"
INPUTS_OF_ALL = "unlabelled inputs of all samples"
ROWS_OF_ONE = "labelled rows of one sample"
ROWS_OF_ALL = "labelled rows of all samples"
UNKNOWN = "unknown"
SEEN = (NOTHING, INPUTS_OF_ONE, INPUTS_OF_ALL, ROWS_OF_ONE, UNKNOWN, ROWS_OF_ALL)  # from less to more


def of_sample(seen: str, sample: str) -> str:
    """Returns `seen` with the name of the sample: "labelled rows of one sample: boolq_16_100"."""
    return f"{seen}: {sample}" if seen in (INPUTS_OF_ONE, ROWS_OF_ONE) else seen


def seen_together(first: str, second: str) -> str:
    """Returns what two parts of a model have seen of a task: the larger of both; of two samples, all."""
    kinds = [seen.split(":")[0] for seen in (first, second)]  # of Python's inputs=, too, which is not in SEEN
    if first != second and kinds[0] == kinds[1]:
        return kinds[0].replace("one sample", "all samples")
    sizes = [SEEN.index(kind if kind in SEEN else INPUTS_OF_ONE) for kind in kinds]
    return first if sizes[0] >= sizes[1] else second


def load_task_vectors(folder: str | Path) -> tuple[list[str], np.ndarray]:
    """Returns the task names in row order and their vectors (N, D) as float32."""
    folder = Path(folder)
    names_path, vectors_path = folder / NAMES_FILE, folder / VECTORS_FILE
    if missing := [path.name for path in (names_path, vectors_path) if not path.is_file()]:
        raise InputError(f"{folder} is not a task-vector folder: it lacks {' and '.join(missing)}")
    names, vectors_ND = read_names(names_path), load_array(vectors_path)
    if vectors_ND.ndim != 2 or not np.issubdtype(vectors_ND.dtype, np.floating):
        expected = "it must be a (tasks, dimension) array of floats"
        raise InputError(f"{vectors_path} holds {vectors_ND.dtype} of shape {vectors_ND.shape}; {expected}")
    if len(names) != len(vectors_ND):
        raise InputError(
            f"{names_path} names {len(names)} tasks, but {vectors_path} has {len(vectors_ND)} rows"
        )
    if not np.isfinite(vectors_ND).all():
        row = int(np.argwhere(~np.isfinite(vectors_ND))[0, 0])
        raise InputError(f"{vectors_path}: row {row} ({names[row]}) has a value that is not finite")
    return names, vectors_ND.astype(np.float32)


def load_meta(folder: str | Path) -> dict:
    """Returns the meta.json of a folder of vectors, {} if missing. Raises InputError if it is damaged."""
    path = Path(folder) / META_FILE
    return load_json_object(path, "how the vectors were made") if path.is_file() else {}


def seen_by(meta: dict) -> str:
    """Returns the data that the vectors of a meta.json are based on, one of SEEN."""
    return meta["seen"] if meta.get("seen") in SEEN else UNKNOWN


def row_of(names: Collection[str], task: str, sample: str | None) -> str:
    """Returns the name of the row for a sample: the sample's row if there is one, else its task's."""
    return sample if sample in names else task


def save_task_vectors(folder: str | Path, names: list[str], vectors_ND: np.ndarray | None) -> None:
    """Writes both files into an existing folder, each atomically. Without vectors, writes the names only."""
    folder = Path(folder)
    if vectors_ND is not None:
        write_bytes(folder / VECTORS_FILE, npy_bytes(np.asarray(vectors_ND, dtype=np.float32)))
    numbered = {str(row): name for row, name in enumerate(names)}
    write_text(folder / NAMES_FILE, json.dumps(numbered))


def read_names(path: Path) -> list[str]:
    """Returns the task names in an id2task.json, by row. Raises InputError if the file is broken."""
    id2task = load_json_object(path, '{"0": task, "1": task, ...}')
    names = [id2task.get(str(row)) for row in range(len(id2task))]
    if not all(isinstance(name, str) for name in names):
        raise InputError(f'{path} must map the row numbers to task names, {{"0": name, "1": name, ...}}')
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path}: names {', '.join(repeated)} more than once")
    return names
