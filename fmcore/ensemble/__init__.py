"""Many small networks trained as one: the engine of simulations in the plane.

An experiment in two dimensions needs tens of independent runs of a network so small that starting an operation takes
longer than the operation. `Ensemble` stacks R of them and takes a step of all in the operations of one; member k gets
the weights that it would have got alone.

    Ensemble        R networks (x, t) -> v in one vector of parameters, with a gradient written by hand
    Member, train   what a member learns from, with randomness of its own, and the loop over steps
    pair            exact optimal transport within each of many small batches
    plane           the target and the directional sources of Lee, Kim and Lee 2025 (arXiv 2512.18184)
"""

from fmcore.ensemble.networks import Ensemble, SeluMLP
from fmcore.ensemble.pairing import pair
from fmcore.ensemble.plane import Arcs, three_directions
from fmcore.ensemble.training import Member, draw_batches, train

__all__ = ["Arcs", "Ensemble", "Member", "SeluMLP", "draw_batches", "pair", "three_directions", "train"]
