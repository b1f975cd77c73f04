"""Genetic algorithms in one folder: chains of mutations, recombination of vectors and strings, novelty search."""

from dfo.solvers.genetic.deep import DeepGA, DeepGAState
from dfo.solvers.genetic.genome import Genome
from dfo.solvers.genetic.novelty import NoveltySearch, NoveltyState
from dfo.solvers.genetic.real import Genetic, GeneticState

__all__ = ["DeepGA", "DeepGAState", "Genetic", "GeneticState", "Genome", "NoveltySearch", "NoveltyState"]
