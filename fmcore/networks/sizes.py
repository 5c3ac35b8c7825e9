"""Which sizes a network can have: looked at before its weights are made, and named as the settings that they are."""

from __future__ import annotations

from collections.abc import Sequence

from fmcore.validation import check_count


def check_sizes(
    shape: tuple[int, ...],
    channels: int,
    multipliers: Sequence[int],
    blocks: int,
    attention: Sequence[int],
    dropout: float,
) -> None:
    """Raise ValueError on sizes that no U-Net can have; the arguments are those of `fmcore.networks.UNet`."""
    if len(shape) != 3:
        raise ValueError(f"shape must be (channels, height, width) of one image, got {shape}")
    for size in shape:
        check_count("shape", size, "channels, rows or columns")
    check_count("channels", channels, least=2)
    if channels % 2:
        raise ValueError(f"channels must be an even number (half cosines, half sines of the time), got {channels}")
    if len(multipliers) == 0:
        raise ValueError("multipliers is empty: give one number a level, for example multipliers=1,2")
    for multiplier in multipliers:
        check_count("multipliers", multiplier, "widths")
    check_count("blocks", blocks)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout}: it is a probability from 0 to below 1, for example dropout=0.1")
    factor = 2 ** (len(multipliers) - 1)
    if shape[1] % factor or shape[2] % factor:
        raise ValueError(
            f"{len(multipliers)} levels halve the image {len(multipliers) - 1} times, so height and width must be "
            f"divisible by {factor}; got {shape[1]}x{shape[2]}: pass fewer multipliers, or pad the images"
        )
    resolutions = [shape[1] // 2**level for level in range(len(multipliers))]
    unknown = [resolution for resolution in attention if resolution not in resolutions]
    if unknown:
        raise ValueError(f"attention at resolution {unknown[0]}, but this network only has {resolutions}")


def check_labels(num_classes: int | None) -> None:
    """Raise ValueError unless there is a label, or the network is one without labels."""
    if num_classes is not None:
        check_count("num_classes", num_classes, "labels")


def check_layers(**sizes: int) -> None:
    """Raise ValueError unless each width and depth of a network, given by name, is a whole number of at least 1."""
    for name, size in sizes.items():
        check_count(name, size)


def head_count(channels: int, heads: int, head_channels: int | None) -> int:
    """How many heads a layer of this width gets; raises ValueError if they do not share it evenly."""
    check_count("heads", heads)
    if head_channels is not None:
        check_count("head_channels", head_channels, "channels of a head")
    count = heads if head_channels is None else channels // head_channels
    if count < 1 or channels % count or (head_channels is not None and channels % head_channels):
        asked = f"{heads} heads" if head_channels is None else f"heads of {head_channels} channels"
        raise ValueError(f"a layer of {channels} channels cannot be split into {asked}: change heads or head_channels")
    return count
