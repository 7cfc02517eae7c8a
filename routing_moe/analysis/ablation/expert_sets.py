"""Sets of experts to ablate, their names, "enc0.1+dec2.0" for two experts, and the files of an ablation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dataloader.errors import InputError
from routing_moe.config.ablate import MOST_TOGETHER

Expert = tuple[int, int]  # row of the route (encoder layers first), expert
ExpertSet = tuple[Expert, ...]  # sorted
BASE: ExpertSet = ()
PLACE = re.compile(r"(enc|dec)(\d+(?:s\d+)?)\.(\d+)")
TASKS = "tasks.csv"  # drops by expert and task


def experts_named(word: str, config) -> ExpertSet:
    """Parses a set such as `enc0.1+dec2.0`. Raises InputError if the model has no such experts."""
    rows = dict(zip(config.row_names, config.routed_rows, strict=True))
    try:
        places = places_of(word)
    except ValueError as error:
        raise InputError(f"--experts {word}: {error}") from None
    for layer, expert in places:
        if layer not in rows or expert >= config.num_experts:
            raise InputError(
                f"--experts {word}: the model has experts 0 to {config.num_experts - 1} in {', '.join(rows)}"
            )
    if len(places) > MOST_TOGETHER:
        raise InputError(f"--experts {word}: name at most {MOST_TOGETHER} experts")
    experts = sorted({(rows[layer], expert) for layer, expert in places})
    if not leaves_every_layer(experts, config.num_experts):
        raise InputError(f"--experts {word}: a layer would have no expert left")
    return tuple(experts)


def leaves_every_layer(experts: Sequence[Expert], per_layer: int) -> bool:
    """Returns whether each layer keeps an expert."""
    rows = [row for row, _ in set(experts)]
    return all(rows.count(row) < per_layer for row in set(rows))


def places_of(name: str) -> list[tuple[str, int]]:
    """Parses a name to [("enc 0", 1), ...], layer and expert. Raises ValueError if the name is invalid."""
    places = [PLACE.fullmatch(part) for part in name.split("+")]
    if not all(places):
        raise ValueError(f"'{name}' names no experts; write enc0.1 for expert 1 of encoder layer 0")
    return [(f"{place[1]} {place[2]}", int(place[3])) for place in places]
