"""Lee, Kim and Lee 2025, Is There a Better Source Distribution than Gaussian? (arXiv 2512.18184)."""
