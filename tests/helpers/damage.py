"""Damages of files, as by failing disks."""


def fill_with_zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def flip_a_bit(path):
    """Flips a bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
