"""The radius has a gradient: compare it with a finite difference, and move a network along it."""

import torch

import lsc_ext as lsc

torch.manual_seed(0)
matrix = torch.randn(40, 40, dtype=torch.float64, requires_grad=True)
direction = torch.randn(40, 40, dtype=torch.float64)


def radius(a: torch.Tensor) -> torch.Tensor:
    seeded = torch.Generator().manual_seed(0)
    return lsc.spectral_radius(a, method="krylov", tol=1e-9, generator=seeded).radius


(gradient,) = torch.autograd.grad(radius(matrix), matrix)
with torch.no_grad():
    difference = (radius(matrix + 1e-6 * direction) - radius(matrix - 1e-6 * direction)) / 2e-6
print(f"along a random direction: gradient {(gradient * direction).sum():.6f}, finite difference {difference:.6f}")

model = torch.nn.GRU(input_size=8, hidden_size=24, num_layers=1)
x = torch.randn(6, 4, 8)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for step in range(21):
    mean = lsc.radii(model, x, directions=("time",))["time"].mean()
    if step % 5 == 0:
        print(f"step {step:2d}: mean radius in time {mean.detach():.4f}")
    optimizer.zero_grad()
    (mean - 0.9).square().backward()
    optimizer.step()
