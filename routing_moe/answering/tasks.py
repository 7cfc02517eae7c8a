"""A task with its route, and the answer to a text."""

from dataclasses import dataclass

import torch

from routing_moe.model.task_vectors import NOTHING
from routing_moe.task_choice.choice import TaskChoice


@dataclass(frozen=True, eq=False)
class RoutedTask:
    """A task with its route (L, E), and where the route comes from.

    choice: None for a plain BART. depths: numbers of rows of encoder and decoder.
    """

    name: str
    route_LE: torch.Tensor
    choice: TaskChoice | None
    depths: tuple[int, int]

    @property
    def words(self) -> str:
        """Where the route comes from."""
        return self.choice.words if self.choice else "none: one expert"

    @property
    def seen(self) -> str:
        """What the choice of the route has seen of the task."""
        return self.choice.seen if self.choice else NOTHING

    @property
    def experts(self) -> dict[str, list]:
        """{"encoder": [...], "decoder": [...]}: the expert of each layer, or the weights of all experts."""
        is_one_hot = bool(((self.route_LE == 0) | (self.route_LE == 1)).all())
        rows = self.route_LE.argmax(dim=1) if is_one_hot else self.route_LE
        rows = rows.cpu().double().numpy().round(4).tolist()
        return {
            "encoder": [int(row) if is_one_hot else row for row in rows[: self.depths[0]]],
            "decoder": [int(row) if is_one_hot else row for row in rows[self.depths[0] :]],
        }

    def __str__(self) -> str:
        experts = "; ".join(f"{side} {' '.join(map(str, rows))}" for side, rows in self.experts.items())
        return f"{self.name}: {self.words}; has seen of the task: {self.seen}\n  experts: {experts}"


@dataclass(frozen=True)
class Answer:
    """The answer to a text. score: mean log-probability of its tokens, in nats, as of `option_ranking`.

    option_scores: those of all options, if there are any. was_cut: whether the text is longer than the limit.
    """

    input: str
    answer: str
    score: float
    option_scores: dict[str, float] | None = None
    was_cut: bool = False
