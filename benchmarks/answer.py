"""Texts per second of `Routed.answers` along a one-hot route, compared with transformers' generate.

    python benchmarks/answer.py --checkpoint models/moe --task boolq --inputs new.txt --lines 10000

The exported BART of the route and `Routed` answer the same texts in the same batches in this process, chunk
after chunk, each first in every other chunk. Lines of the file are repeated until there are --lines. `Routed`
also scores its answers. Prints one JSON line: texts per second, the median ratio of the chunks with its
quartiles, the number of equal answers, and the memory of this process over the run.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import torch
from transformers import AutoModelForSeq2SeqLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from routing_moe import Routed
from routing_moe.answering.queries import Query, read_queries
from routing_moe.answering.routed import CHUNK
from routing_moe.evaluation.batches import answering_batches, batch_size
from routing_moe.evaluation.pool import Pool, Routes


@dataclass(frozen=True)
class Settings:
    checkpoint: str
    task: str
    inputs: str
    lines: int
    threads: int
    num_beams: int | None
    device: str = "cpu"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="run or checkpoint with one-hot routes")
    parser.add_argument("--task", required=True, help="a task of its training")
    parser.add_argument("--inputs", required=True, help="file of texts")
    parser.add_argument("--lines", type=int, default=10_000, help="texts to answer (default 10000)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--num_beams", type=int, help="beams (default: those of the training)")
    settings = Settings(**vars(parser.parse_args(argv)))
    torch.set_num_threads(settings.threads)
    beams = {} if settings.num_beams is None else {"num_beams": settings.num_beams}
    routed = Routed.load(settings.checkpoint, **beams)
    settings = replace(settings, device=routed.model.device.type)
    task = routed.task(settings.task)
    with tempfile.TemporaryDirectory() as folder:
        routed.export(task, f"{folder}/bart")
        plain = AutoModelForSeq2SeqLM.from_pretrained(f"{folder}/bart").to(routed.model.device).eval()
    queries = islice(itertools.cycle(read_queries(settings.inputs)), settings.lines)
    seconds, memory, equal = {"ours": [], "transformers": []}, [], 0
    for number in itertools.count():
        if not (chunk := list(islice(queries, CHUNK))):
            break
        for name in ("ours", "transformers") if number % 2 else ("transformers", "ours"):
            started = time.perf_counter()
            if name == "ours":
                own = [found.answer for found in routed.answers(task, chunk)]
            else:
                other = list(generated(routed, task, plain, chunk))
            seconds[name].append(time.perf_counter() - started)
        equal += sum(map(str.__eq__, own, other))
        memory.append(psutil.Process().memory_info().rss / 1e9)
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["transformers"], strict=True)]
    variants = {name: {"texts_per_second": settings.lines / sum(own)} for name, own in seconds.items()}
    measuring.print_report(
        "answer",
        settings,
        psutil.getloadavg()[0],
        variants=variants,
        ratios={"speed_over_transformers": statistics.median(ratios)},
        quartiles=np.quantile(ratios, [0.25, 0.75]).tolist(),
        equal_answers=equal,
        memory_gb={"after_a_tenth": memory[len(memory) // 10], "at_the_end": memory[-1], "most": max(memory)},
    )


def generated(routed: Routed, task, plain, chunk: list[Query]) -> Iterator[str]:
    """Yields the answers of the exported BART to a chunk, in the order of its texts."""
    file = routed.task_file(task.name, chunk)
    pool = Pool([file])
    routes = [Routes.of_files([task.route_LE[None]], pool.sizes)]
    size = batch_size(routed.model, routed.decoding)
    answers = [""] * len(chunk)
    for batch in answering_batches(routed.model, pool, routes, routed.decoding, size):
        inputs = pool.batch(batch.indices, plain)
        del inputs["labels"]
        with torch.no_grad():
            sequences = plain.generate(**inputs)
        texts = routed.tokenizer.batch_decode(sequences, skip_special_tokens=True)
        for index, text in zip(batch.indices, texts, strict=True):
            answers[index] = text.strip()
    yield from answers


if __name__ == "__main__":
    main()
