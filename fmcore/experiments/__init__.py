"""How one experiment runs, whichever paper it is from.

    config     what an experiment is: every field can be set as field=value
    records    what was run, on what, and what came out
    drawing    what several pictures share
    run        train a network and keep it; load a finished run and draw from it
    evaluate   measure a finished run

Each imports those above it only. The named experiments are in `fmcore.papers.catalog`.
"""
