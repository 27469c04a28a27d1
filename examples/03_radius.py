"""Spectral radii of every layer, step and sequence, with a verdict on each, against eigenvalues by LAPACK."""

import torch

import lsc_ext as lsc

torch.manual_seed(0)
model = torch.nn.LSTM(input_size=12, hidden_size=40, num_layers=2, dtype=torch.float64)
x = torch.randn(10, 6, 12, dtype=torch.float64)

report = lsc.radii(model, x, generator=torch.Generator().manual_seed(0))
print(report)
time = report["time"]
print(f"time radii {list(time.radius.shape)} = [layers, steps, sequences], method {time.method}")
print(f"status counts {time.counts()}")
print(f"mean products per point {time.num_matvecs.double().mean():.0f}, for matrices of {2 * 40} x {2 * 40}")

truth = lsc.radii(model, x, method="dense")["time"]
error = ((time.radius - truth.radius) / truth.radius).abs()
print(f"largest relative error against LAPACK {error.max():.1e}")
