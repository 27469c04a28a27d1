"""The networks of the experiments and their arms: same weights to start from, pre-trained or not.

Letters: T time steps, B samples, I features, H hidden size, C classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lsc_ext import nn as layers
from lsc_ext.pretrain import PretrainResult, pretrain

NETWORKS = {
    "sin": "feed-forward, sine",
    "relu": "feed-forward, ReLU",
    "cos": "feed-forward, cosine",
    "gru": "GRU",
    "lstm": "LSTM",
    "rnn_relu": "RNN, ReLU",
    "rnn_sigmoid": "RNN, sigmoid",
    "alif": "ALIF",
    "alif_bipolar": "ALIF, bipolar",
    "res_lru": "ResLRU",
}
FEED_FORWARD = ("sin", "relu", "cos")
#: Arm -> target radius; None for weights that are trained as they were drawn.
ARMS: dict[str, float | str | None] = {
    "none": None,
    "glorot": None,
    "he": None,
    "lsc": 1.0,
    "1": 1.0,
    "0.5": 0.5,
    "unbalanced": "unbalanced",
}
State = Any


class Model(nn.Module):
    """An embedding where the input is words, a stack of layers, and a linear readout at every step."""

    def __init__(self, stack: Any, features: int, classes: int, words: bool, dropout: float) -> None:
        super().__init__()
        self.stack = stack
        self.dropout = dropout
        self.embedding = nn.Embedding(features, stack.input_size) if words else None
        if self.embedding is not None:
            nn.init.xavier_uniform_(self.embedding.weight)
        self.readout = nn.Linear(stack.hidden_size, classes)

    def read(self, x: Tensor) -> Tensor:
        """What the stack reads: words [T, B] as vectors [T, B, I], anything else as it is."""
        return x if self.embedding is None else self.embedding(x)

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Logits [T, B, C] ([B, C] of a feed-forward stack) and the last state."""
        x = nn.functional.dropout(self.read(x), self.dropout, self.training)
        if isinstance(self.stack, layers.FeedForward):
            return self.readout(self.stack(x)), None
        output, state = self.stack(x, state)
        return self.readout(output), state


def detached(state: State) -> State:
    """The state without its history."""
    if isinstance(state, Tensor):
        return state.detach()
    return None if state is None else tuple(detached(part) for part in state)


def build_model(
    network: str,
    arm: str,
    *,
    features: int,
    classes: int,
    words: bool,
    hidden_size: int,
    num_layers: int,
    time_steps: int,
    dropout: float,
) -> Model:
    """A network with the weights that all arms of it start from; arms "glorot" and "he" differ by their scale alone.

    Feed-forward layers are drawn from normal distributions cut at two standard deviations, gated and spiking ones as
    the paper draws them ("paper" of :func:`lsc_ext.nn.initialize`), with adaptation over half of ``time_steps``.

    Args:
        network: one of :data:`NETWORKS`.
        arm: one of :data:`ARMS`.
        features: I, or the size of the vocabulary.
        classes: C.
        words: whether the input is words, which are embedded in ``hidden_size`` numbers.
        hidden_size: H.
        num_layers: L.
        time_steps: T.
        dropout: probability of zeroing what a layer reads, while training.

    Raises:
        ValueError: an unknown network or arm.
    """
    if network not in NETWORKS:
        raise ValueError(f"network: expected one of {', '.join(NETWORKS)}, got {network!r}")
    if arm not in ARMS:
        raise ValueError(f"arm: expected one of {', '.join(ARMS)}, got {arm!r}")
    size = hidden_size if words else features
    stack: Any
    if network in FEED_FORWARD:
        stack = layers.FeedForward(size, hidden_size, num_layers, network)
        layers.initialize(stack, "he_normal" if arm == "he" else "glorot_normal")
    elif network == "res_lru":
        stack = layers.ResLRU(size, hidden_size, num_layers, dropout=dropout)
    else:
        if network.startswith("alif"):
            stack = layers.ALIF(
                size, hidden_size, num_layers, bipolar=network == "alif_bipolar", tau_a=max(1.0, time_steps / 2)
            )
        else:
            stack = layers.build(network, size, hidden_size, num_layers)
        stack.dropout = dropout
        layers.initialize(stack, "paper")
    return Model(stack, features, classes, words, dropout if network != "res_lru" else 0.0)


def pretrained(model: Model, arm: str, x: Tensor, **options: Any) -> PretrainResult | None:
    """Pre-trains the stack of ``model`` in place as the arm asks; embedding and readout stay. None without a target."""
    target = ARMS[arm]
    if target is None:
        return None
    with torch.no_grad():
        data = model.read(x)
    return pretrain(model.stack, data, target, progress=False, **options)
