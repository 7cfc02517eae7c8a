"""Writes the plain BART of a task's route, which transformers loads and runs without this package."""

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from dataloader.gym import Example
from routing_moe.answering.queries import Query
from routing_moe.answering.tasks import RoutedTask
from routing_moe.evaluation.scoring import generation_limits
from routing_moe.io.files import replacing_directory

NO_EQUAL = (
    "the route mixes the outputs of several experts, so that no plain BART gives the same answers; --argmax "
    "(argmax=True) exports the expert of largest weight in each layer"
)
CARD = """# A plain BART for the task {task}

The route of a mixture of experts as one BART. {route}

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

model = AutoModelForSeq2SeqLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")
texts = ["..."]
sources = [{source} for text in texts]
inputs = tokenizer(sources, max_length={length}, truncation=True, padding=True, return_tensors="pt")
answers = tokenizer.batch_decode(model.generate(**inputs), skip_special_tokens=True)
print([answer.strip() for answer in answers])
```
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
    bart.config.text_settings = routed.texts
    with replacing_directory(folder) as new:
        bart.save_pretrained(new)
        routed.tokenizer.save_pretrained(new)
        write_text(new / "README.md", card(routed, task, folder))
    return agreement


def agreement_with_argmax(routed, task: RoutedTask, texts: Sequence[str]) -> float:
    """Returns the share of texts with the same answer along the route and along its largest weights."""
    if not texts:
        raise InputError("--argmax changes the answers: give texts (--inputs) to measure how many")
    one_hot_LE = torch.nn.functional.one_hot(task.route_LE.argmax(dim=1), task.route_LE.shape[1])
    chosen = dataclasses.replace(task, route_LE=one_hot_LE.to(task.route_LE.dtype))
    queries = [Query(text) for text in texts]
    pairs = zip(routed.answers(task, queries), routed.answers(chosen, queries), strict=True)
    return sum(own.answer == other.answer for own, other in pairs) / len(texts)


def card(routed, task: RoutedTask, folder: Path) -> str:
    """Returns a README that shows how texts are given to the exported BART."""
    shown = routed.text_format.source(Example(task.name, task.name, "{text}", ("",)))
    bos = routed.tokenizer.bos_token if routed.text_format.append_another_bos else ""
    source = f'f"{bos}{shown}"' + (".lower()" if routed.text_format.do_lowercase else "")
    return CARD.format(
        task=task.name,
        route=f"The route: {task.words}. It has seen of the task: {task.seen}.",
        folder=folder,
        source=source,
        length=routed.text_format.max_input_length,
    )
