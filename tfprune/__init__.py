"""tfprune gets Keras segmentation networks onto small devices and proves it on the exported file."""

from __future__ import annotations

__version__ = "0.1.0"
