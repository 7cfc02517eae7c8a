"""Shared by the tests of mistakes in fine-tuning: the errors of its command."""

from mistakes import Place, refused
from tiny_grids import finetune

MIX = dict(moe_init=True, init_dir="<run>")  # a start from the mixture of `starts`


def complaint(place: Place, capsys, starts=None, **changed) -> list[str]:
    """Returns the lines of the errors.

    In values, <run> and so on are folders of `starts`, the others as in `Place`.
    """
    chosen = dict(task_dir=place.gym / "plural", max_output_length=6) | changed
    chosen = {name: filled_in(place, value, starts) for name, value in chosen.items()}
    output_dir = chosen.pop("output_dir", place.out)
    output = refused(place, capsys, lambda: finetune(place.gym, place.bart, output_dir, **chosen))
    return [line for line in output.err.splitlines() if not line.startswith("usage:")]


def filled_in(place: Place, text, starts=None):
    for name, folder in (starts or {}).items():
        text = text.replace(f"<{name}>", str(folder)) if isinstance(text, str) else text
    return place.filled_in(text)
