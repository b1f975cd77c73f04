"""Named parameters: tune a support vector machine of scikit-learn by cross-validation.

Needs scikit-learn (pip install "dfo-optim[bench]"). The data come with scikit-learn; nothing is downloaded.
"""

from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import dfo

X, y = load_digits(return_X_y=True)
X, y = X[:400], y[:400]


def error(p):
    """Share of images given the wrong digit, by 3-fold cross-validation."""
    model = make_pipeline(StandardScaler(), SVC(C=p["C"], gamma=p["gamma"], kernel=p["kernel"], degree=p["degree"]))
    return 1.0 - cross_val_score(model, X, y, cv=3).mean()


space = {
    "C": dfo.Float(1e-2, 1e3, log=True, init=1.0),
    "gamma": dfo.Float(1e-5, 1e-1, log=True),
    "kernel": dfo.Choice(["rbf", "poly"]),
    "degree": dfo.Int(2, 4),
}
default = error({"C": 1.0, "gamma": "scale", "kernel": "rbf", "degree": 3})

res = dfo.minimize(error, space, budget=40, seed=1)

print(f"error with scikit-learn's defaults: {default:.3f}")
print(f"error after {res.nfev} evaluations:      {res.fun:.3f}")
for name, value in res.x.items():
    print(f"  {name:<6} = {value:.4g}" if isinstance(value, float) else f"  {name:<6} = {value}")
