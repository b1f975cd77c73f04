"""Formulae that two or more solvers share: pure functions on arrays, each written once."""
