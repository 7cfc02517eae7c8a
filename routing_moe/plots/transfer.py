"""The picture of a transfer matrix: what each task (row) gains along the expert of each task (column)."""

import os

import numpy as np

from dataloader.ontology import Ontology
from routing_moe.analysis.transfer import TransferMatrix
from routing_moe.plots.clustermap import plot_clustered
from routing_moe.plots.style import HeatScale


def plot_transfer(found: TransferMatrix, ontology: Ontology, path: str | os.PathLike) -> None:
    """Writes the gains in the order of the clustering that groups follow; PDF or PNG as `path` ends.

    The scale ends at the 98th percentile, so that one pair does not hide the others.
    """
    largest = float(np.nanpercentile(found.gains_MM, 98)) or 1.0
    scale = HeatScale("nats saved per row", "Blues", 0.0, largest)
    title = "Rows gain along columns"
    plot_clustered(found.affinity_MM, found.columns, ontology, path, scale, title, found.gains_MM)
