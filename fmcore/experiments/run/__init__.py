"""Train a network, and draw from it once it is trained: everything that lies in the folder of a run."""
