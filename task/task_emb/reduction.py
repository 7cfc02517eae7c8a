"""Dimension reduction of task vectors: scaling and principal components, fitted on some of the tasks.

A reduction that is fitted on train tasks holds no information about unseen tasks, and can be applied to new
tasks. It is saved as plain arrays.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloader.atomic_files import write_bytes
from dataloader.errors import InputError
from routing_moe.io.arrays import load_arrays
from routing_moe.io.files import npz_bytes

REDUCTION_FILE = "reduction.npz"
TRANSFORMS = ("none", "unit", "log")
LOG_OFFSET = 1e-3  # relative to the median positive number: added before the log, so that it is finite


@dataclass(frozen=True, eq=False)
class Reduction:
    """x -> factor_d * components_dD @ ((transform(x) - mean_D) / scale_D), from D to d dimensions.

    explained_d: explained variance ratio of each component. added: number that is added before the log.
    """

    transform: str
    added: float
    mean_D: np.ndarray
    scale_D: np.ndarray
    components_dD: np.ndarray
    factor_d: np.ndarray
    explained_d: np.ndarray

    @classmethod
    def fit(
        cls, vectors_ND: np.ndarray, dim: int, transform="none", standardise=True, whiten=False
    ) -> "Reduction":
        """Fits a reduction on all rows, by a full (deterministic) singular value decomposition.

        transform: "unit" scales each vector to length 1, "log" takes the log of each number, "none".
        standardise: scale each input dimension to variance 1. The reduced vectors of the rows have mean
        square 1, over all components together, or, with whiten, in each component. Raises InputError if dim
        is larger than the number of dimensions that the rows span, or for the log of negative numbers.
        """
        from sklearn.decomposition import PCA  # these take a second
        from sklearn.preprocessing import StandardScaler

        N, D = vectors_ND.shape
        if dim > min(N - 1, D):
            raise InputError(
                f"--dim is {dim}, but {N} mean-centred vectors of {D} dimensions span at most "
                f"{min(N - 1, D)}; give less, or more tasks to fit on (--fit_on)"
            )
        added = LOG_OFFSET * median_above_zero(vectors_ND) if transform == "log" else 0.0
        transformed_ND = transformed(vectors_ND, transform, added)
        scaler = StandardScaler(with_std=standardise).fit(transformed_ND)
        with np.errstate(invalid="ignore"):  # if all vectors are equal, which is reported below
            pca = PCA(dim, svd_solver="full").fit(scaler.transform(transformed_ND))
        mean_square_d = pca.explained_variance_ * (N - 1) / N
        if not mean_square_d.min() > 1e-12 * mean_square_d.max():
            spanned = int((mean_square_d > 1e-12 * mean_square_d.max()).sum())
            raise InputError(f"the vectors of {N} tasks span {spanned} dimensions, but --dim is {dim}")
        factor_d = 1 / np.sqrt(mean_square_d if whiten else np.full(dim, mean_square_d.mean()))
        scale_D = scaler.scale_ if standardise else np.ones(vectors_ND.shape[1])
        return cls(
            transform,
            added,
            scaler.mean_,
            scale_D,
            pca.components_.astype(np.float32),  # half the file size, and the precision of saved vectors
            factor_d,
            pca.explained_variance_ratio_,
        )

    def __call__(self, vectors_ND: np.ndarray) -> np.ndarray:
        """Returns reduced vectors (N, d). Raises InputError if D does not match, and see `transformed`."""
        D = len(self.mean_D)
        if vectors_ND.shape[1] != D:
            raise InputError(
                f"the reduction needs vectors of {D} dimensions, these have {vectors_ND.shape[1]}"
            )
        centred_ND = (transformed(vectors_ND, self.transform, self.added) - self.mean_D) / self.scale_D
        return centred_ND @ self.components_dD.T * self.factor_d

    def save(self, folder: str | Path) -> None:
        write_bytes(Path(folder) / REDUCTION_FILE, npz_bytes(**vars(self)))

    @classmethod
    def load(cls, folder: str | Path) -> "Reduction":
        """Returns the reduction saved in a folder. Raises InputError if the file is missing or damaged."""
        path = Path(folder) / REDUCTION_FILE
        try:
            arrays = load_arrays(path, cls.__dataclass_fields__)
            d, D = arrays["components_dD"].shape
            if [arrays[name].shape for name in ("mean_D", "scale_D", "factor_d")] != [(D,), (D,), (d,)]:
                raise ValueError("shapes of arrays do not match")
            arrays |= {"transform": str(arrays["transform"]), "added": float(arrays["added"])}
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; name a folder that task.task_emb.reduce wrote") from None
        except (ValueError, TypeError):  # an InputError is a ValueError
            raise InputError(f"{path} is damaged; write it again with task.task_emb.reduce") from None
        return cls(**arrays)


def transformed(vectors_ND: np.ndarray, transform: str, added: float) -> np.ndarray:
    """Returns the transformed vectors (N, D), float64.

    Raises InputError for "log" of negative numbers and for "unit" of a zero vector.
    """
    vectors_ND = vectors_ND.astype(np.float64)
    if transform == "log":
        if (vectors_ND < 0).any():
            raise InputError("--transform is log, but the vectors have negative numbers; give unit or none")
        return np.log(vectors_ND + added)
    if transform == "unit":
        lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        if not lengths_N1.all():
            raise InputError("--transform is unit, but a vector is all zeros; give none")
        return vectors_ND / lengths_N1
    return vectors_ND


def median_above_zero(vectors_ND: np.ndarray) -> float:
    """Returns the median of all positive numbers. Raises InputError if there are none."""
    positive = vectors_ND[vectors_ND > 0]
    if not len(positive):
        raise InputError("--transform is log, but the vectors have no positive numbers; give none")
    return float(np.median(positive))
