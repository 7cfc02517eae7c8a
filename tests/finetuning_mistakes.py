"""What the tests of mistakes in fine-tuning share: what a user of its command is told."""

from mistakes import Place, refused
from tiny_grids import finetune

MIX = dict(moe_init=True, init_dir="<run>")  # a start from the mixture of `starts`


def complaint(place: Place, capsys, starts=None, **changed) -> list[str]:
    """The lines that are told. In values <run> and so on are folders of `starts`, others as in `Place`."""
    chosen = dict(task_dir=place.gym / "plural", max_output_length=6) | changed
    chosen = {name: filled_in(place, value, starts) for name, value in chosen.items()}
    output_dir = chosen.pop("output_dir", place.out)
    told = refused(place, capsys, lambda: finetune(place.gym, place.bart, output_dir, **chosen))
    return [line for line in told.err.splitlines() if not line.startswith("usage:")]


def filled_in(place: Place, text, starts=None):
    for name, folder in (starts or {}).items():
        text = text.replace(f"<{name}>", str(folder)) if isinstance(text, str) else text
    return place.filled_in(text)
