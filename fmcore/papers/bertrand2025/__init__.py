"""Bertrand, Gagneux, Massias and Emonet 2025, On the Closed-Form of Flow Matching (arXiv 2506.03719)."""
