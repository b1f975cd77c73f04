"""Networks: weights as the unknown, forward passes only."""
