"""The layers are drop-in: same weights, same numbers as torch.nn, gradients included."""

import torch

import lsc_ext as lsc

torch.manual_seed(0)
theirs = torch.nn.LSTM(input_size=16, hidden_size=33, num_layers=2)
ours = lsc.nn.LSTM.from_torch(theirs)
x = torch.randn(40, 8, 16)  # [T, B, I]


def run(layer: torch.nn.Module) -> tuple[torch.Tensor, list[torch.Tensor]]:
    output, _ = layer(x)
    return output, list(torch.autograd.grad(output.square().sum(), list(layer.parameters())))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b).norm() / b.norm()).detach())


(y, gradients), (expected, expected_gradients) = run(ours), run(theirs)
print(ours)
print(f"output {tuple(y.shape)}, relative difference to torch.nn.LSTM {relative(y, expected):.1e}")
for (name, _), a, b in zip(ours.named_parameters(), gradients, expected_gradients, strict=True):
    print(f"gradient of {name:<13} relative difference {relative(a, b):.1e}")
