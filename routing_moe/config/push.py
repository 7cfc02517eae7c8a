"""The flags of `routing-moe push`."""

from dataclasses import dataclass
from pathlib import Path

from routing_moe.config.flags import REQUIRED, group
from routing_moe.config.plugins import PluginFlags

SHARING = group("sharing")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class PushSettings(PluginFlags):
    program = "routing-moe push"
    usage = "RUN OWNER/NAME [flags, see --help]"

    run: Path = SHARING(REQUIRED, "run folder, or a folder with a checkpoint", metavar="RUN", positional=True)
    name: str = SHARING(REQUIRED, "name on the hub, owner/name; an existing repository gets a new commit", metavar="OWNER/NAME", positional=True)
    checkpoint_name: str | None = SHARING(None, "which checkpoint of the run (default: best)")
    license: str | None = SHARING(None, "licence of the weights for the model card, as the hub writes it, such as apache-2.0 (default: the card says that none is stated)")
    private: bool = SHARING(False, "make a repository that only its owners see")
    dry_run: Path | None = SHARING(None, "only write the files to this new folder; nothing is uploaded", metavar="FOLDER")
# fmt: on
