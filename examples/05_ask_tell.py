"""Ask and tell: a laboratory with three benches, whose results come back in any order, and sometimes not at all."""

import random

import numpy as np

import dfo


def brew(recipe):
    """A hidden truth: distance of a recipe from the best one. One brew in ten goes wrong."""
    if laboratory.random() < 0.1:
        return float("nan")
    yeast = 0.0 if recipe["yeast"] == "saison" else 0.3
    return abs(recipe["temperature"] - 24.5) / 10 + abs(np.log10(recipe["sugar"] / 80)) + yeast


laboratory = random.Random(0)
space = {
    "temperature": dfo.Float(15, 35),  # degrees
    "sugar": dfo.Float(10, 300, log=True),  # grams a liter
    "yeast": dfo.Choice(["ale", "saison"]),
}
opt = dfo.AskTell("cma", space, seed=2)

benches = []
while opt.nfev < 240:
    while len(benches) < 3:  # keep every bench busy
        benches.append(opt.ask_candidate())
    done = benches.pop(laboratory.randrange(3))  # whichever brew is ready first
    opt.tell(done, brew(done.x))

print(f"{opt.nfev} brews told, {len(opt.pending)} still on the benches")
print(f"best value {opt.best_fun:.3f} with")
for name, value in opt.best_x.items():
    print(f"  {name:<12}{value:.1f}" if isinstance(value, float) else f"  {name:<12}{value}")

# A recipe that somebody else tried is welcome too.
opt.observe({"temperature": 24.5, "sugar": 80.0, "yeast": "saison"}, 0.0)
print(f"after a tip from next door: {opt.best_fun:.3f}")
