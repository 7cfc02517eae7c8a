"""Seconds of `Routed.answers` along a one-hot route, compared with transformers' generate.

    python benchmarks/answer.py --checkpoint models/moe --task boolq --inputs new.txt

The exported BART of the route and `Routed` answer the same texts in the same batches. Lines of the file are
repeated until there are --lines. `Routed` also scores its answers. Prints one JSON line; README.md explains
it.
"""

import sys
import tempfile
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from benchmarks.measuring import MEASURED
from routing_moe import Routed
from routing_moe.answering.queries import Query, read_queries
from routing_moe.answering.routed import CHUNK
from routing_moe.config.flags import AT_LEAST_1, REQUIRED
from routing_moe.evaluation.batches import ExampleRoutes, answering_batches, batch_size
from routing_moe.evaluation.scored_files import Pool, batch_of


@dataclass(frozen=True, kw_only=True)
class AnswerSettings(measuring.BenchmarkSettings):
    program = "python -m benchmarks.answer"
    checkpoint: str = MEASURED(REQUIRED, "run or checkpoint with one-hot routes")
    task: str = MEASURED(REQUIRED, "a task of its training")
    inputs: str = MEASURED(REQUIRED, "file of texts")
    lines: int = MEASURED(CHUNK, "texts to answer in each round", range=AT_LEAST_1)
    num_beams: int | None = MEASURED(None, "beams (default: those of the training)", range=AT_LEAST_1)
    rounds: int = MEASURED(7, "rounds; each runs both", range=AT_LEAST_1)


def main(argv: list[str] | None = None) -> int:
    return measuring.run_benchmark(run, AnswerSettings, argv, __doc__)


def run(settings: AnswerSettings) -> dict:
    beams = {} if settings.num_beams is None else {"num_beams": settings.num_beams}
    routed = Routed.load(settings.checkpoint, **beams)
    task = routed.task(settings.task)
    with tempfile.TemporaryDirectory() as folder:
        routed.export(task, f"{folder}/bart")
        plain = AutoModelForSeq2SeqLM.from_pretrained(f"{folder}/bart").to(routed.model.device).eval()
    queries = list(islice(cycle(read_queries(settings.inputs)), settings.lines))
    answers: dict[str, list[str]] = {}

    def by_routed() -> None:
        answers["routed"] = [reply.answer for reply in routed.answers(task, queries)]

    def by_transformers() -> None:
        answers["transformers"] = generated(routed, task, plain, queries)

    device = routed.model.device.type
    calls = {"routed": by_routed, "transformers": by_transformers}
    timed = {name: measuring.timed(call, device) for name, call in calls.items()}
    variants = measuring.measure(timed, settings.rounds)
    for times in variants.values():
        times["texts_per_second"] = settings.lines / times["median_s"]
    return {
        "variants": variants,
        "ratios": measuring.ratios(variants, [("transformers", "routed")], {"": "median_s"}),
        "equal_answers": sum(map(str.__eq__, *answers.values())),
    }


def generated(routed: Routed, task, plain, queries: list[Query]) -> list[str]:
    """Returns the answers of the exported BART, in batches as those of `routed`."""
    pool = Pool([routed.task_file(task.name, queries)])
    routes = [ExampleRoutes.of_files([task.route_LE[None]], pool.sizes)]
    size = batch_size(routed.model, routed.decoding)
    answers = [""] * len(queries)
    for batch in answering_batches(routed.model, pool, routes, routed.decoding, size):
        inputs = batch_of(pool.encoded, batch.indices, plain)
        del inputs["labels"]
        with torch.no_grad():
            sequences = plain.generate(**inputs)
        texts = routed.tokenizer.batch_decode(sequences, skip_special_tokens=True)
        for index, text in zip(batch.indices, texts, strict=True):
            answers[index] = text.strip()
    return answers


if __name__ == "__main__":
    sys.exit(main())
