"""Networks: a network learns to read digits by forward passes alone, without a gradient.

The members of a step ride through the network together, and its weights are written only to move them. The second part
trains on the number of errors, which has no gradient. Needs torch and scikit-learn
(pip install "dfo-optim[torch]" scikit-learn).
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import dfo.nn

torch.set_num_threads(1)
draw = torch.Generator().manual_seed(0)
images, digits = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
order = torch.randperm(len(images), generator=draw)
images, digits = images[order].float() / 16, digits[order]
train, test = (images[:1437], digits[:1437]), (images[1437:], digits[1437:])

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


def loss(module, batch):
    """Return one loss an image, so that members can ride together."""
    return cross_entropy(module(batch[0]), batch[1], reduction="none")


def errors(module, batch):
    """Return 1 for a wrong image, 0 for a right one."""
    return (module(batch[0]).argmax(1) != batch[1]).float()


def run(opt, objective, steps):
    """Take steps on random images while the rate falls to zero; return the test accuracy."""
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, steps)
    for _ in range(steps):
        rows = torch.randint(len(train[0]), (64,), generator=draw)
        opt.step(objective, (train[0][rows], train[1][rows]))
        schedule.step()
    return 1 - float(errors(net, test).mean())


print(f"at the start                   {1 - float(errors(net, test).mean()):.1%} of the test images right")
opt = dfo.nn.ES(net, lr=0.01, population=64, sigma=0.05, rule="momentum", decay=0.0)
print(f"300 steps on cross-entropy     {run(opt, loss, 300):.1%}")
print(opt.engine.describe())

opt = dfo.nn.ES(net, lr=0.002, population=64, sigma=0.05, rule="momentum", decay=0.0)
print(f"100 steps on errors themselves {run(opt, errors, 100):.1%}")
