"""Packing of images into shards, and streaming from a disk or an object store."""

from sspyr_mm.datasets.streaming.shards import is_packed, is_url, pack
from sspyr_mm.datasets.streaming.streamed import StreamedImages

__all__ = ["StreamedImages", "is_packed", "is_url", "pack"]
