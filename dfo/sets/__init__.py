"""Compact convex sets: spaces of vectors that know a linear minimisation oracle and a projection.

=======================  ==============================  ==================================
the points               written                         an extreme point
=======================  ==============================  ==================================
mixtures                 ``Simplex(d, r)``               one coordinate r
sparse vectors           ``L1Ball(d, r)``                one coordinate +-r
vectors of k entries     ``KSparse(d, k, r)``            k coordinates +-r
bounded length           ``L2Ball``, ``LpBall``          a unit vector, scaled
bounded entries          ``LInfBall(d, r)``, a box       a corner
sparse groups            ``GroupBall(d, size, r)``       one whole group
low-rank matrices        ``NuclearBall((a, b), r)``      a matrix of rank one
bounded operators        ``OpNormBall((a, b), r)``       an orthogonal matrix, scaled
density matrices         ``Spectrahedron(n, r)``         a projector, scaled
mixtures of orderings    ``Birkhoff(n)``                 a permutation
anything linear          ``Polytope(...)``               a vertex
several of them          ``Product``, ``Shifted``,       those of the parts
                         ``Scaled``
=======================  ==============================  ==================================
"""

from dfo.sets.balls import KSparse, L1Ball, L2Ball, LInfBall, Simplex
from dfo.sets.combined import Product, Scaled, Shifted
from dfo.sets.convex import Convex, ConvexSet, is_convex
from dfo.sets.matrices import NuclearBall, OpNormBall, Spectrahedron
from dfo.sets.norms import GroupBall, LpBall
from dfo.sets.polytopes import Birkhoff, Polytope

__all__ = [
    "Birkhoff",
    "Convex",
    "ConvexSet",
    "GroupBall",
    "KSparse",
    "L1Ball",
    "L2Ball",
    "LInfBall",
    "LpBall",
    "NuclearBall",
    "OpNormBall",
    "Polytope",
    "Product",
    "Scaled",
    "Shifted",
    "Simplex",
    "Spectrahedron",
    "is_convex",
]
