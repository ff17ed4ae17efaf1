"""Checks of checkpoints before they are read: checksums, sizes and classes; nothing in them is executed."""

import io
import math
import os
import pickle
import pickletools
import struct
import zipfile
from typing import Any, BinaryIO

import torch

_MAX_STEPS = 4_000_000
"""Instructions of a pickle: an optimizer of 5,000 tensors takes about 0.5 million. Reading takes microseconds each."""
_MAX_PICKLE = 1 << 30
"""Bytes of a pickle without its tensors: a message hub of a million iterations and ten values a step takes 0.3 GB."""
_MAX_RECORDS = 200_000
"""Records of a zip archive, one a tensor: a ViT-g and the state of its optimizer have about 2,000."""
_MAX_EXPANDED = 1 << 24
"""Numbers of a tensor that repeats those stored, as ``torch.Tensor.expand`` makes; others have as many as stored."""
_MAX_NAMES = 1_000
"""Different classes and functions in a pickle; a checkpoint names about ten."""
_FOLDER = 0x10
"""Attribute with which torch reads a record as an empty one."""
_BLOCK = 1 << 20
_END = struct.Struct("<4s4H2LH")
"""End of a zip archive: signature, disk, disk, records of the disk, records, size and offset of the list, comment."""
_END64 = struct.Struct("<4sQ2H2L4Q")
"""The same in 64 bits: signature, size, versions, disks, records of the disk, records, size and offset of the list."""
_LOCATOR = struct.Struct("<4sLQL")
"""Place of the end in 64 bits: signature, disk, offset, disks."""
_HASHED = (1 << 61) - 1
"""Python's hash of an integer is its remainder by this number."""
_MAX_LARGE = 5_000
"""Integers of that size, such as seeds: a dict of as many with equal hashes takes a second to build."""


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

    Records that are compressed, larger than the file, or of equal names are refused.
    """
    records = archive.infolist()
    for one in records:
        if one.compress_type != zipfile.ZIP_STORED or one.file_size != one.compress_size:
            raise zipfile.BadZipFile(f"record {one.filename!r} is compressed: extract the file and save it again")
        if one.is_dir() or one.external_attr & _FOLDER:
            raise zipfile.BadZipFile(f"record {one.filename!r} is marked as a folder")
    if sum(one.file_size for one in records) > length:
        raise zipfile.BadZipFile("its records are larger than the file")
    if len({one.filename for one in records}) < len(records):
        raise zipfile.BadZipFile("two records have the same name")


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


def survey_archive(archive: zipfile.ZipFile) -> set[str]:
    """Returns the names of the classes and functions in an archive of ``torch.save``, without using any of them.

    Raises UnpicklingError if its pickle is too large, or contradicts the records.
    """
    sizes = {one.filename: one.file_size for one in archive.infolist()}
    root = archive.namelist()[0].partition("/")[0]
    if sizes.get(f"{root}/data.pkl", 0) > _MAX_PICKLE:
        raise pickle.UnpicklingError(f"its pickle has more than {_MAX_PICKLE:,} bytes")
    survey = _Survey(io.BytesIO(archive.read(f"{root}/data.pkl")))
    for key, size in survey.storages.items():
        if size > sizes.get(f"{root}/data/{key}", -1):
            raise pickle.UnpicklingError(f"tensor {key} is larger than its record")
    return survey.names


def survey_stream(file: BinaryIO) -> set[str]:
    """Like :func:`survey_archive` for a file of ``torch.save`` before 1.6: five pickles, then the tensors."""
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    names: set[str] = set()
    for _ in range(5):  # a number, a version, the machine, the content, and the order of the tensors
        survey = _Survey(file)
        names |= survey.names
        if sum(survey.storages.values()) > length:
            raise pickle.UnpicklingError("its tensors are larger than the file")
    return names


def check_pickle(file: BinaryIO) -> None:
    """Raises UnpicklingError if a pickle has more instructions than any real file, or an invalid one."""
    start, num_large = file.tell(), 0
    argument: Any
    for count, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        # Python reserves memory for all places up to that of a PUT.
        if count > _MAX_STEPS or (instruction.name.endswith("PUT") and argument > _MAX_STEPS):
            raise pickle.UnpicklingError(f"its pickle has more than {_MAX_STEPS:,} instructions")
        num_large += isinstance(argument, int) and abs(argument) >= _HASHED
        if num_large > _MAX_LARGE:
            raise pickle.UnpicklingError(f"its pickle has more than {_MAX_LARGE:,} integers of 61 bits or more")
    file.seek(start)


class _Stub:
    """Replaces every class and function: accepts what a pickle does to it, and does nothing."""

    def __init__(self, *_: Any) -> None: ...

    def __call__(self, *_: Any) -> "_Stub":
        return self

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None:
        """Ignores an item of a list."""

    def extend(self, values: Any) -> None:
        """Ignores items of a list."""

    def update(self, values: Any) -> None:
        """Ignores items of a set."""


class _Storage:
    """Replaces the numbers of tensors."""

    def __init__(self, count: int) -> None:
        self.count = count


def _tensor(storage: Any, offset: Any, size: Any, *_: Any) -> _Stub:
    """Replaces the functions that build tensors; torch itself checks that a tensor lies inside of its storage."""
    count = storage.count if isinstance(storage, _Storage) else 0
    if not isinstance(size, _Stub) and math.prod(size) > max(count, _MAX_EXPANDED):
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(size)} has {count} numbers")
    return _Stub()


def _bytes(*given: Any) -> _Stub:
    if given and isinstance(given[0], int):
        raise pickle.UnpicklingError("its pickle asks for memory without content")
    return _Stub()


class _TensorStub(_Stub):
    """Replaces tensor classes, which are built empty or, by torch < 0.2, from a storage."""

    def __init__(self, *given: Any) -> None:
        _bytes(*given)

    def __setstate__(self, state: Any) -> None:
        _tensor(*state)


class _Survey(pickle.Unpickler):
    """Collects the names in a pickle and the sizes of its storages, without building anything."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")
        self.classes: dict[str, Any] = {}
        self.storages: dict[str, int] = {}  # bytes by key
        check_pickle(file)
        self.load()

    @property
    def names(self) -> set[str]:
        return set(self.classes)

    def find_class(self, module: str, name: str) -> Any:
        full = f"{'builtins' if module == '__builtin__' else module}.{name}"  # the name in Python 2 and protocol 2
        if full not in self.classes:
            if len(self.classes) > _MAX_NAMES:
                raise pickle.UnpicklingError(f"its pickle names more than {_MAX_NAMES:,} classes")
            kind = _TensorStub if module.startswith("torch") and name.endswith("Tensor") else _Stub
            self.classes[full] = type("_Named", (kind,), {"full_name": full})
        if full.startswith("torch._utils._rebuild_tensor"):
            return _tensor
        return _bytes if full == "builtins.bytearray" else self.classes[full]

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) < 5 or type(pid[4]) is not int or type(pid[2]) is not str:
            raise pickle.UnpicklingError("a tensor has no storage")
        key, count = pid[2], pid[4]
        stored: Any = getattr(torch, str(getattr(pid[1], "full_name", "")).rpartition(".")[2], None)
        dtype = getattr(stored, "_dtype", None)  # `dtype` warns that storages with a type are deprecated
        itemsize = dtype.itemsize if isinstance(dtype, torch.dtype) else 1
        if count < 0:
            raise pickle.UnpicklingError(f"tensor {key} has {count} numbers")
        self.storages[key] = max(self.storages.get(key, 0), count * itemsize)
        return _Storage(count)
