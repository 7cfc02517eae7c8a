"""Writes the route of a task as a plain model, which needs transformers alone, or as an adapter."""

import copy
import logging
import os
import re
from functools import partial
from pathlib import Path

import torch
from torch.func import functional_call

from dataloader.atomic_files import write_text
from dataloader.encoding import around_message, rendered
from dataloader.errors import InputError
from dataloader.gym import Example, evenly_spread
from routing_moe.answering.queries import Query, RoutedTask
from routing_moe.checkpoints.adapter_texts import write_adapter_texts
from routing_moe.config.choices import PLAIN_MODELS
from routing_moe.evaluation.scored_files import batch_of
from routing_moe.evaluation.scoring import generation_limits
from routing_moe.io.files import replacing_directory
from routing_moe.io.hub import local_folder
from routing_moe.model.adapter_files import Factors, factors_of, name_of_base, write_adapter
from routing_moe.model.gguf_adapter import GGUF_FILE, write_gguf
from routing_moe.model.loading import saved_kind
from routing_moe.model.loss import projected_at, with_targets
from routing_moe.model.mixtures import routes_of_experts
from routing_moe.model.route_clusters import single_experts

log = logging.getLogger("routing_moe")

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # values of its max_lora_rank
OWN_FOLDER = re.compile(r"(?!base$|expert\d+$)\w[\w.+-]*")  # names of tasks that are names of folders
MOST_TEXTS = 100  # of a task, each of which is read twice
NO_EQUAL = (
    "the route mixes the outputs of several experts, so that no plain model gives the same answers; --argmax "
    "(argmax=True) exports the expert of largest weight in each layer"
)
README = """# {what} for the task {name}

One route of a mixture of experts: {route}; it has seen of the task: {seen}.

An input is `{source}`, tokenized with {options}.
{notes}Arguments of `generate`: {limits}.
"""


def export(routed, task: RoutedTask, folder: Path, argmax: bool) -> None:
    """Writes the plain model of a route to a new folder, with tokenizer, generation settings and a README.

    routed: the `Routed` that the task is of. argmax: for a route without an equivalent plain model, take the
    expert of largest weight in each layer. Raises InputError for such a route without argmax, and if the
    folder exists.
    """
    if folder.exists():
        raise InputError(f"{folder} exists already; name another folder")
    model, route_LE = routed.model, routed.route_of(task).to(routed.model.device)
    has_equal = model.has_plain_equivalent(route_LE[None])
    if not has_equal and not argmax:
        raise InputError(f"{task.name}: {NO_EQUAL}")
    bart = copy.copy(model.to_plain(route_LE, "cpu"))  # without experts, it is the model
    bart.config, bart.generation_config = copy.deepcopy((bart.config, bart.generation_config))
    bart.generation_config.update(**generation_limits(model.config, routed.decoding, routed.tokenizer))
    bart.config.text_settings, bart.config.task_names = routed.texts, [task.name]
    bart.config.trained_tasks = model.config.trained_tasks
    bart.config.weights_seen = model.config.weights_seen | {task.name: task.seen}
    kept = model.config.input_templates or {}
    bart.config.input_templates = {name: text for name, text in kept.items() if name == task.name}
    with replacing_directory(folder) as new:
        bart.save_pretrained(new)
        what = "A plain model" if has_equal else "A plain model of the expert of largest weight in each layer"
        write_tokenizer(routed, task, new, what)


def export_adapter(routed, task: RoutedTask, folder: Path, rank=None, as_gguf=False) -> tuple[int, float]:
    """Writes the adapter of a route to a new folder, with its tokenizer and a README.

    rank: at most this; None: exact. as_gguf: for llama.cpp, not for peft. Returns its rank, and the relative
    error of its updates.
    """
    with replacing_directory(folder) as new:
        base, route_LE = write_base(routed, new), routed.route_of(task)
        factors, rank, error = write_route(routed, route_LE, new, base, task.name, rank, as_gguf)
        engine = f"llama.cpp, {GGUF_FILE}, for a GGUF file of the model {base}," if as_gguf else "peft"
        write_tokenizer(routed, task, new, f"An adapter of {engine}")
    if error and task.texts:
        log.info(change_of_next_tokens(routed, task, factors))
    return rank, error


def export_adapters(routed, folder: Path, rank=None, as_gguf=False) -> dict[str, list[str]]:
    """Writes every low-rank expert of a `Routed` as an adapter, to new folders in `folder`.

    Returns {folder's name: tasks whose route is this expert in all layers}. The name is that of the task if
    it is one, else expert0, expert1, ... rank, as_gguf: as for `export_adapter`.
    """
    model, tasks_E = routed.model, tasks_of_experts(routed.model)
    own = [tasks[0] if len(tasks) == 1 and OWN_FOLDER.fullmatch(tasks[0]) else None for tasks in tasks_E]
    names = [name or f"expert{expert}" for expert, name in enumerate(own)]
    with replacing_directory(folder) as new:
        base = write_base(routed, new, names[0])
        for name, task, route_LE in zip(names, own, routes_of_experts(model), strict=True):
            write_route(routed, route_LE, new / name, base, task, rank, as_gguf)
    return dict(zip(names, tasks_E, strict=True))


def write_route(routed, route_LE, folder: Path, base, task, rank, as_gguf) -> tuple[Factors, int, float]:
    """Writes the adapter of a route to a folder; returns its updates, their rank and their relative error."""
    factors, error = factors_of(routed.model, route_LE, rank)
    write = write_gguf if as_gguf else partial(write_adapter, base=base)
    rank = write(routed.model, factors, folder)
    write_adapter_texts(folder, task, routed.texts)
    allowed = next((f"--max-lora-rank {most}" for most in VLLM_RANKS if most >= rank), "too high, --rank 512")
    of_vllm = "" if as_gguf else f" (vLLM: {allowed})"
    log.info("adapter of rank %d%s, relative error of its updates %.2g", rank, of_vllm, error)
    return factors, rank, error


def tasks_of_experts(model) -> list[list[str]]:
    """Returns for each expert the trained tasks whose route is this expert alone in all layers."""
    config = model.config
    tasks_E, tasks = [[] for _ in range(config.num_experts)], list(config.trained_tasks)
    if not (config.routes_by_task and tasks):
        return tasks_E
    routes_NRE = model.routes_for(tasks)[:, config.routed_rows].detach().float().cpu().numpy()
    for task, experts in zip(tasks, map(single_experts, routes_NRE[:, None]), strict=True):
        if experts is not None:
            tasks_E[experts[0]].append(task)
    return tasks_E


def write_base(routed, folder: Path, adapter: str = ".") -> str | None:
    """Returns how an adapter at this place in a folder names its base.

    A base that peft cannot load from the place that the model refers to, because it was trained with the
    experts, or is a run or a file of weights, is written to `base` in the folder.
    """
    model, base = routed.model, routed.model.config.base_model
    if base is not None:
        place = Path(base) if Path(base).exists() else local_folder(base)
        if place.is_dir() and saved_kind(place) in PLAIN_MODELS:  # which transformers loads
            return name_of_base(model, folder / adapter)
    sizes = model.config.num_layers, model.config.num_experts
    model.to_plain(torch.zeros(sizes, device=model.device), "cpu").save_pretrained(folder / "base")
    routed.tokenizer.save_pretrained(folder / "base")
    return os.path.relpath("base", adapter)


def write_tokenizer(routed, task: RoutedTask, folder: Path, what: str) -> None:
    """Writes the tokenizer, and a README that says how texts of the task are given to what was exported."""
    routed.tokenizer.save_pretrained(folder)
    text_format = routed.text_format
    limits = generation_limits(routed.model.config, routed.decoding, routed.tokenizer)
    how, length = "truncation=True, split_special_tokens=True", text_format.max_input_length
    options = f"`max_length={length}, {how}`"
    source = text_format.source(Example(task.name, task.name, "text", ("",))).removesuffix("text") + "TEXT"
    if text_format.prompt_format == "chat":  # as the template renders it on one day, without thoughts
        before, lead, after = around_message(routed.tokenizer, text_format.turns())
        how += f", add_special_tokens=False, max_length={length - len(before) - len(after)}"
        message = f"{lead}{source}".replace("\n", "\\n")
        options = f"`{before} + tokenizer(MESSAGE, {how})['input_ids'] + {after}`, MESSAGE: `{message}`"
        source = rendered(routed.tokenizer, source, text_format.turns())
    notes = "TEXT has no spaces at its end. " if text_format.prompt_format == "chat" else ""
    notes += "Texts are in lower case. " if text_format.do_lowercase else ""
    if text_format.append_another_bos:
        notes += "A second `<s>` begins the tokens, and counts. "
    content = README.format(
        what=what,
        name=task.name,
        route=task.description,
        seen=task.seen,
        source=source.replace("\n", "\\n"),
        options=options,
        notes=notes,
        limits=", ".join(f"`{name}={value!r}`" for name, value in limits.items() if value is not None),
    )
    write_text(folder / "README.md", content)


@torch.no_grad()
def change_of_next_tokens(routed, task: RoutedTask, factors: Factors) -> str:
    """Returns in words how updates in place of a route change the first token of answers to the task's texts.

    KL(p || q) in nats of its distributions p along the route and q with the updates.
    """
    model, route_LE = routed.model.eval(), routed.route_of(task).to(routed.model.device)
    queries = [Query(text) for text in evenly_spread(list(task.texts), MOST_TEXTS)]
    encoded, kl_N, same = routed.task_file(task.name, queries).encoded, [], 0
    prefix = "backbone." if hasattr(model, "backbone") else ""
    updates = {f"{prefix}{name}.lora_A": A[None] for name, (A, _) in factors.items()}
    updates |= {f"{prefix}{name}.lora_B": B[None] for name, (_, B) in factors.items()}
    for i in range(len(queries)):
        batch = batch_of(encoded, [i], model)
        inputs, (targets_T,) = with_targets(model, batch, batch.pop("labels"))
        first_1 = (targets_T >= 0).nonzero()[0]
        first_1 += int(targets_T[first_1] == routed.tokenizer.bos_token_id)  # with which a BART begins
        inputs |= {"routes": route_LE[None], "use_cache": False}
        with projected_at(model, first_1), routed.accelerator.autocast():
            both = model(**inputs).logits, functional_call(model, updates, (), inputs).logits
        p_V, q_V = (logits_1V[0].double().log_softmax(-1) for logits_1V in both)
        kl_N.append(float(p_V.exp() @ (p_V - q_V)))
        same += int(p_V.argmax() == q_V.argmax())
    mean, largest, n = sum(kl_N) / len(kl_N), max(kl_N), len(kl_N)
    return (
        f"KL of the next token: mean {mean:.2g}, largest {largest:.2g}; most likely one: {same} of {n} equal"
    )
