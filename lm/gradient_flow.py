"""How much of a gradient is left after so many steps back through time."""

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.streams import Window
from lm.dropout import Dropout
from lm.heads import Head
from lm.layers import RecurrentLayer, State, SteppedLayer
from lm.network import RecurrentNetwork


class Flow(NamedTuple):
    """What flows through one layer of a network over the steps t = 1, ..., T of a window; means over rows.

    The state h_t is all that the layer hands on to step t + 1, with an LSTM (h_t, c_t), for c_t is its way through time. What a
    truncation through time cuts does not flow.

    Attributes:
        activations: ‖h_t‖ of what the layer says, `(time,)`.
        of_loss: ‖∂L/∂h_t‖, `(time,)`, where L is the sum over a row's targets, from t on.
        of_last: ‖∂h_T/∂h_t‖, `(time,)`, the largest factor by which a change of h_t comes through (the spectral norm).
    """

    activations: Tensor
    of_loss: Tensor
    of_last: Tensor


def gradient_flow(network: RecurrentNetwork, head: Head, batch: Window, rows: int = 4) -> list[Flow]:
    """Measure every layer on a window that starts from zeros, each unrolled, without dropout, in float64.

    A copy is measured: statistics and gradients of the network stay as they are.

    Args:
        network: of layers that have steps.
        head: gives the loss.
        batch: tokens and targets `(batch, time)`.
        rows: how many rows ∂h_T/∂h_t is computed of.

    Returns:
        what flows through each layer, from the input up.

    Raises:
        TypeError: if a layer has no steps.
    """
    network, head = deepcopy((network, head))
    for module in (network.cpu().double(), head.cpu().double()):
        module.train()
        for part in module.modules():
            if isinstance(part, Dropout):
                part.eval()
    x, unrolled = network.embed(batch.tokens.cpu()).double(), []
    for layer in network.layers:
        assert isinstance(layer, RecurrentLayer)
        states = unroll(layer, x)
        said = torch.stack([state[0] for state in states], dim=1)
        x = said + x if network.residual and said.shape == x.shape else said
        unrolled.append(states)
    loss = head.loss(x, batch.targets.cpu(), torch.ones_like(batch.targets, dtype=torch.float64, device="cpu")).total
    return [measured(states, loss, rows) for states in unrolled]


def unroll(layer: RecurrentLayer, x: Tensor) -> list[State]:
    """The state after each step of x `(batch, time, features)`, whose parts are nodes of the graph: what goes on passes them."""
    if not isinstance(layer, SteppedLayer):
        raise TypeError(f"gradient flow: it is measured between steps, and {type(layer).__name__} has none; use one direction")
    state, states = layer.first_state(x), []
    step = layer.stepper(state[0])
    for projected in layer.project(x).unbind(dim=1):
        said, *others = step(projected, state)
        # What the layer says may be made of its memory in the same step: only what goes on to the next counts here.
        state = (said, *(part.clone() for part in others))
        states.append(state)
    return states


def measured(states: list[State], loss: Tensor, rows: int) -> Flow:
    """The norms of one layer."""
    last = states[-1][0]
    of_loss = derivative(loss, states)
    chosen = torch.eye(last.numel(), dtype=last.dtype)[: min(rows, len(last)) * last.shape[1]].view(-1, *last.shape)
    of_last = derivative(last, states, chosen)
    # Normalised over a batch, a row depends on the others, so that the gradient of one is as wide as all of them.
    jacobians = of_last.view(len(states), -1, last.shape[1], of_last[0, 0].numel())
    return Flow(
        activations=torch.stack([state[0].detach().norm(dim=1).mean() for state in states]),
        of_loss=of_loss.norm(dim=-1).mean(dim=1),
        of_last=torch.linalg.matrix_norm(jacobians, ord=2).mean(dim=1),
    )


def derivative(of: Tensor, states: list[State], directions: Tensor | None = None) -> Tensor:
    """The gradient with respect to every state.

    Args:
        of: a scalar, or with directions a tensor.
        states: those of T steps, of parts `(batch, features)`.
        directions: `(directions, *of.shape)`; the gradient of each is taken.

    Returns:
        `(T, batch, features of all parts)`, or `(T, directions, batch, features of all parts)`.
    """
    parts = [part for state in states for part in state]
    batched = directions is not None
    found = torch.autograd.grad(of, parts, directions, retain_graph=True, allow_unused=True, is_grads_batched=batched)
    shape = () if directions is None else (len(directions),)
    gradients = [
        part.new_zeros(*shape, *part.shape) if gradient is None else gradient for part, gradient in zip(parts, found, strict=True)
    ]
    width = len(states[0])
    return torch.stack([torch.cat(gradients[time : time + width], dim=-1) for time in range(0, len(gradients), width)])
