"""Data: toy distributions in the plane, and real images."""

from fmcore.data import toy
from fmcore.data.digits import digits
from fmcore.data.images import ImageData, dequantize, scale, to_uint8

__all__ = ["ImageData", "dequantize", "digits", "scale", "to_uint8", "toy"]
