"""Evolution strategies on inner problems that are unrolled a few steps at a time.

One family. ``N`` members in antithetic pairs keep an inner state each, on lanes of the oracle; every unroll gives
loss differences ``delta_i = L_i+ - L_i-``, and the estimate of the gradient credits them with some noise ``c_i``::

    g = 1 / (N sigma^2) sum_i c_i delta_i    over the N/2 pairs

========================  =====================  ====================================================
method                    noise eps_i            credited noise c_i
========================  =====================  ====================================================
full ES                   one an episode         eps_i, once the episode is over: theta stands still until then
ES-Single (eq. 3)         one an episode         eps_i
PES (eq. 11)              one an unroll          xi_i, the sum over the unrolls of the episode so far
GPES                      one every ``share``    the sum of those of the episode so far
truncated ES              one an unroll          eps_i; all members leave from one inner state, which follows theta
========================  =====================  ====================================================

At a fixed theta the estimates of ES-Single and PES, summed over an episode, are unbiased for the smoothed loss; those
of ES-Single sum to that of full ES with the same noise. Truncated ES is biased: it does not see what theta did to
the state. One accumulator serves a pair, since the partner's is its negative, and noise is drawn again from its key
whenever it is needed, so that ES-Single keeps nothing of the size of the population.

Where an episode ends inside an unroll, code that runs on into the next episode credits the losses before the end
with ``xi + eps`` and those after it with ``eps`` alone. Here an unroll stops at the end (``Values.ended``): all its
losses are credited with ``xi + eps``, ``xi`` is then set to 0, and what comes after the reset belongs to the next
unroll, whose ``xi + eps`` is ``eps``.

References: Metz et al. 2019, arXiv:1810.10180 (full and truncated ES); Vicol, Metz and Sohl-Dickstein 2021,
arXiv:2112.13835 (PES); Vicol, Kolter and Swersky 2023, arXiv:2304.11153 (ES-Single); Li et al. 2023,
arXiv:2304.12180 (GPES, noise reuse, members out of step).
"""

from dfo.solvers.unrolled_es.gpes import GPES, NRES, PES, ESSingle, FullES, GPESState
from dfo.solvers.unrolled_es.truncated import TruncatedES, TruncatedESState

__all__ = ["GPES", "NRES", "PES", "ESSingle", "FullES", "GPESState", "TruncatedES", "TruncatedESState"]
