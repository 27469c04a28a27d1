"""The step Jacobians of a network as operators: products without a matrix, and the matrix where it is small."""

import torch

import lsc_ext as lsc

torch.manual_seed(0)
model = torch.nn.GRU(input_size=3, hidden_size=5, num_layers=2, dtype=torch.float64)
x = torch.randn(7, 2, 3, dtype=torch.float64)  # [T, B, I]

for direction in ("time", "depth", "diagonal", "input"):
    operator = lsc.JacobianOperator.from_model(model, x, direction)
    count, rows, columns = operator.shape
    v = torch.randn(count, columns, dtype=torch.float64)
    u = torch.randn(count, rows, dtype=torch.float64)
    forward = (u * operator.matvec(v)).sum(1)  # u' (J v)
    backward = (operator.rmatvec(u) * v).sum(1)  # (J' u)' v
    difference = float((forward - backward).abs().max())
    print(f"{direction:<9}{count:>3} Jacobians of {rows} x {columns}, largest |u'(J v) - (J' u)' v| {difference:.1e}")

operator = lsc.JacobianOperator.from_model(model, x, "time", layer=0)
print("d s[0, 0] / d s[-1, 0] of sequence 0, without its last digits:")
print((operator.to_dense()[0] * 1000).round() / 1000)
