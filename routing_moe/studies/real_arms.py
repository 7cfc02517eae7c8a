"""The arms of the study on real tasks: ways to spend the same number of steps from the same dense run.

An arm that divides the tasks has a control where there is one: random groups of the same sizes for groups with a
meaning, hidden names for arms that hide them, one expert for experts of each task.
"""

from dataclasses import dataclass

from routing_moe.studies.variants import LORA, POLY

TRAIN, LABELS = "train", "labels"  # the parts of the study with arms


@dataclass(frozen=True)
class Arm:
    """A way to continue the dense run.

    about: for --help. flags: of its training; `Branches` replaces {names}. With {vectors} it has groups of gradient
    vectors of the dense run. control: the arm that it is compared with, beside one BART. divides: whether it divides the
    tasks among experts by a rule of its own, so that it may be the best arm. rate_of: the arm whose tuned rate it has,
    times `factor` (None: its own). hidden: whether task names are hidden (None: as the study says). same_flops: it has
    the FLOPs of `multitask` instead of the steps. default_in, only_in: the parts that have it by default, and may have
    it. steps: the kind of routes of its steps, for the estimate of hours.
    """

    about: str
    flags: str
    control: str | None = None
    divides: bool = False
    rate_of: str | None = None
    factor: float = 1.0
    hidden: bool | None = None
    same_flops: bool = False
    default_in: tuple[str, ...] = ()
    only_in: tuple[str, ...] = (TRAIN, LABELS)
    steps: str = "random"

    @property
    def has_lora(self) -> bool:
        return "--expert_kind lora" in self.flags

    @property
    def has_vectors(self) -> bool:
        return "{vectors}" in self.flags


GRADIENT = "--task_routes {clusters} --taskvecs {vectors}"
RANDOM = (
    "--task_routes random:{clusters}:{seed}%d --taskvecs {vectors}"  # a permutation for each seed and draw
)
MOVING = (
    "--reassign_every {every} --reassign_from {first} --reassign_until {last} --reassign_splits 2"
    " --reassign_max_examples 10"  # every expert reads them each time
)
LEARNED = "{mixture} {router}"
LORA_TASKS = f"{LORA} --lora_rank 4 --lora_alpha 4 --task_routes tasks"
ON = "--base_lr {base_lr}"
BOTH, PLAIN = (TRAIN, LABELS), dict(steps="plain")
ONE, HALF, TWICE = "multitask", "multitask_half", "multitask_double"

# fmt: off
ARMS = {
    ONE: Arm("one BART", "--num_experts 1", default_in=BOTH, **PLAIN),
    HALF: Arm("one BART at half of this rate", "--num_experts 1", rate_of=ONE, factor=0.5, default_in=BOTH, **PLAIN),
    TWICE: Arm("one BART at twice this rate", "--num_experts 1", rate_of=ONE, factor=2.0, default_in=BOTH, **PLAIN),
    "multitask_hidden": Arm("one BART, names hidden", "--num_experts 1", rate_of=ONE, hidden=True, default_in=BOTH, **PLAIN),
    "wide": Arm("one BART of twice the feed-forward width, with the FLOPs of multitask", "--num_experts 1 --widen_ffn 2", same_flops=True, **PLAIN),
    "token": Arm("one BART with a learned token for each task, names hidden", "--expert_kind token --task_routes tasks", control="multitask_hidden", hidden=True, default_in=(LABELS,), **PLAIN),
    "random_1": Arm("groups of the sizes of gradient, drawn at random for each seed", RANDOM % 1, default_in=BOTH),
    "random_2": Arm("the same, drawn again", RANDOM % 2, rate_of="random_1", default_in=BOTH),
    "random_hidden": Arm("random_1, names hidden", RANDOM % 1, control="multitask_hidden", hidden=True, default_in=BOTH),
    "gradient": Arm("an expert for each group of tasks with similar gradients of the dense run", GRADIENT, control="random_1", rate_of="random_1", divides=True, default_in=BOTH),
    "refined": Arm("gradient, and tasks move to the expert of lowest loss, names hidden", f"{GRADIENT} {MOVING}", control="random_hidden", rate_of="random_hidden", divides=True, hidden=True, default_in=(TRAIN,)),
    "refined_random": Arm("random_1, and tasks move to the expert of lowest loss, names hidden", f"{RANDOM % 1} {MOVING}", control="random_hidden", rate_of="random_hidden", divides=True, hidden=True, default_in=(LABELS,)),
    "ontology": Arm("an expert for each category of the ontology", "--task_routes ontology", control="random_ontology", rate_of="random_ontology", divides=True),
    "random_ontology": Arm("groups of these sizes, drawn at random for each seed", "--task_routes random:ontology:{seed}1"),
    "task_random": Arm("3 experts, a random one for each task and layer", "{mixture} --task_level_random_routing", divides=True, default_in=(LABELS,)),
    "straight_through": Arm("3 experts, learned one-hot routes", LEARNED, control="task_random", divides=True, steps="straight_through"),
    "softmax": Arm("3 experts, learned weights", f"{LEARNED} --router_mode softmax", divides=True, steps="dense"),
    "oracle": Arm("two experts: for tasks with their labels, for those with permuted ones", "--task_routes {gym}/oracle_routes.json", default_in=(LABELS,), only_in=(LABELS,)),
    "lora": Arm("one low-rank expert for all tasks, on the frozen dense run", f"{LORA} --num_experts 1", **PLAIN),
    "lora_random": Arm("low-rank experts along random_1", f"{LORA} {RANDOM % 1}", **PLAIN),
    "lora_gradient": Arm("low-rank experts along gradient", f"{LORA} {GRADIENT}", control="lora_random", rate_of="lora_random", divides=True, **PLAIN),
    "lora_tasks": Arm("a low-rank expert for each task", LORA_TASKS, control="lora", divides=True, **PLAIN),
    "lora_trained": Arm("lora, and the BART is trained on, at the rate of multitask", f"{LORA} --num_experts 1 {ON}", rate_of="lora", **PLAIN),
    "lora_tasks_trained": Arm("lora_tasks, and the BART is trained on, too", f"{LORA_TASKS} {ON}", control="lora_trained", rate_of="lora_tasks", divides=True, **PLAIN),
    "mhr": Arm("3 low-rank experts, factors averaged by a table of logits per task, with 4 splits", f"{POLY} --lora_splits 4 --num_experts 3", control="lora", divides=True, **PLAIN),
}
# fmt: on
ONE_BART = (ONE, HALF, TWICE)
RATES = (1.25e-4, 2.5e-4, 5e-4)
LORA_FACTOR = 4  # low-rank experts need higher rates


def arms_of(part: str) -> tuple[str, ...]:
    """Returns the arms that a part of the study may have."""
    return tuple(name for name, arm in ARMS.items() if part in arm.only_in)


def default_arms(part: str) -> tuple[str, ...]:
    return tuple(name for name, arm in ARMS.items() if part in arm.default_in)


def rate_of(name: str) -> str:
    """Returns the arm whose learning rate is tuned for this one."""
    return ARMS[name].rate_of or name


def described(part: str) -> str:
    """Returns the list of arms for --help."""
    lines = [f"    {name:20}{ARMS[name].about}" for name in arms_of(part)]
    return "\n".join([*lines, "", f"by default: {' '.join(default_arms(part))}"])
