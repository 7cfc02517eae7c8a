"""The variants and the budgets of the conflict study.

A variant is a row with the flags of its training; a budget, the numbers of steps at a level of conflict.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from routing_moe.studies.variants import POLY_ROUTES


@dataclass(frozen=True)
class Budget:
    """Steps of every variant at a level.

    total: including those of the dense run whose weights and gradients a variant starts from. dense: of this
    run. refinement: the step of a refined mixture after which tasks no longer move.
    """

    total: int
    dense: int
    refinement: int

    @property
    def refinement_run(self) -> int:
        """The steps of a run of which only the routes are used: it ends with the last re-assignment."""
        return self.refinement + 1  # tasks do not move after the last step of a run


# {(conflict, skills): budget}. On tuning gyms (seeds 101 to 103), a tuned dense model answers about half of the
# contested rows after so many steps; of 36 skills a third, also with more steps. Conflict 0 has the steps of
# conflict 1.
BUDGETS = {
    (0.5, 16): Budget(total=1100, dense=700, refinement=300),
    (1.0, 16): Budget(total=1300, dense=700, refinement=300),
    (1.0, 36): Budget(total=2800, dense=1600, refinement=300),
}
DENSE_RATE = 0.006  # of the dense run
MIXTURE_RATE = 0.012  # of mixtures that start from it: an expert has few of the rows of a step
# On gyms of seeds 101 and 11 to 15: of 0.012 some runs diverge, and the others gain at most 0.004.
ORACLE_RATE = 0.006
BASE_RATE = 0.1  # of a trained BART, times the rate of its low-rank experts
MORE_RATES = (0.048, 0.096)  # of the grid for low-rank experts, which need higher rates


@dataclass(frozen=True)
class Variant:
    """A way to train on a conflict gym.

    about: for --help. flags: of the training; `ConflictGym` replaces {names}. With {dense_run} it starts from
    the dense run, whose steps count; with {refinement} or {composed_routes} it has routes of a refinement,
    whose steps count, too. {side}: the number of encoder-side parts. width: of the BART. rate_of: the variant
    whose learning rate it has (None: its own). rate: this rate, chosen on gyms of seeds 101 to 103; None: it
    is tuned. flops_of: the variant of which its training has the FLOPs instead of the steps. first_stage: the
    variant that is trained for half of the steps, whose routes are then kept. unseen: the flags of each
    scoring of the unseen tasks.
    """

    about: str
    flags: str
    width: int = 16
    rate_of: str | None = None
    rate: float | None = None
    flops_of: str | None = None
    first_stage: str | None = None
    unseen: tuple[str, ...] = ("",)

    @property
    def has_lora(self) -> bool:
        """Whether its experts are of low rank."""
        return "--expert_kind lora" in self.flags

    @property
    def is_refined(self) -> bool:
        """Whether tasks move in its training."""
        return "--reassign_every" in self.flags

    @property
    def has_dense_run(self) -> bool:
        """Whether it has weights or vectors of the dense run, whose steps count."""
        return "{dense_run}" in self.flags or "{vectors}" in self.flags

    @property
    def has_refined_routes(self) -> bool:
        """Whether its routes are those of another run, the refinement."""
        return "{refinement}" in self.flags or "{composed_routes}" in self.flags


NEAREST_CLUSTER = "nearest_cluster-"  # prefix of scores along other routes than those of lowest loss
BY_LOSS_AND_VECTORS = ("--task_routes lowest_loss", f"--taskvecs {{vectors}} --prefix {NEAREST_CLUSTER}")

MIXTURE = "--num_experts {side} --init_eps 1e-2"
LEARNED = (
    f"{MIXTURE} --router_lr {{router_lr}} --minimum_tau 0.3 --anneal_rate {{anneal_rate}} "
    "--task_model_lr {router_lr} --taskvecs_dim 16"
)
FROM_DENSE = (
    "--vanilla_checkpoint {dense_run} --init_eps 1e-2 --hide_task_names --taskvecs {vectors} --task_routes"
)
REASSIGNED = "--reassign_every 50 --reassign_from 100 --reassign_until {last_move} --reassign_splits 2"
REFINED = f"{FROM_DENSE} clusters:auto {REASSIGNED}"
# The base is the dense run, frozen: an untrained one would leave its embeddings random. BARTs have width 16.
LORA = "--expert_kind lora --lora_rank 4 --lora_alpha 4"
LORA_OF_DENSE = f"{LORA} --vanilla_checkpoint {{dense_run}} --hide_task_names"
POLY = f"{LORA_OF_DENSE} --num_experts {{side}} {POLY_ROUTES} --task_model_lr {{router_lr}}"
STAGE_2 = (
    "--checkpoint_name init --router_mode softmax --router_lr 0 --task_model_lr 0 --initial_tau 300 "
    "--minimum_tau 1 --anneal_rate {anneal_rate_of_average}"
)

# fmt: off
VARIANTS = {
    "dense": Variant("one BART of width 16", "--num_experts 1"),
    "dense_flops": Variant("dense for the number of steps that costs the FLOPs of refined, with all its stages", "--num_experts 1", rate_of="dense", flops_of="refined"),
    "straight_through": Variant("4 experts (of 36 skills 6), learned one-hot routes", LEARNED),
    "softmax": Variant("the same with learned weights", f"{LEARNED} --router_mode softmax"),
    "two_stage": Variant("softmax for half of the steps, then new experts with its routes, frozen, from average to learned", STAGE_2, first_stage="softmax"),
    "clusters": Variant("an expert for each cluster of gradient vectors, from the weights of the dense run", f"{FROM_DENSE} clusters:auto", rate=MIXTURE_RATE, unseen=BY_LOSS_AND_VECTORS),
    "refined": Variant("clusters, but tasks move to the expert of lowest loss", REFINED, rate=MIXTURE_RATE, unseen=BY_LOSS_AND_VECTORS),
    "refined_composed": Variant("a new mixture along the refined clusters, composed of 4 (6) experts per layer", f"{FROM_DENSE} {{composed_routes}}", rate_of="refined", unseen=BY_LOSS_AND_VECTORS),
    "oracle": Variant("4 (6) experts, the true encoder and decoder parts", "--init_eps 1e-2 --task_routes {gym}/oracle_routes.json", rate=ORACLE_RATE),
    # not by default
    "lora_oracle": Variant("low-rank experts of the dense run, the true encoder and decoder parts", f"{LORA_OF_DENSE} --task_routes {{gym}}/oracle_routes.json"),
    "lora_refined": Variant("refined with low-rank experts of the dense run", f"{LORA} {REFINED}", unseen=BY_LOSS_AND_VECTORS),
    "lora_refined_trained": Variant(f"lora_refined, and its BART is trained at {BASE_RATE:g} times the rate of the experts", f"{LORA} --base_lr {{base_lr}} {REFINED}", unseen=BY_LOSS_AND_VECTORS),
    "poly": Variant("4 (6) low-rank experts of the dense run, factors averaged by a table of logits per task", POLY),
    "mhr": Variant("poly with weights of their own for each of 4 blocks of features", f"{POLY} --lora_splits 4"),
    "dense_total": Variant("one BART of width 32, with about the layer parameters of 4 experts", "--num_experts 1", width=32),
    "dense_no_names": Variant("dense with the task names hidden", "--num_experts 1 --hide_task_names", rate_of="dense"),
    "average": Variant("4 (6) experts, equal weights", f"{MIXTURE} --avg_routing"),
    "task_random": Variant("4 (6) experts, a random one for each task and layer", f"{MIXTURE} --task_level_random_routing"),
    "oracle_skills": Variant("an expert for each true skill, from the weights of the dense run", f"{FROM_DENSE} {{gym}}/skill_routes.json", rate_of="refined"),
    "refined_random": Variant("refined from random groups of tasks instead of clusters, without vectors", f"{FROM_DENSE} {{random_groups}} {REASSIGNED}".replace("--taskvecs {vectors} ", ""), rate_of="refined", unseen=BY_LOSS_AND_VECTORS[:1]),
    "refined_restarted": Variant("a new mixture along the refined clusters", f"{FROM_DENSE} {{refinement}}/reassigned_routes.json", rate_of="refined", unseen=BY_LOSS_AND_VECTORS),
}
# What each ingredient of refined adds: {name: (what is changed, flags)}.
INGREDIENTS = {
    "untrained": ("experts of the untrained BART", REFINED.replace("--vanilla_checkpoint {dense_run} ", "")),
    "names": ("task names are shown", REFINED.replace("--hide_task_names ", "")),
    "24_clusters": ("24 clusters (of 16 skills)", REFINED.replace("clusters:auto", "clusters:24")),
    "held_out_8th": ("an eighth of the rows is held out", f"{REFINED} --reassign_held_out 0.125"),
    "held_out_half": ("half of the rows is held out", f"{REFINED} --reassign_held_out 0.5"),
    "from_50": ("tasks move from step 50 on", f"{REFINED} --reassign_from 50"),
    "from_150": ("tasks move from step 150 on", f"{REFINED} --reassign_from 150"),
    "every_25": ("tasks move every 25 steps", f"{REFINED} --reassign_every 25"),
    "every_100": ("tasks move every 100 steps", f"{REFINED} --reassign_every 100"),
    "no_splits": ("no expert is split", f"{REFINED} --reassign_splits 0"),
    "margin_1": ("a task moves if it gains a standard error", f"{REFINED} --reassign_margin 1"),
    "margin_2": ("a task moves if it gains two standard errors", f"{REFINED} --reassign_margin 2"),
}
VARIANTS |= {f"refined_{name}": Variant(f"refined, but {about}", flags, rate_of="refined", unseen=BY_LOSS_AND_VECTORS) for name, (about, flags) in INGREDIENTS.items()}
# fmt: on
DEFAULT = tuple(VARIANTS)[: list(VARIANTS).index("oracle") + 1]


def rate_of(variant: str) -> str:
    """Returns the variant whose learning rate is tuned for this one: the same kind of model and routes."""
    return VARIANTS[variant].rate_of or variant


def tuned(variants: Iterable[str]) -> list[str]:
    """Returns the variants whose tuned rates these variants have."""
    return [name for name in dict.fromkeys(map(rate_of, variants)) if VARIANTS[name].rate is None]


def described() -> str:
    """Returns the list of variants for --help."""
    lines = [f"    {name:22}{variant.about}" for name, variant in VARIANTS.items()]
    return "\n".join([*lines, "", f"by default: {' '.join(DEFAULT)}"])
