"""Small files whose values take very long to hash, to compare or to walk through are refused at once."""

import pickle
import zipfile

import numpy as np
import pytest
import torch

from sspyr_mm.checkpoints import read_backbone
from sspyr_mm.tensor_files import peek_checkpoint, read_checkpoint

LEVELS = 40  # doubled at each: 10^12
MASK = (1 << 64) - 1
P1, P2, P5 = 11400714785074694791, 14029467366897019727, 2870177450012600261
"""Constants of the hash of tuples (xxHash)."""


def packed(path, content, names=("x/data.pkl",)):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, content)
        archive.writestr("x/byteorder", "little")
        archive.writestr("x/version", "3\n")


def shared(kind):
    """Returns instructions for a list of lists or tuples, whose two items are both the one before."""
    built = b"]()q\0"
    for i in range(LEVELS):
        pair = b"h%ch%c" % (i, i)
        built += (pair + b"\x86" if kind is tuple else b"](" + pair + b"e") + b"q%c" % (i + 1)
    return built + b"e"


def key_of(build):
    """Returns a pickle that uses the last of those tuples as object 40."""
    return b"\x80\x02" + shared(tuple) + b"0" + build.replace(b"KEY", b"h%c" % LEVELS)


def rotated(value):
    return (value << 31 | value >> 33) & MASK


def equal_tuples(count):
    """Returns different pairs of numbers with the same hash."""
    inverse, found, first = pow(P2, -1, 1 << 64), [], 0
    while len(found) < count:
        first += 1
        lane = rotated(P5 + first * P2 & MASK) * P1 & MASK
        second = (0x123456789ABCDEF - lane) * inverse & MASK
        second -= (second >> 63) << 64
        if abs(second) < (1 << 61) - 1 and second != -1:
            found.append((first, second))
    assert len({hash(pair) for pair in found}) == 1
    return found


class Call:
    """Object whose pickle is the call of a function with these arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def dumped(content):
    return pickle.dumps(content, protocol=2)


def named(name, *arguments):
    """A call of a function whose name the pickle states, which need not exist here."""
    module, _, function = name.rpartition(".")
    return b"c" + module.encode() + b"\n" + function.encode() + b"\n(" + b"".join(arguments) + b"tR"


LARGE = b"\x8a\x05\0\0\0\0\x02"  # 2^33
STORAGE = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x01tQ"


def value(instructions):
    return b"\x80\x02}U\x01a" + instructions + b"s."


FILES = {
    "key": (key_of(b"}KEYNs."), "a key of a dict has more than 64 items"),
    "key among several": (key_of(b"}(KEYNu."), "a key of a dict has more than 64 items"),
    "key of a whole dict": (key_of(b"(KEYNd."), "a key of a dict has more than 64 items"),
    "key of an ordered dict": (
        key_of(b"}U\x01a" + named("collections.OrderedDict", b"](KEYN\x86e") + b"s."),
        "a key of a dict has more than 64 items",
    ),
    "member of a set": (
        key_of(b"}U\x01a" + named("__builtin__.set", b"](KEYe") + b"s."),
        "a key of a dict has more than 64 items",
    ),
    "long integer": (value(b"}\x8b\x10\x27\0\0" + b"\x7f" * 10_000 + b"Ns"), "a key of a dict has more than"),
    "equal tuples": (dumped({"a": dict.fromkeys(equal_tuples(5_001))}), "more than 5,000 keys other than names"),
    "equal complex numbers": (
        dumped({"a": dict.fromkeys(complex(-1000003.0 * i, i) for i in range(5_001))}),
        "more than 5,000 keys other than names",
    ),
    "shared lists": (value(shared(list)), "more than 4,000,000 values, if shared ones are counted"),
    "shared tuples": (value(shared(tuple)), "more than 4,000,000 values, if shared ones are counted"),
    "list in itself": (value(b"]q\0h\0a"), "nested in more than 100 levels, or in themselves"),
    "dimension": (
        value(named("torch._utils._rebuild_tensor_v2", STORAGE, b"K\0" + LARGE * 2 + b"\x86", b"K\0K\0\x86", b"\x89N")),
        "a tensor of shape",
    ),
    "integers as dimensions": (
        value(named("numpy.ndarray", b"(\x8a\xff" + b"\x7f" * 255 + b"q\0" + b"h\0" * 1_000 + b"t")),
        "not a tuple of at most 64 numbers",
    ),
    "slow encoding": (value(named("_codecs.encode", b"U\x01a", b"U\x05rot13")), "not encoded by latin1"),
    "bytes of a class": (
        value(named("torch._tensor._rebuild_from_type_v2", b"c__builtin__\nbytearray\nN", LARGE + b"\x85N")),
        "asks for memory without content",
    ),
    "storage": (value(named("torch.storage.UntypedStorage", LARGE)), "asks for memory without content"),
    "quantised tensor": (
        value(named("torch._utils._rebuild_qtensor", STORAGE, b"K\0" + LARGE + b"\x85K\x01\x85", b"NNN")),
        "a tensor of shape",
    ),
    "list as an encoding": (
        value(b"c_codecs\nencode\n(U\x01a" + shared(tuple) + b"tR"),
        "not encoded by latin1",
    ),
    "list as a dtype": (value(named("numpy.dtype", shared(list))), "a dtype is a list|or it is damaged. Copy"),
    "list as a dtype of an array": (
        value(named("numpy.ndarray", b")", shared(list), b"U\x01a")),
        "a dtype is a list|or it is damaged. Copy",
    ),
    "long bytearray": (b"\x80\x05\x96" + (6 << 30).to_bytes(8, "little") + b"x.", "without content"),
    "many copies of a set": (
        value(b"](c__builtin__\nset\n](" + b"K\0" * 100_000 + b"e\x85q\0R" + b"c__builtin__\nset\nh\0R" * 100 + b"e"),
        "more than 2,000,000 instructions",
    ),
    "many copies of a text": (
        value(
            b"](c_codecs\nencode\nX\0\0\x10\0"
            + b"a" * (1 << 20)
            + b"U\x06latin1\x86q\0R"
            + b"c_codecs\nencode\nh\0R" * 1_100
            + b"e"
        ),
        "copies more than 1,073,741,824 bytes",
    ),
    "tensor of another device": (
        value(named("torch._utils._rebuild_device_tensor_from_cpu_tensor", b"NNN\x89")),
        "neither a CPU nor a GPU",
    ),
    "far memo": (b"\x80\x02}r\xff\xff\xff\xff.", "more than 2,000,000 instructions"),
    "text memo": (b"\x80\x02}p4000000000\n.", "pickle protocol 0"),
    "long bytes": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "is not a checkpoint of tensors"),
}


@pytest.mark.parametrize("name", FILES)
def test_costly_values_are_refused(name, tmp_path):
    content, reason = FILES[name]
    packed(tmp_path / "x.pth", content)
    (tmp_path / "x.pkl").write_bytes(content)
    for path in (tmp_path / "x.pth", tmp_path / "x.pkl"):
        only_torch = path.suffix == ".pkl" and b"storage" in content.lower()
        for read in (read_checkpoint, peek_checkpoint):
            with pytest.raises(ValueError, match="is not a checkpoint" if only_torch else reason):
                read(path)


def test_instructions_of_all_pickles_of_a_file_are_counted(tmp_path):
    magic, version, other = dumped(0x1950A86A20F9469CFC6C), dumped(1001), b"\x80\x02" + b")0" * 450_000 + b"}."
    (tmp_path / "x.pth").write_bytes(magic + version + other * 3)
    with pytest.raises(ValueError, match="more than 2,000,000 instructions"):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("names", [("x/data.pkl", "x/DATA.PKL"), ("x/data.pkl", "x/data.pkl\0y")])
def test_names_that_torch_reads_as_another_are_refused(names, tmp_path):
    packed(tmp_path / "x.pth", dumped({"a": 1}), names)
    content = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(content.replace(b"data.pklZy", b"data.pkl\0y"))
    for read in (read_checkpoint, peek_checkpoint):
        with pytest.raises(ValueError, match=r"two records have the same name"):
            read(tmp_path / "x.pth")


def test_unusual_plain_values_are_read(tmp_path):
    content = {
        "state_dict": {"a.weight": torch.ones(2)},
        "mask": torch.ones(1).expand(5000, 5000),
        "seeds": [2**62 + i for i in range(6_000)],
        "keys": {(1, 2): 3, 4: 5, None: 6, 2**70: 7, torch.float32: 8},
        "empty": np.zeros((0, 4)),
        "bytes": b"",
        "names": np.array(["cat", "dog"]),
        "complex": np.ones(3, complex),
        "log": [{"loss": float(i)} for i in range(50_000)],
    }
    torch.save(content, tmp_path / "x.pth")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({key: content[key] for key in ("seeds", "empty", "names")}))
    found = read_checkpoint(tmp_path / "x.pth")
    assert found["mask"].shape == (5000, 5000) and found["keys"] == content["keys"]
    assert found["seeds"] == content["seeds"] and found["log"] == content["log"]
    for some in (found, read_checkpoint(tmp_path / "x.pkl")):
        assert some["empty"].shape == (0, 4) and some["names"].tolist() == ["cat", "dog"]
    assert found["bytes"] == b"" and type(found["bytes"]) is bytes
    assert found["complex"].tolist() == [1, 1, 1]


def test_another_pickle_protocol_is_named(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pth", pickle_protocol=4)
    with pytest.raises(ValueError, match=r"another pickle protocol than 2.*save it again without pickle_protocol"):
        read_checkpoint(tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth", allow_pickle=True)["a"].tolist() == [1, 1]


NETWORKS = [
    ({"type": bytearray}, r"type=<class 'bytearray'>, which is not a name"),
    ({"type": "ResNet", "depth": 50, "norm_cfg": {"type": bytearray}}, "type=<class 'bytearray'>, which is not a name"),
    ({"type": "ResNet", 5: 6}, "dict whose keys are not names"),
    ({"type": "ResNet", "depth": 50, "out_indices": {1, 2}}, "has a set, or a dict"),
    ({"type": "VisionTransformer", "arch": {"num_layers": 10**9}}, "an integer beyond 1,048,576"),
    ({"type": "ResNet", "depth": 50, "strides": [1] * 10_000}, "more than 10,000 values"),
    (
        {"type": "SwinTransformer", "window_size": 1_000, "arch": {"embed_dims": 4, "depths": [1], "num_heads": [1]}},
        "can't allocate memory|Unable to allocate|not enough memory",
    ),
]


@pytest.mark.parametrize(("backbone", "reason"), NETWORKS, ids=[str(i) for i in range(len(NETWORKS))])
def test_costly_networks_are_refused(backbone, reason, tmp_path):
    torch.save({"state_dict": {"conv1.weight": torch.ones(2)}, "meta": {"backbone": backbone}}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=reason):
        read_backbone(tmp_path / "x.pth", allow_pickle=bytearray in backbone.values())


def test_repeated_numbers_allow_no_larger_network(tmp_path):
    """The weights of a file count as often as they are stored."""
    state = {f"x{i}.weight": torch.zeros(1).expand(1 << 20) for i in range(60)}
    meta = {"backbone": {"type": "ResNet", "depth": 18, "base_channels": 512}}
    torch.save({"state_dict": state, "meta": meta}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="much larger than the tensors of the file"):
        read_backbone(tmp_path / "x.pth")


def test_a_whole_module_of_old_torch_needs_arbitrary_pickle(tmp_path):
    torch.save(torch.nn.Linear(2, 1), tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"x.pth needs arbitrary pickle \(torch.nn.modules.linear.Linear\)"):
        read_checkpoint(tmp_path / "x.pth")
