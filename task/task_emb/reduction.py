"""Vectors of fewer dimensions: scaling and principal components, fitted on some tasks, applied to any.

Fitted on train tasks alone, a reduction has seen nothing of the unseen ones, and can be applied to a task
that comes later. It is kept as plain arrays.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from dataloader.errors import InputError
from routing_moe.io.arrays import load_arrays
from routing_moe.io.files import npz_bytes, write_bytes

REDUCTION_FILE = "reduction.npz"
TRANSFORMS = ("none", "unit", "log")
SMALLEST = 1e-3  # of the log: this part of the median is added, so that zeros have one


@dataclass(frozen=True, eq=False)
class Reduction:
    """x -> factor * components_dD @ ((transform(x) - mean_D) / scale_D), from D to d dimensions.

    explained_d: the part of the fitted tasks' variance that each component holds. added: of the log.
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
        """Fitted on all rows, by a full singular value decomposition: the same bits each time.

        transform: "unit" (length 1) or "log" each vector first. standardise: give each input dimension
        variance 1 before. The result has mean square 1 over the fitted rows and all components, or, with
        whiten, in each component. Raises InputError for more components than the rows span, and for negative
        numbers to take the log of.
        """
        added = SMALLEST * median_above_zero(vectors_ND) if transform == "log" else 0.0
        transformed_ND = transformed(vectors_ND, transform, added)
        scaler = StandardScaler(with_std=standardise).fit(transformed_ND)
        with np.errstate(invalid="ignore"):  # of equal vectors all variances are 0, as told below
            pca = PCA(dim, svd_solver="full").fit(scaler.transform(transformed_ND))
        N = len(vectors_ND)
        mean_square_d = pca.explained_variance_ * (N - 1) / N
        if not mean_square_d.min() > 1e-12 * mean_square_d.max():
            spanned = int((mean_square_d > 1e-12 * mean_square_d.max()).sum())
            raise InputError(f"the {N} tasks span {spanned} dimensions, fewer than the {dim} asked for")
        factor_d = 1 / np.sqrt(mean_square_d if whiten else np.full(dim, mean_square_d.mean()))
        scale_D = scaler.scale_ if standardise else np.ones(vectors_ND.shape[1])
        return cls(
            transform,
            added,
            scaler.mean_,
            scale_D,
            pca.components_.astype(np.float32),  # as the vectors are saved, at half the size
            factor_d,
            pca.explained_variance_ratio_,
        )

    def __call__(self, vectors_ND: np.ndarray) -> np.ndarray:
        """(N, d). Raises InputError for vectors of another dimension, and see `transformed`."""
        D = len(self.mean_D)
        if vectors_ND.shape[1] != D:
            raise InputError(
                f"the reduction takes vectors of {D} dimensions, these have {vectors_ND.shape[1]}"
            )
        centred_ND = (transformed(vectors_ND, self.transform, self.added) - self.mean_D) / self.scale_D
        return centred_ND @ self.components_dD.T * self.factor_d

    def save(self, folder: str | Path) -> None:
        write_bytes(Path(folder) / REDUCTION_FILE, npz_bytes(**vars(self)))

    @classmethod
    def load(cls, folder: str | Path) -> "Reduction":
        """Raises InputError, naming the file."""
        path = Path(folder) / REDUCTION_FILE
        try:
            arrays = load_arrays(path, cls.__dataclass_fields__)
            d, D = arrays["components_dD"].shape
            if [arrays[name].shape for name in ("mean_D", "scale_D", "factor_d")] != [(D,), (D,), (d,)]:
                raise ValueError("arrays that do not belong together")
            arrays |= {"transform": str(arrays["transform"]), "added": float(arrays["added"])}
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; name a folder that task.task_emb.reduce wrote") from None
        except (ValueError, TypeError):  # an InputError is a ValueError
            raise InputError(f"{path}: is damaged; make it anew by task.task_emb.reduce") from None
        return cls(**arrays)


def transformed(vectors_ND: np.ndarray, transform: str, added: float) -> np.ndarray:
    """In float64. Raises InputError for the log of negative numbers, the direction of a vector of zeros."""
    vectors_ND = vectors_ND.astype(np.float64)
    if transform == "log":
        if (vectors_ND < 0).any():
            raise InputError("--transform is log, but the vectors hold negative numbers; give unit or none")
        return np.log(vectors_ND + added)
    if transform == "unit":
        lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        if not lengths_N1.all():
            raise InputError("--transform is unit, but a vector is all zeros; give none")
        return vectors_ND / lengths_N1
    return vectors_ND


def median_above_zero(vectors_ND: np.ndarray) -> float:
    """Raises InputError where nothing is above zero."""
    above = vectors_ND[vectors_ND > 0]
    if not len(above):
        raise InputError("--transform is log, but no number of the vectors is above zero")
    return float(np.median(above))
