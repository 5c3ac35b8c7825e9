"""Everything that a GPU is asked once: is it right, how fast is it, and what does it learn in some minutes?

    make gpu MINUTES=8 DATA=folder/with/cifar-10-batches-bin

packages       what is installed, and what is left out without it
checks         the device against the CPU: training, resuming, solving, likelihood, pairing, closed form
step_speed     a training step of the U-Net beside TorchCFM's, and its share of the peak
training       CIFAR-10 for so many minutes, then samples, likelihood, distances
visit          the order of all this, and the folder that is left
"""
