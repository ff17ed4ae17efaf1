"""Files of other programs: pickles of numpy arrays are read, other kinds are named in the error."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from backbone_checks import assert_identical
from layouts import Call

from sspyr_mm.checkpoints import export_backbone, read_backbone, read_checkpoint


def written(write):
    """Returns the bytes that a function writes to a file."""
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def zipped(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "hello")
        archive.writestr("weights/model.pth", b"\x80")


def tarred(file):
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"), io.BytesIO())


def scripted(file):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)


SAVED = written(lambda file: torch.save({"conv1.weight": torch.ones(4, 3)}, file))
# Kind of file -> content, message.
KINDS = {
    "html": (b"\xef\xbb\xbf\n<!DOCTYPE html><html>Sign in</html>", r"web page .*raw content"),
    "xml": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", r"web page .*raw content"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 45\n", "Git LFS pointer, .*git lfs pull"),
    "json": (b'{"message": "Not Found"}', r'text file, .*begins with \'{"message": "Not F'),
    "torchscript": (written(scripted), r"TorchScript program, which contains code.*torch.jit.load"),
    "npz": (written(lambda file: np.savez(file, a=np.ones(3))), r"numpy arrays \(\.npz\).*torch.from_numpy"),
    "npy": (written(lambda file: np.save(file, np.ones(3))), "single numpy array"),
    "zip": (written(zipped), r"zip archive of readme.txt, weights/model.pth: extract"),
    "half a zip": (SAVED[:300], "truncated zip archive.*download it again"),
    "tar": (written(tarred), "tar archive: extract"),
    "gzip": (gzip.compress(SAVED), "compressed by gzip: extract"),
    "bzip2": (bz2.compress(SAVED), "compressed by bzip2: extract"),
    "xz": (lzma.compress(SAVED), "compressed by xz: extract"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5 file, .*PyTorch"),
    "noise": (bytes(range(255, 127, -1)), "damaged.*download it again"),
}


@pytest.mark.parametrize("allow_pickle", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_kind_of_file_is_reported(kind, allow_pickle, tmp_path):
    content, message = KINDS[kind]
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.pth is .*{message}") as error:
        read_checkpoint(tmp_path / "x.pth", allow_pickle=allow_pickle)
    assert "weights_only" not in str(error.value) and "\n" not in str(error.value)


def test_pickled_module_needs_allow_pickle(tmp_path):
    torch.save({"net": torch.nn.Linear(2, 2)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"needs arbitrary pickle \(torch\.nn\.modules\.linear"):
        read_checkpoint(tmp_path / "x.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"no ResNet .*first tensors are weight, bias"):
        read_backbone(tmp_path / "x.pth", allow_pickle=True)


# ----------------------------------------------------------------------------- pickles of numpy arrays

ARRAYS = {
    "float": np.arange(6, dtype="f4").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype="f8").reshape(2, 3)),
    "big-endian": np.arange(3, dtype=">i2"),
    "half": np.ones(2, "f2"),
    "bool": np.array([True, False]),
    "scalar": np.array(3),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("core", ["numpy._core", "numpy.core"])
def test_pickled_arrays_are_read(protocol, core, tmp_path):
    content = pickle.dumps({"model": ARRAYS, "best": np.float64(0.5)}, protocol=protocol)
    if protocol < 4:  # later ones count the bytes of names
        content = content.replace(b"numpy._core", core.encode())
    (tmp_path / "x.pkl").write_bytes(content)
    found = read_checkpoint(tmp_path / "x.pkl")
    assert found["best"] == 0.5
    for name, expected in ARRAYS.items():
        actual = found["model"][name]
        assert actual.dtype == expected.dtype and actual.shape == expected.shape
        assert (actual == expected).all(), name


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (lambda folder: Call(os.mkdir, folder), r"(os|posix|nt)\.mkdir"),
        (lambda folder: Call(eval, f"__import__('os').mkdir({folder!r})"), r"\w+\.eval"),
        (lambda folder: Call(np.load, folder), r"numpy.*\.load"),
        (lambda folder: np.array([{}, Call(os.mkdir, folder)], dtype=object), r"(os|posix|nt)\.mkdir"),
    ],
)
def test_code_in_pickles_is_rejected_and_not_executed(payload, name, protocol, tmp_path):
    content = {"model": {"a": np.ones(2)}, "extra": payload(str(tmp_path / "ran"))}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    match = rf"x.pkl needs arbitrary pickle \({name}\).*nothing was executed"
    for read in (read_checkpoint, read_backbone):
        with pytest.raises(ValueError, match=match):
            read(tmp_path / "x.pkl")
    assert not (tmp_path / "ran").exists()


def test_allow_pickle_executes_code(tmp_path):
    content = {"model": {"a": np.ones(2)}, "extra": Call(os.mkdir, str(tmp_path / "ran"))}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    read_checkpoint(tmp_path / "x.pkl", allow_pickle=True)
    assert (tmp_path / "ran").exists()


class Bytes(Call):
    """Becomes an array over bytes of the file when unpickled."""

    def __init__(self, dtype, shape=(1,)):
        super().__init__(np.ndarray, shape, dtype, bytearray(8))


@pytest.mark.parametrize("dtype", ["O", "V8", "M8[s]", "O,O"])
def test_arrays_of_other_than_numbers_and_texts_are_rejected(dtype, tmp_path):
    """Bytes of a file must not be used as pointers."""
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": {"a": Bytes(dtype)}}, protocol=4))
    with pytest.raises(ValueError, match="only numbers and texts are read"):
        read_checkpoint(tmp_path / "x.pkl")


@pytest.mark.parametrize("shape", [(3,), (10**15,), (-5,)])
def test_bytes_must_match_the_shape(shape, tmp_path):
    content = {"model": {"a": Bytes("f4", shape)}}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(ValueError, match="it is damaged"):
        read_checkpoint(tmp_path / "x.pkl")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_detectron2_export_is_a_pickle_of_numpy_arrays(dtype, small, tmp_path):
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in small.items()}
    torch.save(state, tmp_path / "x.pth")
    export_backbone(tmp_path / "x.pth", tmp_path / "d2.pkl", target="detectron2")
    with open(tmp_path / "d2.pkl", "rb") as file:
        content = pickle.load(file, encoding="latin1")
    assert set(content) == {"model", "__author__", "matching_heuristics"}
    stored = content["model"]["res2.0.conv1.weight"]
    assert type(stored) is np.ndarray
    assert np.array_equal(stored, state["layer1.0.conv1.weight"].to(torch.float32).numpy())
    # The names of numpy's modules differ between its versions 1 and 2.
    assert b"_core" not in (tmp_path / "d2.pkl").read_bytes()
    back = read_backbone(tmp_path / "d2.pkl")
    assert back.source == "detectron2"
    kept = torch.float32 if dtype is torch.bfloat16 else dtype
    expected = {k: v.to(kept) if v.is_floating_point() else v for k, v in state.items()}
    assert_identical(back.state_dict, expected)


def test_model_zoo_of_detectron2_causes_a_warning_about_bgr(small, tmp_path):
    torch.save(small, tmp_path / "x.pth")
    export_backbone(tmp_path / "x.pth", tmp_path / "d2.pkl", target="detectron2")
    content = pickle.loads((tmp_path / "d2.pkl").read_bytes())
    content["__author__"] = "Detectron2 Model Zoo"
    (tmp_path / "d2.pkl").write_bytes(pickle.dumps(content))
    with pytest.warns(UserWarning, match=r"d2.pkl .*BGR.*check its config"):
        assert_identical(read_backbone(tmp_path / "d2.pkl").state_dict, small)
