"""Writes the route of a task as a plain BART, which needs transformers alone, or as an adapter of peft."""

import copy
import os
from pathlib import Path

import torch

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from dataloader.gym import Example
from routing_moe.answering.queries import RoutedTask
from routing_moe.checkpoints.adapters import check_with_peft
from routing_moe.evaluation.scoring import generation_limits
from routing_moe.io.files import replacing_directory
from routing_moe.io.hub import local_folder
from routing_moe.model.adapter_files import loading_code, name_of_base, write_adapter
from routing_moe.model.loading import saved_kind

NO_EQUAL = (
    "the route mixes the outputs of several experts, so that no plain BART gives the same answers; --argmax "
    "(argmax=True) exports the expert of largest weight in each layer"
)
CARD = """# {title} for the task {name}

One route of a mixture of experts as {what}: {route}; it has seen of the task: {seen}.

In this folder:

```python
{loading}texts = ["..."]
sources = [{source} for text in texts]
options = dict(truncation=True, padding=True, split_special_tokens=True, return_tensors="pt")
inputs = tokenizer(sources, max_length={length}, **options)
{second_bos}answers = tokenizer.batch_decode(model.generate(**inputs{limits}), skip_special_tokens=True)
print([answer.strip() for answer in answers])
```
"""
LOADING = """from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
"""
SECOND_BOS = """import torch

for name, fill in (("input_ids", tokenizer.bos_token_id), ("attention_mask", 1)):
    first = inputs[name].new_full((len(texts), 1), fill)
    inputs[name] = torch.cat([first, inputs[name]], dim=1)
"""


def export(routed, task: RoutedTask, folder: Path, argmax: bool) -> None:
    """Writes the plain BART of a route to a new folder, with tokenizer, generation settings and a README.

    routed: the `Routed` that the task is of. argmax: for a route without an equivalent plain BART, take the
    expert of largest weight in each layer. Raises InputError for such a route without argmax, and if the
    folder exists.
    """
    if folder.exists():
        raise InputError(f"{folder} exists already; name another folder")
    model, route_LE = routed.model, task.route_LE.to(routed.model.device)
    has_equal = model.has_plain_equivalent(route_LE[None])
    if not has_equal and not argmax:
        raise InputError(f"{task.name}: {NO_EQUAL}")
    bart = model.to_bart(route_LE)
    bart.generation_config = copy.deepcopy(bart.generation_config)  # it is the model's
    bart.generation_config.update(**generation_limits(model.config, routed.decoding))
    bart.config.text_settings, bart.config.task_names = routed.texts, [task.name]
    what = "one BART" if has_equal else "one BART, of the expert of largest weight in each layer"
    with replacing_directory(folder) as new:
        bart.save_pretrained(new)
        routed.tokenizer.save_pretrained(new)
        write_text(new / "README.md", card(routed, task, "A plain BART", what, LOADING))


def export_adapter(routed, task: RoutedTask, folder: Path) -> None:
    """Writes the adapter of a route to a new folder, with its tokenizer and a README."""
    with replacing_directory(folder) as new:
        written = write_adapter(routed.model, task.route_LE, new, write_base(routed, new))
        check_with_peft(routed.model, task.route_LE, new)
        routed.tokenizer.save_pretrained(new)
        limits = generation_limits(routed.model.config, routed.decoding)
        limits = "".join(f", {name}={value!r}" for name, value in limits.items())
        shown = ("An adapter", "an adapter of peft", loading_code(written), limits)
        write_text(new / "README.md", card(routed, task, *shown))


def export_adapters(routed, folder: Path) -> None:
    """Writes every low-rank expert of a `Routed` as an adapter of peft, to new folders in `folder`."""
    model = routed.model
    with replacing_directory(folder) as new:
        base = write_base(routed, new, "expert0")
        for expert in range(model.config.num_experts):
            route_LE = torch.zeros(model.config.num_layers, model.config.num_experts, device=model.device)
            route_LE[:, expert] = 1
            write_adapter(model, route_LE, new / f"expert{expert}", base)


def write_base(routed, folder: Path, adapter: str = ".") -> str | None:
    """Returns how an adapter at this place in a folder names its base.

    A base that peft cannot load from the place that the model refers to, because it was trained with the
    experts, or is a run or a file of weights, is written to `base` in the folder.
    """
    model, base = routed.model, routed.model.config.base_model
    if base is not None and is_plain(base):
        return name_of_base(model, folder / adapter)
    sizes = model.config.num_layers, model.config.num_experts
    model.to_bart(torch.zeros(sizes, device=model.device)).save_pretrained(folder / "base")
    routed.tokenizer.save_pretrained(folder / "base")
    return os.path.relpath("base", adapter)


def is_plain(base: str) -> bool:
    """Returns whether transformers loads a plain BART from the place of a base: its folder, or a hub name."""
    folder = Path(base) if Path(base).exists() else local_folder(base)
    return folder.is_dir() and saved_kind(folder) == "bart"


def card(routed, task: RoutedTask, title: str, what: str, loading: str, limits: str = "") -> str:
    """Returns a README that shows how texts of the task are given to what was exported."""
    text_format = routed.text_format
    second_bos = text_format.append_another_bos
    prefix = " " * second_bos + text_format.source(Example(task.name, task.name, "", ("",)))
    return CARD.format(
        title=title,
        name=task.name,
        what=what,
        route=task.words,
        seen=task.seen,
        loading=loading,
        source=f"{prefix!r} + text" + (".lower()" if text_format.do_lowercase else ""),
        length=text_format.max_input_length - second_bos,
        second_bos=SECOND_BOS if second_bos else "",
        limits=limits,
    )
