"""LAMA (Petroni et al. 2019): facts as sentences with a gap."""

from collections.abc import Iterator

from dataloader.building.raw_file import RawFile
from dataloader.building.recipe import Hub, Raw, Recipe, Row, one_split, text_to_text

ARCHIVE = "https://dl.fbaipublicfiles.com/LAMA/negated_data.tar.gz!"
TEMPLATES = {
    "date_of_birth": "[X] (born [Y]).",
    "place_of_birth": "[X] was born in [Y] .",
    "place_of_death": "[X] died in [Y] .",
}
GOOGLE_RE = tuple(f"{ARCHIVE}Google_RE/{relation}_test.jsonl" for relation in TEMPLATES)


def read(_: str, *files: RawFile) -> Iterator[Row]:
    """Yields a row for each masked sentence; the template is that of the relation which names the file."""
    for file in files:
        template = TEMPLATES.get(file.name.removesuffix("_test.jsonl"), "")
        for fact in file.json_lines():
            for sentence in fact["masked_sentences"]:
                yield {
                    "masked_sentence": sentence,
                    "template": template,
                    "sub_label": fact.get("sub_label", ""),
                    "obj_label": fact["obj_label"],
                }


def filled_template(row: Row) -> str:
    return row["template"].replace("[X]", row["sub_label"]).replace("[Y]", "[MASK]")


def lama(config: str, *sources: Raw, text="{masked_sentence}", **fields) -> Recipe:
    return text_to_text(
        f"lama-{config}",
        Hub("facebook/lama", config),
        *sources,
        splits=("train",),
        input=text,
        output="{obj_label}",
        terms="CC BY-NC 4.0: non-commercial use",
        **fields,
    )


RECIPES = [
    lama("conceptnet", Raw(read, train=f"{ARCHIVE}ConceptNet/test.jsonl")),
    lama("google_re", Raw(read, train=GOOGLE_RE), text=filled_template),
    lama("squad", Raw(read, train=f"{ARCHIVE}Squad/test.jsonl")),
    lama(
        "trex",
        text=filled_template,
        cut=one_split(lambda n: slice(int(0.8 * n)), lambda n: slice(int(0.99 * n), None)),
    ),
]
