"""The variants of the conflict study: a row each, with the flags of its training and its task vectors."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """A way to train on a conflict gym.

    about: for --help. flags: of the training; `ConflictGym` replaces {names}. width: of the BART. vectors: kind
    of task vectors, computed with the dense run, whose steps count. rate_of: the variant whose tuned learning
    rate it has (None: its own). flops_of: the variant of which its training has the FLOPs instead of the steps.
    first_stage: the variant that is trained for half of the steps, whose routes are then kept.
    """

    about: str
    flags: str
    width: int = 16
    vectors: str | None = None
    rate_of: str | None = None
    flops_of: str | None = None
    first_stage: str | None = None


MIXTURE = "--num_experts 4 --init_eps 1e-2"
LEARNED = f"{MIXTURE} --router_lr {{router_lr}} --minimum_tau 0.3 --anneal_rate {{anneal_rate}}"
RANDOM_VECTORS = f"{LEARNED} --task_model_lr {{router_lr}} --taskvecs_dim 16"
GIVEN = "--init_eps 1e-2 --task_routes"
CLUSTERS = f"{GIVEN} clusters:{{skills}} --taskvecs {{vectors}}"  # their number is given
AUTO_CLUSTERS = f"{GIVEN} clusters:auto --taskvecs {{vectors}}"
STAGE_2 = (
    "--checkpoint_name init --router_mode softmax --router_lr 0 --task_model_lr 0 --initial_tau 300 "
    "--minimum_tau 1 --anneal_rate {anneal_rate_of_average}"
)

# fmt: off
VARIANTS = {
    "dense": Variant("one BART of width 16", "--num_experts 1"),
    "dense_total": Variant("one BART of width 32, with about the layer parameters of 4 experts", "--num_experts 1", width=32),
    "dense_total_flops": Variant("dense_total for the number of steps that costs the FLOPs of dense", "--num_experts 1", width=32, rate_of="dense_total", flops_of="dense"),
    "dense_no_names": Variant("dense with the task names hidden", "--num_experts 1 --hide_task_names", rate_of="dense"),
    "task_experts": Variant("an expert for each task (embeddings are shared)", f"{GIVEN} {{task_routes}}", rate_of="clusters"),
    "average": Variant("4 experts, equal weights", f"{MIXTURE} --avg_routing"),
    "task_random": Variant("4 experts, a random one for each task and layer", f"{MIXTURE} --task_level_random_routing"),
    "straight_through": Variant("4 experts, learned one-hot routes", RANDOM_VECTORS),
    "softmax": Variant("4 experts, learned weights", f"{RANDOM_VECTORS} --router_mode softmax"),
    "balanced": Variant("softmax with --load_balance 0.1", f"{RANDOM_VECTORS} --router_mode softmax --load_balance 0.1", rate_of="softmax"),
    "two_stage": Variant("softmax for half of the steps, then new experts with its routes, frozen, from average to learned", STAGE_2, rate_of="softmax", first_stage="softmax"),
    "gradient_inputs": Variant("softmax, the router reads gradient vectors", f"{LEARNED} --router_mode softmax --taskvecs {{vectors}} --freeze_task_model", vectors="gradient", rate_of="softmax"),
    "text_clusters": Variant("an expert for each cluster of text vectors, the number of clusters given", CLUSTERS, vectors="text", rate_of="clusters"),
    "fisher_clusters": Variant("the same of Fisher vectors", CLUSTERS, vectors="fisher", rate_of="clusters"),
    "clusters": Variant("an expert for each cluster of gradient vectors", AUTO_CLUSTERS, vectors="gradient"),
    "composed": Variant("routes by the same clusters, composed of 4 experts per layer", f"{AUTO_CLUSTERS} --num_experts 4", vectors="gradient"),
    "oracle": Variant("4 experts, the true encoder and decoder parts", f"{GIVEN} {{gym}}/oracle_routes.json"),
}
# fmt: on


def rate_of(variant: str) -> str:
    """Returns the variant whose learning rate is tuned for this one: the same kind of model and routes."""
    return VARIANTS[variant].rate_of or variant


def described() -> str:
    """Returns the list of variants for --help."""
    return "\n".join(f"    {name:18}{variant.about}" for name, variant in VARIANTS.items())
