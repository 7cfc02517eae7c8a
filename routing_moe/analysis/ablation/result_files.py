"""The files of an ablation, for readers that need no torch."""

import pandas as pd

JOB_FILE = "job.json"  # what the scores are of
TASKS, CATEGORIES, FEATURES, SETS = "tasks.csv", "categories.csv", "features.csv", "sets.csv"


def drawn(features: pd.DataFrame) -> str:
    """Returns the number of sets that features of `feature_table` are compared with: "20" or "7 to 20"."""
    least, most = int(features["draws"].min()), int(features["draws"].max())
    return str(most) if least == most else f"{least} to {most}"
