"""Which side of a photograph is up: cameras store the pixels as the sensor lay, and note in EXIF how to turn them."""

from __future__ import annotations

from typing import Any

ORIENTATION = 0x0112  # of EXIF; 1 is upright
# What turns each other orientation upright, by the names of Pillow, which counts angles against the clock.
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def turn_of(image: Any) -> Any:
    """How to turn a Pillow image upright, for its method transpose; None if it is, or if nothing is noted.

    EXIF data that cannot be read note nothing: programs that show pictures take it so, and Pillow does for JPEG files.

    Raises:
        OSError, SyntaxError, ValueError: if the image cannot be decoded, as Pillow says it.
    """
    from PIL import Image

    image.load()  # some formats have the note behind the pixels, and TIFF is turned while it is read
    try:
        name = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # whatever the bytes are taken for: Pillow has no list of what it raises here
        return None
    return None if name is None else Image.Transpose[name]
