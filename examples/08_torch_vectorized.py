"""Torch: a small network trained without gradients, all members of a batch in one call.

Needs torch (pip install "dfo-optim[torch]"). The start is a tensor, so every point is a tensor on its device.
"""

import torch

import dfo

device = "cuda" if torch.cuda.is_available() else "cpu"
generator = torch.Generator().manual_seed(0)
inputs = (4 * torch.rand(64, 1, generator=generator) - 2).to(device)
targets = torch.sin(2 * inputs)
HIDDEN = 8


def losses(weights):
    """Mean squared errors ``(n,)`` of ``n`` networks, one a row of ``weights``, ``(n, d)``."""
    w1, b1, w2, b2 = weights.split([HIDDEN, HIDDEN, HIDDEN, 1], dim=1)
    hidden = torch.tanh(inputs * w1[:, None, :] + b1[:, None, :])  # (n, 64, HIDDEN)
    outputs = (hidden * w2[:, None, :]).sum(dim=2, keepdim=True) + b2[:, None, :]  # (n, 64, 1)
    return ((outputs - targets) ** 2).mean(dim=(1, 2))


start = 0.5 * torch.randn(3 * HIDDEN + 1, generator=generator).to(device)
res = dfo.minimize(losses, start, method=dfo.CMA(sigma=0.3), budget=4_000, vectorized=True)

print(f"{start.numel()} weights on {res.x.device}, {res.x.dtype}")
print(f"error at the start:  {float(losses(start[None])[0]):.4f}")
print(f"error at the end:    {res.fun:.4f}")
print(f"{res.nfev} evaluations in {res.nit} calls of the function, {res.seconds:.1f} s")
