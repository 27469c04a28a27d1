"""Pre-train a stack whose weights are too large, and look at its gradients over time before and after."""

import torch

import lsc_ext as lsc

torch.manual_seed(0)
model = torch.nn.RNN(input_size=8, hidden_size=24, num_layers=3, nonlinearity="relu")
with torch.no_grad():
    for weight in model.parameters():
        weight.mul_(1.8)
data = torch.randn(20, 40, 8)  # [T, B, I]


def gradient_norms() -> list[float]:
    x = data.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[0].sum(), x)
    return gradient.square().sum((1, 2)).sqrt().tolist()


before = gradient_norms()
result = lsc.pretrain(model, data, 0.5, batch_size=16, max_points=16, certify_points=64)
after = gradient_norms()
print(result)
print("\nnorm of d (sum of top outputs) / d x[t]")
for t in range(0, 20, 4):
    print(f"t = {t:2d}: before {before[t]:8.3f}, after {after[t]:8.3f}")
