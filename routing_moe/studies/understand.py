"""Analyse the experts of runs: routes, their dynamics, correlations with features of tasks, ablation, a report page.

    bash example_scripts/understand.sh models/moe
    bash example_scripts/understand.sh runs/seed42 runs/seed43 runs/seed44      also the agreement of the runs
    routing-moe recipe understand RUN ...

Results are in RUN/analysis; with several runs, their agreement and the only report.html are in --output_dir. Without
arguments: models/two_stage, which is trained on the embedded gym if necessary. A second call replaces all results, except
for finished scores with ablated experts.
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from routing_moe.config.flags import group
from routing_moe.studies.devices import device
from routing_moe.studies.runs import call_all, call_here
from routing_moe.studies.study import RUNNING, Script, leading_words, run_study
from routing_moe.studies.two_stages import TwoStages, two_stages

WHAT = group("what is analysed")
NO_ABLATION = "none"
CANNOT_BE_ABLATED = 3  # exit code of ablate: one expert per layer, or routes drawn for each example


@dataclass(frozen=True, kw_only=True)
class Understanding(Script):
    # fmt: off
    program = "routing-moe recipe understand"
    usage = "[RUN ...] [flags]"

    runs: tuple[Path, ...] = WHAT((), "run folders (default: models/two_stage)")
    ablate_flags: str = WHAT("--features all", "flags of routing-moe ablate; none: no ablation")
    output_dir: Path = RUNNING(Path("models/understood"), "with several runs: folder of the results for all of them")
    # fmt: on


def understand(flags: Understanding) -> int:
    runs = flags.runs or (Path("models/two_stage"),)
    folder = flags.output_dir if len(runs) > 1 else runs[0] / "analysis"
    names = list(map(str, runs))
    print(
        f"routes, correlations and ablation ({flags.ablate_flags}) of the experts of {' '.join(names)}; on {device()}; output in {folder}",
        flush=True,
    )
    if not flags.runs and (code := two_stages(TwoStages(output_dir=runs[0]))):
        return code
    for run in runs:
        before = ["--before", str(run / "stage1")] if (run / "stage1").is_dir() else []
        code = call_all(
            ["routing_moe.cli.inspect_routes", str(run), *before],
            ["routing_moe.cli.create_gif", "--run", str(run)],
            ["routing_moe.cli.correlate_routes", str(run)],
        ) or ablate(run, flags.ablate_flags)
        if code:
            return code
    if len(runs) == 1:
        return call_here(["routing_moe.cli.report", *names])
    return call_all(
        ["routing_moe.cli.inspect_routes", *names, "--output_dir", str(folder)],
        ["routing_moe.cli.correlate_routes", *names, "--output_dir", str(folder)],
        ["routing_moe.cli.report", *names, "--output_file", str(folder / "report.html")],
    )


def ablate(run: Path, flags: str) -> int:
    """Ablates the experts of a run, if it can be done; returns the exit code."""
    if flags == NO_ABLATION:
        return 0
    if not (run / "run.json").is_file() or not any((run / "best").glob("*.safetensors")):
        reason = "it has no run.json, or no .safetensors weights in best/"
    elif code := call_here(["routing_moe.cli.ablate", str(run), *shlex.split(flags)]):
        if code != CANNOT_BE_ABLATED:
            return code
        reason = "see above"
    else:
        return 0
    print(f"note: {run} is analysed without ablation: {reason}", file=sys.stderr)
    return 0


def main(argv: list[str] | None = None) -> int:
    runs, flags = leading_words(sys.argv[1:] if argv is None else argv)
    return run_study(understand, Understanding, [*(["--runs", *runs] if runs else []), *flags], __doc__)


if __name__ == "__main__":
    sys.exit(main())
