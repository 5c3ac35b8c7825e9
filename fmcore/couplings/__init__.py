"""Couplings: which source sample meets which data sample.

A coupling takes a batch x0 from the source and a batch x1 from the data, drawn independently of each other, and returns
them paired. The data keep their order, so labels that belong to x1 stay right; only x0 is moved. Whatever changes an
image (flips, crops, dequantization) comes before the coupling: pairs are made of the points that the path will join.

    independent      x0 and x1 as they were drawn
    MinibatchOT      optimal transport within the batch, exact or entropic, within classes where labels are given
    NearestNoise     for each data sample the nearest of a few source samples: cheap, and it changes the source
    FixedPairs       pairs that already belong together: ``reflow`` makes them from a flow
    prefetch_pairs   draws and pairs the next batch in the background of the current training step
"""

from fmcore.couplings.fixed import FixedPairs, reflow
from fmcore.couplings.minibatch import MinibatchOT, independent
from fmcore.couplings.nearest import NearestNoise
from fmcore.couplings.prefetch import prefetch_pairs

__all__ = ["FixedPairs", "MinibatchOT", "NearestNoise", "independent", "prefetch_pairs", "reflow"]
