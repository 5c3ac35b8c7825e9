"""Pictures of every kind as three colours of 8 bits: the one way in which photographs become numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

# What Pillow converts to RGB without loss of scale; of pictures with transparency it drops the transparency.
DIRECT = ("1", "L", "P", "PA", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
UNMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}  # colours that are stored times their opacity
GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")


def as_rgb(image: Any) -> Any:
    """A Pillow image as one of mode RGB.

    Grey becomes three equal colours. Grey of 16 bits, 0 to 65,535, becomes round(v / 257), so that white stays white;
    Pillow itself would cut everything above 255. Transparency is ignored: each pixel has the colour that is stored for
    it, also where it is not seen. Colours stored times their opacity are divided by it first.

    Raises:
        ValueError: for a mode without a known white, such as F or 32-bit I, or one that is not known.
    """
    from PIL import Image

    mode = image.mode
    if mode in UNMULTIPLIED:
        return image.convert(UNMULTIPLIED[mode]).convert("RGB")
    # Older versions of Pillow call the 16 bits of a grey PNG file I.
    if mode in GREY_16 or (mode == "I" and image.format == "PNG"):
        grey = (np.asarray(image).astype(np.int64) + 128) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if mode in DIRECT:
        return image.convert("RGB")
    raise ValueError(
        f"its pixels are of mode {mode}, of which nothing says what is white: save it as grey or RGB of 8 bits"
    )
