"""Named experiments: their catalog, how they are run, and the records they leave."""
