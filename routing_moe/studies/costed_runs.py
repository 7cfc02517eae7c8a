"""Runs of which the work is known before they start, for the estimate of hours."""

from dataclasses import dataclass, field

from routing_moe.studies.runs import Run

STEP = 32  # examples in a training step
ROWS_OF_SAMPLE = 40  # about; of which gradient vectors compute gradients at six checkpoints
ABLATION = "ablation"  # instead of a number of times: once for each set of ablated experts


@dataclass(frozen=True)
class Work:
    """Optimizer steps of a run, as many at each batch size, on rows of a section of the split."""

    kind: str
    steps: int
    batches: tuple[int, ...] = (STEP,)
    section: str = "train"


@dataclass(frozen=True)
class Answering:
    """Files that a run answers. samples: all, first, or seeds. most: rows of each file, None: all. times: how often."""

    kind: str
    section: str
    part: str
    samples: tuple[str, ...] = ("first",)
    most: int | None = None
    times: int | str = 1


@dataclass(frozen=True)
class CostedRun(Run):
    """A run with its step of the study, and its work."""

    step: str = ""
    work: tuple[Work, ...] = field(default=(), compare=False)
    answers: tuple[Answering, ...] = field(default=(), compare=False)
