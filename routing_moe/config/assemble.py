"""The flags of the commands that make models from models, and of `routing-moe push`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataloader.errors import InputError
from routing_moe.config.choices import MERGERS
from routing_moe.config.flags import NOT_NEGATIVE, POSITIVE, REQUIRED, SEED, Command, Range, group
from routing_moe.config.plugins import PluginFlags
from routing_moe.config.shared import BART_BASE, GivenTexts

MODELS, MERGING, OUTPUT = group("models"), group("merging"), group("what is written")
ROUTES, EXPERTS, SHARING = group("routes"), group("experts"), group("sharing")
ASSEMBLED_FILE = "assembled.json"  # what a mixture was made of
ADAPTER_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"  # of an adapter of peft


def named_places(flag: str, entries: Sequence[str], unnamed: bool = False) -> dict[str, str]:
    """Returns {name: place} of entries NAME=PLACE. unnamed: the name may be left out, and is the folder's.

    Raises InputError.
    """
    places: dict[str, str] = {}
    for entry in entries:
        name, equals, place = entry.partition("=")
        own_name = Path(entry.partition("@")[0]).name
        if unnamed and (not equals or Path(entry).exists()):  # a folder may have = in its name
            name, place = Path(entry).resolve().name if Path(entry).exists() else own_name, entry
        if not (name and place):
            raise InputError(f"--{flag} {entry}: give NAME=PLACE, such as {own_name.strip('=')}=PLACE")
        if name in places:
            raise InputError(f"--{flag}: {places[name]} and {place} have the name {name}; give another NAME=")
        places[name] = place
    return places


# fmt: off
@dataclass(frozen=True, kw_only=True)
class AssembleSettings(GivenTexts):
    program = "routing-moe assemble"

    experts: tuple[str, ...] = MODELS(REQUIRED, "tasks and their models: all adapters of peft (a folder or a hub name owner/name[@revision]; needs the extra: pip install .[peft]), or all fine-tuned plain BARTs (a folder, a hub name, a file of weights, a run with one expert)", metavar="NAME=PLACE")
    base: str = MODELS(REQUIRED, "plain model that they were made from: a folder, a hub name or a run with one expert; its embeddings, tokenizer and generation settings are those of the mixture", metavar="PLACE")
    output_dir: Path = OUTPUT(REQUIRED, "new folder of the checkpoint")
    keep_existing: bool = OUTPUT(False, "succeed without writing if the checkpoint exists and is made from the same files")

    @property
    def keeps(self) -> bool:
        """Whether the checkpoint exists and stays."""
        return self.keep_existing and (self.output_dir / ASSEMBLED_FILE).is_file()

    @property
    def places(self) -> dict[str, str]:
        """{name: place} of the experts."""
        return named_places("experts", self.experts)


@dataclass(frozen=True, kw_only=True)
class AverageSettings(PluginFlags):
    program = "routing-moe average"

    runs: tuple[str, ...] = MODELS(REQUIRED, "runs, checkpoints, saved plain models or hub names, of equal size and vocabulary; of a single one, a mixture, the experts are merged; beside others, it counts as their mean", metavar="PLACE")
    checkpoint_name: str | None = MODELS(None, "which checkpoint of each run (default: best)")
    merger: str = MERGING("mean", "mean: of the weights, with one model in memory at a time. The others are of the weight differences from --base, with all models in memory in float32. task_arithmetic: their sum; magnitude_prune: the sum of the largest; ties: the mean of the largest that agree in sign; dare, dare_ties: the same two of random ones, rescaled", choices=MERGERS)
    base: str | None = MERGING(None, "plain model that all runs started from: a folder, a hub name or a run with one expert (not for mean, nor for the low-rank experts of a mixture, which share theirs)", metavar="PLACE")
    density: float | None = MERGING(None, "share of the differences that magnitude_prune, ties, dare and dare_ties keep, such as 0.2", range=Range(lambda value: 0 < value <= 1, "greater than 0 and at most 1"))
    trim: str = MERGING("model", "what --density is a share of: all weights of a model, as in the paper on TIES, or each tensor, as in peft, which takes less than half of the memory", choices=("model", "tensor"))
    lora_parts: str | None = MERGING(None, "what is merged of the low-rank experts of a single mixture. products: their updates s B A; factors: A and B apart, as peft's combinations without svd do (default: products)", choices=("products", "factors"))
    scale: float | None = MERGING(None, "factor of the merged difference (default: 1)", range=POSITIVE)
    seed: int = MERGING(42, "seed of the random share", range=SEED)
    output_dir: Path = OUTPUT(REQUIRED, "new folder of the checkpoint, a model of one expert")


@dataclass(frozen=True, kw_only=True)
class ImportGgufSettings(Command):
    program = "routing-moe import-gguf"

    file: Path = MODELS(REQUIRED, "GGUF file of a plain model, whose weights are dequantized; needs the extra: pip install .[gguf]", metavar="FILE", positional=True)
    output_dir: Path = OUTPUT(REQUIRED, "new folder of the model in float32, for --model")


@dataclass(frozen=True, kw_only=True)
class PushSettings(PluginFlags):
    program = "routing-moe push"

    run: Path = SHARING(REQUIRED, "run folder, or a folder with a checkpoint", metavar="RUN", positional=True)
    name: str = SHARING(REQUIRED, "name on the hub, owner/name; an existing repository gets a new commit", metavar="OWNER/NAME", positional=True)
    checkpoint_name: str | None = SHARING(None, "which checkpoint of the run (default: best)")
    license: str | None = SHARING(None, "licence of the weights for the model card, as the hub writes it, such as apache-2.0 (default: the card says that none is stated)")
    private: bool = SHARING(False, "make a repository that only its owners see")
    dry_run: Path | None = SHARING(None, "only write the files to this new folder; nothing is uploaded", metavar="FOLDER")


@dataclass(frozen=True, kw_only=True)
class MergeSettings(PluginFlags):
    program = "routing-moe merge"

    routes_from: str = ROUTES(REQUIRED, "a run (of this or the published code), a checkpoint of this code, or a hub name owner/name[@revision]")
    routes_checkpoint_name: str | None = ROUTES(None, "which checkpoint of a run (default: best)")
    model: str | None = EXPERTS(None, f"plain model: a hub name or a folder (default: that of the run, else {BART_BASE})")
    vanilla_checkpoint: str | None = EXPERTS(None, "weights instead of those of --model: a file, a folder, a run with one expert, or a hub name")
    init_eps: float = EXPERTS(1e-8, "standard deviation of the noise added to each copy", range=NOT_NEGATIVE)
    seed: int = EXPERTS(42, "seed of the noise", range=SEED)
    output_dir: str = OUTPUT(REQUIRED, "run folder of stage 2")
    checkpoint_name: str = OUTPUT("init", "name of the checkpoint's folder in --output_dir")
    keep_existing: bool = OUTPUT(False, "succeed without writing if the checkpoint exists and is made from the same files")
# fmt: on

    @property
    def target(self) -> Path:
        return Path(self.output_dir) / self.checkpoint_name
