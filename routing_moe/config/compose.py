"""The flags of `routing-moe compose`."""

from dataclasses import dataclass
from pathlib import Path

from routing_moe.config.choices import PRECISIONS
from routing_moe.config.flags import AT_LEAST_1, REQUIRED, Command, Range, group

COMPOSED = group("what is composed")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class ComposeSettings(Command):
    program = "routing-moe compose"
    usage = "RUN --num_experts E [flags, see --help]"

    run: Path = COMPOSED(REQUIRED, "run folder of a mixture whose tasks have one expert each, in all layers", positional=True)
    num_experts: int = COMPOSED(REQUIRED, "experts of a layer that the routes are composed of, fewer than the mixture has in use", range=Range(lambda value: value >= 2, "at least 2"))
    checkpoint_name: str = COMPOSED("last", "its checkpoint")
    rows: int = COMPOSED(8, "first train rows of each file, that losses are computed from", range=AT_LEAST_1)
    output_file: Path | None = COMPOSED(None, "where the routes are written (default: RUN/composed<E>_routes.json)")
    mixed_precision: str = COMPOSED("auto", "precision of matrix products", choices=PRECISIONS)
# fmt: on

    @property
    def file(self) -> Path:
        return self.output_file or self.run / f"composed{self.num_experts}_routes.json"
