"""Names files of other programs, with the remedy."""

import codecs

_MARKUP = (b"<!doctype", b"<html", b"<head", b"<?xml")
_PACKED = "extract it and pass the checkpoint inside"
_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file: download it with `git lfs pull`"),
    (b"\x1f\x8b", f"compressed by gzip: {_PACKED}"),
    (b"BZh", f"compressed by bzip2: {_PACKED}"),
    (b"\xfd7zXZ", f"compressed by xz: {_PACKED}"),
    (b"\x28\xb5\x2f\xfd", f"compressed by zstd: {_PACKED}"),
    (b"7z\xbc\xaf", f"a 7z archive: {_PACKED}"),
    (b"Rar!", f"a rar archive: {_PACKED}"),
    (b"\x89HDF", "an HDF5 file, as from Keras: only PyTorch weights are supported"),
    (b"\x93NUMPY", "a single numpy array: pass tensors by name, saved by torch.save"),
)
"""First bytes of files -> description and remedy."""


def file_kind(head: bytes) -> str | None:
    """Returns the description of a file of another program, with the remedy; None if it may be a checkpoint."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.lower().startswith(_MARKUP):
        return (
            "a web page (HTML), not a checkpoint: the server sent an error, login or preview page; download the "
            "file itself from the link to its raw content"
        )
    for magic, kind in _KINDS:
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return f"a tar archive: {_PACKED}"
    if not any(byte < 9 or 13 < byte < 32 for byte in head):
        try:
            start = codecs.getincrementaldecoder("utf-8")().decode(text)[:60]
        except UnicodeDecodeError:
            return None
        return f"a text file, not a checkpoint; it begins with {start!r}"
    return None


def zip_kind(names: list[str]) -> str | None:
    """Like :func:`file_kind` for a zip archive with records of these names, which torch.save also writes."""
    last = [name.rpartition("/")[2] for name in names]
    if "constants.pkl" in last:
        return (
            "a TorchScript program, which contains code: nothing was executed. If you trust its source, write "
            "its weights with torch.save(torch.jit.load(FILE).state_dict(), NEW)"
        )
    if "data.pkl" in last:
        return None
    if all(name.endswith(".npy") for name in last):
        return (
            "an archive of numpy arrays (.npz): write tensors by name with "
            "torch.save({k: torch.from_numpy(v) for k, v in numpy.load(FILE).items()}, NEW)"
        )
    return f"a zip archive of {', '.join(names[:3])}{', ...' * (len(names) > 3)}: {_PACKED}"
