"""A small Gaussian process for Bayesian search over sets of switches."""

from __future__ import annotations

import numpy as np


def upper_confidence(
    points: np.ndarray, scores: np.ndarray, candidates: np.ndarray, kappa: float
) -> np.ndarray:
    """mean + kappa * deviation at each candidate: how good it may be, given what was tried.

    Args:
        points: tried settings ``[n s]`` in [0, 1]; scores: what they gave ``[n]``.
        candidates: ``[m s]``.
        kappa: how much being unknown is worth.

    The kernel is exp(-|x - y|^2 / s), its noise 1e-3 of the scores' variance.
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        distance = ((a[:, None, :] - b[None, :, :]) ** 2).sum(-1)
        return np.exp(-distance / max(1, points.shape[1]))

    spread = max(float(scores.std()), 1e-6)
    centred = (scores - scores.mean()) / spread
    among = kernel(points, points) + 1e-3 * np.eye(len(points))
    across = kernel(candidates, points)
    solved = np.linalg.solve(among, across.T)
    mean = across @ np.linalg.solve(among, centred)
    variance = np.clip(1.0 - (across * solved.T).sum(1), 0.0, None)
    return scores.mean() + spread * (mean + kappa * np.sqrt(variance))
