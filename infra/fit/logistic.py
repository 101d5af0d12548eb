"""Fits the weights of a logistic model (pipeline/shots/logistic.py): Newton's method, L2, no randomness.

In: structured evidence, labels, a weight for each row. Out: named weights. Never: a library beyond numpy.
"""

import numpy as np

from pipeline.shots.logistic import CONSTANT, columns

STEPS = 100
TOLERANCE = 1e-9  # of the largest change of a weight
DECIMALS = 3  # of the weights in the code


def fit_logistic(
    evidence: np.ndarray, labels: np.ndarray, importance: np.ndarray, penalty: float
) -> dict[str, float]:
    """Weights that maximise the likelihood of `labels` (0 or 1, [K]) less `penalty` / 2 times their squares,
    each weight as of a column of unit variance; rounded to DECIMALS. importance: [K], how often a row
    counts."""
    values = columns(evidence).astype(np.float64)  # [K, F]
    share = importance / importance.sum()
    mean = share @ values
    deviation = np.sqrt(share @ (values - mean) ** 2) + 1e-9
    design = np.column_stack([np.ones(len(values)), (values - mean) / deviation])  # [K, 1 + F]
    ridge = np.diag([1e-9, *[penalty] * values.shape[1]])
    weights = np.zeros(design.shape[1])
    for _ in range(STEPS):
        odds = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        slope = design.T @ (importance * (labels - odds)) - ridge @ weights
        curvature = (design * (importance * odds * (1 - odds))[:, None]).T @ design + ridge
        step = np.linalg.solve(curvature, slope)
        step *= min(1.0, 5.0 / np.abs(step).max())  # far from the optimum Newton's steps overshoot
        weights += step
        if np.abs(step).max() < TOLERANCE:
            break
    scaled = weights[1:] / deviation
    named = {CONSTANT: weights[0] - float(scaled @ mean)}
    named |= dict(zip(evidence.dtype.names or (), scaled.tolist(), strict=True))
    return {name: round(float(value), DECIMALS) for name, value in named.items()}
