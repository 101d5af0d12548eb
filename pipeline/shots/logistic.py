"""A logistic model of named numbers. Pure.

In: a structured array of evidence, one field a number, and a weight for each name. Out: probabilities.
Never: a fit (infra/fit/logistic.py); numbers told apart by their place alone.
"""

from collections.abc import Mapping

import numpy as np

CONSTANT = "constant"  # the name of the weight of 1
MOST_SCORE = 30.0  # beyond it a probability is 0 or 1


def probability(evidence: np.ndarray, weights: Mapping[str, float]) -> np.ndarray:
    """float64 [K], 0 to 1. evidence: structured, float32 fields, [K]; weights: CONSTANT and one for each
    field, in their order."""
    names = evidence.dtype.names or ()
    assert (CONSTANT, *names) == tuple(weights), f"evidence of {names}, weights of {tuple(weights)}"
    constant, *others = weights.values()
    score = constant + columns(evidence) @ np.asarray(others)
    return 1 / (1 + np.exp(-np.clip(score, -MOST_SCORE, MOST_SCORE)))


def columns(evidence: np.ndarray) -> np.ndarray:
    """The fields side by side: float32 [K, F], a view."""
    return evidence.view(np.float32).reshape(len(evidence), len(evidence.dtype.names or ()))


def fields(*names: str) -> np.dtype:
    """The dtype of evidence: float32 fields of these names."""
    return np.dtype([(name, np.float32) for name in names])
