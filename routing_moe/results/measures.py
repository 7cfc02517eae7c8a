"""The measures that runs are compared by, and the baselines with the same unit: names in tables."""

CONSTANT = "constant answer"
NAMES = {"constant": CONSTANT, "chance": "random option", "copy": "copied input"}  # of columns of scores
UNITS = {  # {measure: its baselines}
    "performance": tuple(NAMES),
    "answer_loss": (),
    "rank_accuracy": ("chance",),
}
TITLES = {
    "performance": "mean score",
    "answer_loss": "mean loss of the answers in nats per token (lower is better)",
    "rank_accuracy": "mean accuracy of the best-ranked option",
}
