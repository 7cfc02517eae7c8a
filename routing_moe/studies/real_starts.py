"""Where fine-tuning on unseen tasks starts in the study on real tasks."""

from dataclasses import dataclass

from routing_moe.studies.real_arms import ONE

DIRECT, BEST = "direct", "best"


@dataclass(frozen=True)
class Start:
    """Where fine-tuning starts.

    about: for --help. arm: of the first part; None: --model; BEST: that of --best. kind: row of `finetuning.STARTS`. flags:
    of fine-tuning. made: what is made of the arm's runs first, more (further steps) or mean (of all seeds).
    """

    about: str
    arm: str | None
    kind: str = "bart"
    flags: str = ""
    made: str | None = None

    @property
    def is_run(self) -> bool:
        """Whether it is a run folder with a checkpoint in best/, scored without flags of fine-tuning."""
        return self.arm is not None and self.made != "mean" and not self.flags


MERGED = "--route_training merged"
# fmt: off
STARTS = {
    DIRECT: Start("--model itself", None),
    "multitask": Start("one BART after the dense run and as many steps again", ONE),
    "multitask_more": Start("the same and --more_steps", ONE, made="more"),
    "multitask_mean": Start("the mean of the weights of multitask over all seeds: one model, so that its intervals cover fine-tuning alone", ONE, made="mean"),
    "task_random": Start("random routes of tasks, one drawn for the unseen task", "task_random", "moe_random2"),
    "task_random_merged": Start("the mean of its experts", "task_random", "moe_avg", MERGED),
    "best_merged": Start("the mean of the experts of --best", BEST, "moe_avg", MERGED),
    "straight_through": Start("learned routes, that of the task with the nearest texts", "straight_through", "moe"),
    "mhr_mean": Start("mhr, the mean of its experts (MHR-mu)", "mhr", "moe_avg", MERGED),
    "mhr_routes": Start("mhr, only the route is trained (MHR-z)", "mhr", "moe", "--route_training logits"),
}
# fmt: on


def described() -> str:
    """Returns the list of starts for --help."""
    return "\n".join(f"    {name:20}{start.about}" for name, start in STARTS.items())
