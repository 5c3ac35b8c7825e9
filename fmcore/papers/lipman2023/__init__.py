"""Lipman, Chen, Ben-Hamu, Nickel and Le 2023, Flow Matching for Generative Modeling (arXiv 2210.02747)."""
