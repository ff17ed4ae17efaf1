"""Checks of the zip archives of checkpoints before they are read: the list of records, and their checksums."""

import os
import struct
import zipfile
from typing import BinaryIO

_MAX_RECORDS = 200_000
"""Records of a zip archive, one a tensor: a ViT-g and the state of its optimizer have about 2,000."""
_FOLDER = 0x10
"""Attribute with which torch reads a record as an empty one."""
_BLOCK = 1 << 20
_END = struct.Struct("<4s4H2LH")
"""End of a zip archive: signature, disk, disk, records of the disk, records, size and offset of the list, comment."""
_END64 = struct.Struct("<4sQ2H2L4Q")
"""The same in 64 bits: signature, size, versions, disks, records of the disk, records, size and offset of the list."""
_LOCATOR = struct.Struct("<4sLQL")
"""Place of the end in 64 bits: signature, disk, offset, disks."""


def open_archive(file: BinaryIO) -> zipfile.ZipFile:
    """Opens a zip archive as ``torch.save`` writes it; raises BadZipFile if it is damaged or another one."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - _END.size))
    end = file.read()
    if len(end) < _END.size or not end.startswith(b"PK\x05\x06") or end[-2:] != b"\0\0":
        raise zipfile.BadZipFile("a truncated zip archive, as after an interrupted copy")
    count, size, offset = _END.unpack(end)[4:7]
    follows = length - _END.size  # end of the list of records
    file.seek(max(0, follows - _END64.size - _LOCATOR.size))
    end64 = file.read(_END64.size + _LOCATOR.size)
    if end64[-_LOCATOR.size :].startswith(b"PK\x06\x07"):  # the same in 64 bits, in front of the end
        follows -= len(end64)
        count, size, offset = _END64.unpack(end64[: -_LOCATOR.size])[7:]
        place = _LOCATOR.unpack(end64[-_LOCATOR.size :])[2]
        if place != follows or not end64.startswith(b"PK\x06\x06"):
            raise zipfile.BadZipFile("a zip archive with two lists of records")
    if count > _MAX_RECORDS:
        raise zipfile.BadZipFile(f"it has {count:,} records, more than {_MAX_RECORDS:,}")
    # Python looks for the list in front of the end, and torch at its offset.
    if offset + size != follows:
        raise zipfile.BadZipFile("a zip archive whose list of records is not in front of its end")
    try:
        return zipfile.ZipFile(file)
    except (OSError, ValueError, NotImplementedError, struct.error) as error:
        raise zipfile.BadZipFile(f"a damaged zip archive: {error}") from error


def check_list(archive: zipfile.ZipFile, length: int) -> None:
    """Raises BadZipFile if the list of records in a file of ``length`` bytes is not one that ``torch.save`` writes.

    Records that are compressed, larger than the file, or of names that are equal but for their case are refused.
    """
    records = archive.infolist()
    for one in records:
        if one.compress_type != zipfile.ZIP_STORED or one.file_size != one.compress_size:
            raise zipfile.BadZipFile(f"record {one.filename!r} is compressed: extract the file and save it again")
        if one.is_dir() or one.external_attr & _FOLDER:
            raise zipfile.BadZipFile(f"record {one.filename!r} is marked as a folder")
    if sum(one.file_size for one in records) > length:
        raise zipfile.BadZipFile("its records are larger than the file")
    # Python looks a name up as it is, up to a NUL; torch ignores its case.
    if len({one.filename.casefold() for one in records}) < len(records):
        raise zipfile.BadZipFile("two records have the same name")
    if any("\0" in one.orig_filename for one in records):
        raise zipfile.BadZipFile("the name of a record has a NUL")


def check_records(archive: zipfile.ZipFile, length: int) -> None:
    """Reads all records of an archive in a file of ``length`` bytes, and compares their checksums.

    Raises BadZipFile with the name of a damaged record, or as :func:`check_list`.
    """
    check_list(archive, length)
    for one in archive.infolist():
        try:
            with archive.open(one) as record:
                while record.read(_BLOCK):
                    pass
        except (RuntimeError, NotImplementedError, EOFError, ValueError, struct.error, zipfile.BadZipFile) as error:
            raise zipfile.BadZipFile(f"record {one.filename!r} is damaged ({error})") from error
