"""The optimisers of a run: Muon for the matrices inside the blocks, AdamW for everything else.

In: a model and its TrainConfig. Out: an object that steps both at the scheduled rate, with its state as named
tensors. The rate is a pure function of the step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.schedule import warm_hold_fall
from training.config import TrainConfig

BETAS = (0.9, 0.95)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, flat, then linear to zero over the last `decay_share`: the rate of step 0, 1, 2, …"""
    return config.lr * warm_hold_fall(
        step, config.steps, warmup_steps=config.warmup_steps, decay_share=config.decay_share
    )


class Optimizers:
    """Muon + AdamW as one. Muon's update is scaled to AdamW's size, so that both share one rate."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.config = config
        self.names = {parameter: name for name, parameter in model.named_parameters()}
        matrices = [p for p, name in self.names.items() if _is_matrix(p, name)]
        others = [p for p, name in self.names.items() if not _is_matrix(p, name)]
        self.parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(
                matrices, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(
                others, lr=config.lr, weight_decay=config.weight_decay, betas=BETAS, fused=True
            ),
        )

    def clip(self) -> float:
        """Clips the gradients; their norm before."""
        return float(nn.utils.clip_grad_norm_(list(self.names), self.config.clip_norm))

    def step(self, step: int) -> None:
        """Updates the weights and clears the gradients."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = learning_rate(step, self.config)
            part.step()
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """`<kind>/<parameter>` → tensor."""
        return {
            f"{kind}/{self.names[parameter]}": value
            for part in self.parts
            for parameter, kinds in _states(part)
            for kind, value in kinds.items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        by_name = {name: parameter for parameter, name in self.names.items()}
        homes = {p: part for part in self.parts for group in part.param_groups for p in group["params"]}
        for key, value in state.items():
            kind, _, name = key.partition("/")
            parameter = by_name[name]
            homes[parameter].state[parameter][kind] = value.clone()


def _states(part: torch.optim.Optimizer) -> list[tuple[nn.Parameter, dict[str, Tensor]]]:
    return [(p, part.state[p]) for group in part.param_groups for p in group["params"] if p in part.state]


def _is_matrix(parameter: nn.Parameter, name: str) -> bool:
    """Modulation is not one: its output is six vectors, and its input a handful of rows."""
    return parameter.ndim == 2 and name.startswith("blocks.") and ".modulation." not in name
