"""Which tasks help each other: the losses of each task's rows along the experts of the other tasks.

    losses_RM = ...                                  # of R rows along the experts of M tasks
    gains_NM = gains(losses_RM, tasks_R, N, columns_M)  # (n, m): nats that expert m saves the rows of task n
    groups = grouped(gains_NM, columns_M)            # a group of each task

No expert has read a row of another task, so nothing is held out. N tasks, R rows, M tasks with a column.
"""

import numpy as np

from routing_moe.model.route_clusters import Clusters, best_clusters


def means_by_task(values_RM: np.ndarray, tasks_R: np.ndarray, N: int) -> np.ndarray:
    """Returns the means (N, M) of the rows of each task, 0 without rows. tasks_R: the task of each row."""
    members_NR = tasks_R == np.arange(N)[:, None]
    return members_NR @ values_RM / np.maximum(members_NR.sum(axis=1, keepdims=True), 1)


def gains(losses_RM: np.ndarray, tasks_R: np.ndarray, N: int, columns_M: np.ndarray) -> np.ndarray:
    """Returns how many nats a task's rows save along an expert, compared with the median expert (N, M).

    Losses above the median do not count: experts of contradicting tasks are wrong in any number of ways. The
    gain along a task's own expert, which has read the rows, is NaN. columns_M: the tasks of the experts.
    """
    medians_R1 = np.median(losses_RM, axis=1, keepdims=True)
    gains_NM = means_by_task(np.maximum(medians_R1 - losses_RM, 0.0), tasks_R, N)
    gains_NM[columns_M, np.arange(len(columns_M))] = np.nan
    return gains_NM


def affinity(gains_NN: np.ndarray) -> np.ndarray:
    """Returns the similarities of tasks (N, N), 1 on the diagonal: mean gains of both directions.

    Gains are centred by rows and then by columns, because some tasks gain, and some experts help, more than
    others whatever the pair; and scaled so that the largest similarity of two tasks is 1.
    """
    if len(gains_NN) == 1:  # there is no other task
        return np.ones((1, 1))
    centred_NN = gains_NN - np.nanmean(gains_NN, axis=1, keepdims=True)
    centred_NN = np.nan_to_num(centred_NN - np.nanmean(centred_NN, axis=0, keepdims=True))
    similarity_NN = (centred_NN + centred_NN.T) / 2
    largest = np.abs(similarity_NN).max()
    similarity_NN = similarity_NN / largest if largest else similarity_NN
    np.fill_diagonal(similarity_NN, 1.0)
    return similarity_NN


def grouped(gains_NM: np.ndarray, columns_M: np.ndarray) -> Clusters:
    """Returns the groups of all tasks: clusters of those with a column, by average linkage.

    The number of clusters has the largest mean silhouette of 2 to M - 1. A task without a column joins the
    cluster whose experts it gains most from. Fewer than three tasks are one group.
    """
    N, M = gains_NM.shape
    if M < 3:
        return Clusters(np.zeros(N, dtype=np.int64), 0.0)
    clusters = best_clusters(affinity(gains_NM[columns_M]), range(2, M))
    members_MK = np.eye(clusters.labels_N.max() + 1)[clusters.labels_N]
    labels_N = (np.nan_to_num(gains_NM) @ (members_MK / members_MK.sum(axis=0))).argmax(axis=1)
    labels_N[columns_M] = clusters.labels_N
    return Clusters(labels_N, clusters.silhouette)


def mates(labels_N: np.ndarray, columns_M: np.ndarray) -> np.ndarray:
    """Returns equal weights (N, M) of the experts of each task's mates: those of its group without itself.

    The row of a task without mates is zero.
    """
    are_mates_NM = labels_N[:, None] == labels_N[columns_M][None]
    are_mates_NM[columns_M, np.arange(len(columns_M))] = False
    return are_mates_NM / np.maximum(are_mates_NM.sum(axis=1, keepdims=True), 1)
