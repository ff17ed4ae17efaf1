"""Crafted checkpoints are refused at once, in little memory, with one clear error."""

import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from mmengine.fileio import load
from mmengine.logging import HistoryBuffer

from sspyr_mm.checkpoints import read_backbone
from sspyr_mm.tensor_files import peek_checkpoint, read_checkpoint, safe_loading, survey

MEMORY = 400 << 20  # bytes of address space above the imports'


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def records(content):
    with zipfile.ZipFile(io.BytesIO(saved(content))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path, parts, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def with_pickle(path, data):
    packed(path, {**records({"a": torch.ones(2)}), "archive/data.pkl": data})


def deflated(path):
    packed(path, {**records({}), "archive/data/0": bytes(100 << 20)}, zipfile.ZIP_DEFLATED)


def deflated_pickle(path):
    packed(path, {**records({}), "archive/data.pkl": b"\x80\x02" + b"}" * (100 << 20)}, zipfile.ZIP_DEFLATED)


def marks(path):
    with_pickle(path, b"\x80\x02" + b"(" * 5_000_000 + b".")


def empty_dicts(path):
    with_pickle(path, b"\x80\x02" + b"}" * 5_000_000 + b".")


def far_memo(path):
    with_pickle(path, b"\x80\x02}r\xff\xff\xff\xff.")


def tiny_tensors(path):
    parts = records({f"k{i}": torch.zeros(1) for i in range(10)})
    parts.update({f"archive/data/{i}": b"1234" for i in range(201_000)})
    packed(path, parts)


def many_classes(path):
    with_pickle(path, b"\x80\x02(" + b"".join(b"cos\nf%d\n" % i for i in range(10_000)) + b"t.")


def changed_count(path, count):
    """A tensor that says it has more numbers than are stored."""
    parts = records({"a": torch.ones(2)})
    old = b"K\x02tq"
    assert parts["archive/data.pkl"].count(old) == 1
    parts["archive/data.pkl"] = parts["archive/data.pkl"].replace(old, b"J" + struct.pack("<i", count) + b"tq")
    packed(path, parts)


def large_storage(path):
    changed_count(path, 1_000_000)


def negative_storage(path):
    changed_count(path, -2)


def repeated_tensor(path):
    torch.save({"a": torch.ones(1).expand(10**10)}, path)


def old_storage(path):
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert content.count(b"K\x02N") == 1
    path.write_bytes(content.replace(b"K\x02N", b"\x8a\x05\0\0\0\0\x02N"))  # 2^33 numbers


def empty_tensor(path):
    with_pickle(path, b"\x80\x02}U\x01actorch\nTensor\n\x8a\x05\0\0\0\0\x02\x85Rs.")


def bytes_without_content(path):
    path.write_bytes(b"\x80\x02}U\x01acbuiltins\nbytearray\n\x8a\x05\0\0\0\0\x10\x85Rs.")


def marks_in_a_pickle(path):
    path.write_bytes(b"\x80\x02" + b"(" * 5_000_000 + b".")


def one_array_many_times(path):
    array = np.zeros(1 << 20)
    path.write_bytes(pickle.dumps({"a": [array] * 100_000}, protocol=4))


def one_buffer_many_times(path):
    class Array:
        def __reduce__(self):
            return np.ndarray, ((1 << 20,), "<f8", data)

    data = bytearray(8 << 20)
    path.write_bytes(pickle.dumps({"a": [Array() for _ in range(10_000)]}, protocol=4))


def nested_tuples(path):
    with_pickle(path, b"\x80\x02}U\x01a)" + b"\x85" * 300_000 + b"s.")


def nested_lists(path):
    with_pickle(path, b"\x80\x02}U\x01a" + b"]" * 300_000 + b"a" * 299_999 + b"s.")


def safetensors(path, header):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def nested_header(path):
    safetensors(path, b'{"a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}")


def nested_metadata(path):
    safetensors(path, {"__metadata__": {"sspyr_mm": '{"a":' * 100_000 + "1" + "}" * 100_000}})


def large_header(path):
    safetensors(path, b'{"a":[' + b"{}," * 12_000_000 + b"{}]}")


def outside_of_the_file(path):
    safetensors(path, {"a": {"dtype": "F32", "shape": [1 << 30], "data_offsets": [0, 1 << 32]}})


def two_lists(path):
    """torch reads a list of records at the stated offset, Python the one in front of the end."""
    packed(path, {**records({"a": torch.ones(2)}), "archive/data/0": bytes(8 << 20)}, zipfile.ZIP_DEFLATED)
    first = path.read_bytes()
    packed(path, records({"a": torch.ones(2)}))
    second = path.read_bytes()
    end = struct.unpack("<4s4H2LH", second[-22:])
    assert end[5] == struct.unpack("<4s4H2LH", first[-22:])[5]  # sizes of the lists
    listed = first[:-22]
    offset = struct.unpack("<4s4H2LH", first[-22:])[6]
    path.write_bytes(listed + second[:-22] + struct.pack("<4s4H2LH", *end[:6], offset, 0))


def two_lists_of_64_bits(path):
    packed(path, records({"a": torch.ones(2)}))
    content = path.read_bytes()
    end = struct.unpack("<4s4H2LH", content[-22:])
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, end[3], end[4], end[5], end[6] - 1)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(content) - 22, 1)
    path.write_bytes(content[:-22] + end64 + locator + content[-22:])


def equal_names(path):
    parts = records({"a": torch.ones(2)})
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in [*parts.items(), ("archive/data/0", b"12345678")]:
            archive.writestr(name, data)


def overlapping_records(path):
    """Every record is the same one of the file."""
    packed(path, {**records({"a": torch.ones(2)}), **{f"archive/data/{i}": bytes(100_000) for i in range(1, 9)}})
    content = bytearray(path.read_bytes())
    size, offset = struct.unpack("<4s4H2LH", content[-22:])[5:7]
    kept = content[:offset].index(b"archive/data/2") - 30
    listed = content[offset : offset + size]
    content[kept:offset] = b""
    content[-22:] = struct.pack("<4s4H2LH", *struct.unpack("<4s4H2LH", content[-22:])[:6], kept, 0)
    assert bytes(listed) in bytes(content)
    path.write_bytes(content)


def equal_hashes(path):
    """Each key of a dict is compared with all before it."""
    with_pickle(path, pickle.dumps({"a": {k * ((1 << 61) - 1): 0 for k in range(1, 10_000)}}, protocol=2))


HOSTILE = [
    two_lists,
    two_lists_of_64_bits,
    equal_names,
    overlapping_records,
    equal_hashes,
    deflated,
    deflated_pickle,
    marks,
    empty_dicts,
    far_memo,
    tiny_tensors,
    many_classes,
    large_storage,
    negative_storage,
    repeated_tensor,
    old_storage,
    empty_tensor,
    bytes_without_content,
    marks_in_a_pickle,
    one_array_many_times,
    one_buffer_many_times,
    nested_tuples,
    nested_lists,
    nested_header,
    nested_metadata,
    large_header,
    outside_of_the_file,
]

READ = """
import resource, sys
from sspyr_mm.checkpoints import read_backbone
from sspyr_mm.checkpoints.formats import backbones
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]), -1))
for path in sys.argv[2:]:
    try:
        read_backbone(path)
    except ValueError as error:
        print(error)
    except BaseException as error:
        print("UNEXPECTED", type(error).__name__)
"""


REASONS = {
    "two_lists": "list of records is not in front of its end",
    "two_lists_of_64_bits": "list of records is not in front of its end",
    "equal_names": "two records have the same name",
    "overlapping_records": "its records are larger than the file",
    "equal_hashes": "more than 5,000 keys other than names and numbers",
    "deflated": "record 'archive/data.pkl' is compressed",
    "deflated_pickle": "record 'archive/data.pkl' is compressed",
    "marks": "more than 2,000,000 instructions",
    "empty_dicts": "more than 2,000,000 instructions",
    "far_memo": "more than 2,000,000 instructions",
    "tiny_tensors": "201,006 records, more than 200,000",
    "many_classes": "names more than 1,000 classes",
    "large_storage": "tensor 0 is larger than its record",
    "negative_storage": "tensor 0 has -2 numbers",
    "repeated_tensor": r"a tensor of shape \(10000000000,\) has 1 numbers",
    "old_storage": "its tensors are larger than the file",
    "empty_tensor": "asks for memory without content",
    "bytes_without_content": "asks for memory without content",
    "marks_in_a_pickle": "more than 2,000,000 instructions",
    "one_array_many_times": "hold no tensors",
    "one_buffer_many_times": "its arrays are larger than the file",
    "nested_tuples": "nested in more than 100 levels",
    "nested_lists": "nested in more than 100 levels",
    "nested_header": "recursion",
    "nested_metadata": "recursion",
    "large_header": "its header has 36,000,010 bytes",
    "outside_of_the_file": "its header states 4,294,9",
}

COSTLY = (marks, empty_dicts, tiny_tensors, marks_in_a_pickle, one_array_many_times, nested_tuples, nested_lists)


@pytest.mark.parametrize("write", [one for one in HOSTILE if one not in COSTLY])
def test_hostile_file_is_refused(write, tmp_path):
    write(tmp_path / "x.pth")
    for read in (read_backbone, peek_checkpoint):
        with pytest.raises(ValueError, match=REASONS[write.__name__]):
            read(tmp_path / "x.pth")


@pytest.mark.slow
def test_hostile_files_are_refused_in_little_memory(tmp_path):
    paths = [tmp_path / f"{write.__name__}.pth" for write in HOSTILE]
    for write, path in zip(HOSTILE, paths, strict=True):
        write(path)
    command = [sys.executable, "-W", "ignore", "-c", READ, str(MEMORY), *map(str, paths)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for path, line in zip(paths, lines, strict=True):
        assert line.startswith(f"{path} ") and "UNEXPECTED" not in line, line
        assert re.search(REASONS[path.stem], line), line


def test_size_of_the_pickle_is_limited(tmp_path, monkeypatch):
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "x.pth")
    monkeypatch.setattr(survey, "_MAX_PICKLE", 64)
    for read in (read_backbone, peek_checkpoint):
        with pytest.raises(ValueError, match="its pickle has more than 64 bytes"):
            read(tmp_path / "x.pth")


def test_mmengine_reads_no_pickle(tmp_path):
    class Call:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    for name in ("x.pkl", "x.pickle"):
        (tmp_path / name).write_bytes(pickle.dumps(Call()))
        with safe_loading(), pytest.raises(ValueError, match="is a pickle, which can run any code"):
            load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_large_real_files_are_read(tmp_path):
    """An optimizer of 5,000 tensors, and the log of a run of 200,000 iterations."""
    state = {
        i: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)} for i in range(1_666)
    }
    history = HistoryBuffer(np.arange(200_000.0), np.ones(200_000, int))
    hub = {"log_scalars": {f"train/{i}": history for i in range(3)}, "runtime_info": {}, "resumed_keys": {}}
    content = {"state_dict": {"a": torch.ones(2)}, "optimizer": {"state": state}, "message_hub": hub}
    torch.save(content, tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth", keep_log=True)
    assert len(found["optimizer"]["state"]) == 1_666
    for ours in found["message_hub"]["log_scalars"].values():
        assert (ours.data[0] == history.data[0]).all() and (ours.data[1] == history.data[1]).all()
