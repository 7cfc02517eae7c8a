"""Seconds of optimizer steps and of answers on this machine, for the estimate of reproduction.py."""

import math
import os
from dataclasses import dataclass

from benchmarks import measuring, predict, train_step
from benchmarks.reproduction_batches import DeviceBatches
from benchmarks.reproduction_data import GymData

# The kinds of steps in a plan, and the variants of train_step.py that measure them.
KINDS = {"plain": "plain", "straight_through": "straight_through", "dense": "softmax", "random": "random"}
ANSWERED = {"plain": "plain", "dense": "soft"}  # kinds of answering, and the variants of predict.py
MEASURED = {"cpu": (2, 8), "cuda": (4, 32)}  # examples in the micro-batches whose times are measured
MOST_ANSWERED = {"cpu": 8}  # most rows in the batches of answers that are timed, where time allows no more
ANSWER_ROUNDS = 3  # timed batches of answers


@dataclass(frozen=True)
class Times:
    """What was measured, and the batches of runs.

    passes: {kind: {padded tokens: seconds forward and backward}} of two micro-batches. updates: {kind:
    seconds of an optimizer update}. answers: {(kind, section): {rows: seconds}} of two batches. at_once:
    {section: rows of a batch of answers}. load: the load average of the machine before.
    """

    batches: DeviceBatches
    passes: dict[str, dict[int, float]]
    updates: dict[str, float]
    answers: dict[tuple[str, str], dict[int, float]]
    at_once: dict[str, int]
    load: float

    @classmethod
    def measure(cls, size: str, data: GymData, batches: DeviceBatches, works: list, answers: list, args):
        """Returns the times of all kinds of steps and answers in the plan."""
        device, load = args.device, os.getloadavg()[0]
        kinds = [kind for kind in KINDS if any(each.kind == kind for work in works for each in work)]
        used = {(each.kind, each.section) for files in answers for each in files}
        passes, updates = {kind: {} for kind in kinds}, {}
        S, T = data.mean_lengths("train")
        for B in MEASURED[device] if kinds else ():
            measured = time_steps(size, (B, S, T), kinds, device, args)
            for kind in kinds:
                passes[kind][B * (S + T)] = measured[kind]["forward_backward_s"]
                updates[kind] = measured[kind]["optimizer_s"]
        seconds = {each: {} for each in sorted(used)}
        at_once = {part: data.rows_at_once(part, batches.long_examples) for part in ("train", "test")}
        for section, rows in at_once.items():
            own = [kind for kind in ANSWERED if (kind, section) in used]
            large = min(rows, MOST_ANSWERED.get(device, rows))
            for B in sorted({max(1, large // 4), large}) if own else ():
                measured = time_answers(size, B, data.mean_lengths(section), own, device, args)
                for kind in own:
                    seconds[kind, section][B] = measured[kind]
        return cls(batches, passes, updates, seconds, at_once, load)

    def step(self, kind: str, tokens: float, micro_batches: float) -> float:
        """Returns the seconds of an optimizer step with these padded tokens in so many micro-batches."""
        per_token, per_pass = line_through(self.passes[kind])
        return per_token * tokens + per_pass * micro_batches + self.updates[kind]

    def answering(self, kind: str, section: str, rows: int) -> float:
        """Returns the seconds of answering so many rows together, in batches of at most `at_once` rows."""
        per_row, per_batch = line_through(self.answers[kind, section])
        return per_row * rows + per_batch * math.ceil(rows / self.at_once[section])


def line_through(measured: dict[int, float]) -> tuple[float, float]:
    """Returns (seconds per unit, seconds per call), at least 0, that fit {units: seconds} of two calls."""
    (small, small_s), (large, large_s) = min(measured.items()), max(measured.items())
    per_unit = min(max(large_s - small_s, 0) / max(large - small, 1), large_s / large)
    return per_unit, large_s - per_unit * large


def time_steps(size: str, shape: tuple[int, int, int], kinds: list[str], device: str, args) -> dict:
    """Returns {kind: medians of `train_step`} for micro-batches of a shape (B, S, T)."""
    B, S, T = shape
    settings = train_step.Settings(
        model_size=size,
        num_experts=args.num_experts,
        batch_size=B,
        source_length=S,
        target_length=T,
        steps=args.steps,
        variants=[KINDS[kind] for kind in kinds],
        device=device,
        mixed_precision=args.precision,
    )
    measuring.prepare(settings)
    measured = train_step.measure_with(settings)
    return {kind: measured[KINDS[kind]] for kind in kinds}


def time_answers(size: str, B: int, lengths: tuple[int, int], kinds: list[str], device: str, args):
    """Returns {kind: median seconds of generating the answers to B rows of these lengths}."""
    settings = predict.Settings(
        model_size=size,
        num_experts=args.num_experts,
        batch_size=B,
        source_length=lengths[0],
        new_tokens=lengths[1],
        num_beams=args.num_beams,
        steps=ANSWER_ROUNDS,
        variants=[ANSWERED[kind] for kind in kinds],
        device=device,
        mixed_precision=args.precision,
    )
    measuring.prepare(settings)
    model = measuring.build_routing_model(settings, args.num_experts).eval()
    plain = model.to_bart(measuring.one_hot_routes(model, 1)[0])
    calls = {name: predict.make_call(name, model, plain, settings) for name in settings.variants}
    measured = measuring.measure(calls, ANSWER_ROUNDS)
    return {kind: measured[ANSWERED[kind]]["median_s"] for kind in kinds}
