"""Writes the route of a task as a plain BART, which needs transformers alone, or as an adapter of peft."""

import copy
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from dataloader.gym import Example
from routing_moe.answering.queries import Query
from routing_moe.answering.tasks import RoutedTask
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
CARD = """# {title}

{what}: {route}; it has seen of the task: {seen}.{agreement}

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
AGREEMENT = (
    " The route mixes experts; this is the expert of largest weight in each layer. {share:.1%} of {n} "
    "answers are those along the route."
)
SECOND_BOS = """import torch

for name, fill in (("input_ids", tokenizer.bos_token_id), ("attention_mask", 1)):
    first = inputs[name].new_full((len(texts), 1), fill)
    inputs[name] = torch.cat([first, inputs[name]], dim=1)
"""


def export(routed, task: RoutedTask, folder: Path, argmax: bool, texts: Sequence[str]) -> float | None:
    """Writes the plain BART of a route to a new folder, with tokenizer, generation settings and a README.

    routed: the `Routed` that the task is of. argmax: for a route without an equivalent plain BART, take the
    expert of largest weight in each layer. texts: those on which the answers of both are compared then.
    Returns the share of equal answers, None for an equivalent BART. Raises InputError for a route without one
    unless argmax is set, and if the folder exists.
    """
    if folder.exists():
        raise InputError(f"{folder} exists already; name another folder")
    model, route_LE = routed.model, task.route_LE.to(routed.model.device)
    agreement = None
    if not model.has_plain_equivalent(route_LE[None]):
        if not argmax:
            raise InputError(f"{task.name}: {NO_EQUAL}")
        agreement = agreement_with_argmax(routed, task, texts)
    bart = model.to_bart(route_LE)
    bart.generation_config = copy.deepcopy(bart.generation_config)  # it is the model's
    bart.generation_config.update(**generation_limits(model.config, routed.decoding))
    bart.config.text_settings, bart.config.task_names = routed.texts, [task.name]
    with replacing_directory(folder) as new:
        bart.save_pretrained(new)
        routed.tokenizer.save_pretrained(new)
        shown = dict(
            title=f"A plain BART for the task {task.name}",
            what="One route of a mixture of experts as one BART",
            agreement="" if agreement is None else AGREEMENT.format(share=agreement, n=len(texts)),
            loading=LOADING,
            limits="",
        )
        write_text(new / "README.md", card(routed, task, **shown))
    return agreement


def export_adapter(routed, task: RoutedTask, folder: Path) -> None:
    """Writes the adapter of a route to a new folder, with its tokenizer and a README.

    Raises InputError as `to_adapter`, and if peft does not compute the route's weights from it.
    """
    with replacing_directory(folder) as new:
        written = write_adapter(routed.model, task.route_LE, new, write_base(routed, new))
        check_with_peft(routed.model, task.route_LE, new)
        routed.tokenizer.save_pretrained(new)
        limits = generation_limits(routed.model.config, routed.decoding)
        shown = dict(
            title=f"An adapter for the task {task.name}",
            what="One route of a mixture of experts as an adapter of peft",
            agreement="",
            loading=loading_code(written),
            limits="".join(f", {name}={value!r}" for name, value in limits.items()),
        )
        write_text(new / "README.md", card(routed, task, **shown))


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


def agreement_with_argmax(routed, task: RoutedTask, texts: Sequence[str]) -> float:
    """Returns the share of texts with the same answer along the route and along its largest weights."""
    if not texts:
        raise InputError("--argmax changes the answers: give texts (--inputs) to measure how many")
    one_hot_LE = torch.nn.functional.one_hot(task.route_LE.argmax(dim=1), task.route_LE.shape[1])
    chosen = dataclasses.replace(task, route_LE=one_hot_LE.to(task.route_LE.dtype))
    queries = [Query(text) for text in texts]
    pairs = zip(routed.answers(task, queries), routed.answers(chosen, queries), strict=True)
    return sum(own.answer == other.answer for own, other in pairs) / len(texts)


def card(routed, task: RoutedTask, **shown: str) -> str:
    """Returns a README that shows how texts of the task are given to what was exported."""
    own = routed.text_format
    prefix = own.source(Example(task.name, task.name, "", ("",)))
    if own.append_another_bos:
        prefix = f" {prefix}"
    return CARD.format(
        route=task.words,
        seen=task.seen,
        source=f"{prefix!r} + text" + (".lower()" if own.do_lowercase else ""),
        length=own.max_input_length - own.append_another_bos,
        second_bos=SECOND_BOS if own.append_another_bos else "",
        **shown,
    )
