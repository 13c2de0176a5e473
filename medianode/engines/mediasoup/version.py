"""The version of mediasoup-worker that the adapter speaks to."""

from typing import Final

VERSION: Final = "3.27.1"
