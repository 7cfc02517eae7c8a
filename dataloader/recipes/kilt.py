"""KILT (Petroni et al. 2021): knowledge-intensive tasks in one format."""

from collections.abc import Callable, Iterator

from dataloader.building.raw_file import RawFile
from dataloader.building.recipe import Hub, Raw, Recipe, Row, text_to_text
from dataloader.building.text import clean, distinct, no_line_feeds, tabs

FILES = "http://dl.fbaipublicfiles.com/KILT/"


def read(_: str, file: RawFile) -> Iterator[Row]:
    for item in file.json_lines():
        output = [{"answer": answer.get("answer", "")} for answer in item["output"]]
        yield {"input": item["input"], "output": output}


def answers(row: Row) -> list[str]:
    """Returns all answers; parquet files have them as a list of structures, or as a structure of lists."""
    output = row["output"]
    return output["answer"] if isinstance(output, dict) else [item["answer"] for item in output]


def distinct_answers(row: Row) -> list[str]:
    """Returns the answers that are not empty, each once."""
    return distinct(filter(None, answers(row)))


def kilt(
    name: str,
    config: str,
    output: Callable[[Row], list[str]] = answers,
    shorten: Callable[[str], str] = no_line_feeds,
) -> Recipe:
    sources = (
        Raw(read, train=f"{FILES}{config}-train-kilt.jsonl", validation=f"{FILES}{config}-dev-kilt.jsonl"),
        Hub("facebook/kilt_tasks", config),
    )
    return text_to_text(
        f"kilt_{name}",
        *(reversed(sources) if config == "trex" else sources),  # its original files have 1.7 GB
        input=lambda row: shorten(row["input"]),
        output=lambda row: tabs(output(row)),
    )


RECIPES = [
    kilt("ay2", "aidayago2"),
    kilt("fever", "fever", lambda row: distinct(answers(row)), clean),
    kilt("hotpotqa", "hotpotqa"),
    kilt("nq", "nq", distinct_answers),
    kilt("trex", "trex", distinct_answers),
    kilt("wow", "wow"),
    kilt("zsre", "structured_zeroshot", distinct_answers),
]
