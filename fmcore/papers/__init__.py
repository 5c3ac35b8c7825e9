"""The three works that the course teaches: their experiments, measurements and tables, beside the papers' own numbers.

    lipman2023      flow matching: the paths and losses of Table 1
    bertrand2025    the closed form: the collapse of the exact velocity, few images, hybrids, empirical flow matching
    lee2025         sources: the geometry of images, the simulation in the plane, norm alignment and pruning

    catalog         every named experiment: fmcore train NAME
    measurements    every named measurement: fmcore measure NAME
    tables          every table: fmcore table NAME

A paper imports `fmcore.experiments` and what papers share (reference, blocks, printing, networks,
chosen_images), and never another paper.
"""
