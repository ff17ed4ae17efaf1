"""The formats that are read, told apart by the names of their tensors.

A row says which names a format must have and where in it the backbone is. Only what a row selects is looked at, so a
key encoder, a target network or a queue is never taken for the backbone; and what it selects must be a backbone, whole
and nothing but it, or reading ends with an error.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from sspyr_mm.checkpoints.formats.resnet import from_detectron2
from sspyr_mm.files import shortened
from sspyr_mm.models.data_preprocessors.pyramid_augment import IMAGENET_STD

RELEASE_STD = (0.228 * 255, 0.224 * 255, 0.225 * 255)
"""Normalisation of SwAV's and the SS-PRL authors' code: .228 where most others have .229."""

_SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Children of a ResNet, numbered: what ``Sequential(*resnet.children())`` makes of their names."""


def _from_sequential(name: str) -> str:
    head, _, rest = name.partition(".")
    return f"{_SEQUENTIAL.get(head, head)}.{rest}"


@dataclass(frozen=True)
class SourceFormat:
    """One row of the table.

    Args:
        name: Of the method or program.
        layout: Where the backbone is, in words.
        needs: Patterns; each must fit the beginning of at least one name.
        prefix: Pattern the backbone's names begin with; it is taken off, and other names are left aside.
        heads: Pattern of names behind the prefix that are no backbone.
        rename: From the names behind the prefix to torchvision's.
        container: Entry of the file the tensors must be in; None for any.
        std: Normalisation it was trained with.
        general: Whether the names say nothing about a method, so that there may be another network next to it.
    """

    name: str
    layout: str
    needs: tuple[str, ...]
    prefix: str = ""
    heads: str = r"(?!)"
    rename: Callable[[str], str] = str
    container: str | None = None
    std: tuple[float, float, float] = IMAGENET_STD
    general: bool = False


_CONV1 = r"conv1\.weight$"
_MM_STEM = r"backbone\.(conv1|stem\.0(\.conv)?)\.weight$"
_MM_PREFIX = r"backbone\.|roi_head\.shared_head\.(?=layer4\.)"
_SSPRL_HEADS = r"projection_head\.|l_pro_head\d+\.|ptypes\.|local_ptypes\d+\.|l2g_ptypes\d+\."
_DETCO_HEADS = r"(.*\.)?layers\.|.*mlp|fc\."
_NO_TRUNK = r"(?!(conv|bn|norm|gn|layer|stem|stage|block)s?\d*\.)"
"""Modules next to a trunk are heads, unless their names are those of parts of a trunk."""
_D2_HEADS = r"stem\.fc\.|fc\.|linear\."

FORMATS = (
    SourceFormat(
        "ssprl_release",
        "plain, with ptypes, l_pro_head{i}, local_ptypes{i}, l2g_ptypes{i}",
        (_CONV1, r"ptypes\.|l_pro_head\d|local_ptypes\d|l2g_ptypes\d"),
        heads=_SSPRL_HEADS,
        std=RELEASE_STD,
    ),
    SourceFormat(
        "swav",
        "plain, with projection_head, prototypes",
        (_CONV1, r"projection_head\.|prototypes\."),
        heads=r"projection_head\.|prototypes\.",
        std=RELEASE_STD,
    ),
    SourceFormat(
        "detco",
        "encoder_q., with layers and *mlp* duplicates",
        (r"encoder_q\." + _CONV1, r"encoder_q\.(.*\.)?(layers\.|[^.]*mlp)"),
        prefix=r"encoder_q\.",
        heads=_DETCO_HEADS,
    ),
    SourceFormat(
        "detco",
        "plain, with layers and *mlp* duplicates",
        (_CONV1, r"(.*\.)?(layers\.|[^.]*mlp)"),
        heads=_DETCO_HEADS,
    ),
    SourceFormat(
        "moco_v2",
        "encoder_q.",
        (r"encoder_q\." + _CONV1,),
        prefix=r"encoder_q\.",
        heads=r"fc\.",
    ),
    SourceFormat(
        "densecl",
        "encoder_q.0., with a second queue or projector",
        (r"encoder_q\.0\." + _CONV1, r"queue2$|encoder_q\.1\.mlp2\."),
        prefix=r"encoder_q\.0\.",
    ),
    SourceFormat(
        "maskco",
        "encoder_q.0., with more than encoders, a queue and a duplicate in backbone.",
        (r"encoder_q\.0\." + _CONV1, r"(?!encoder_[qk]\.|queue|backbone\.)"),
        prefix=r"encoder_q\.0\.",
    ),
    SourceFormat(
        "moco_v2",
        "encoder_q.0. (OpenSelfSup)",
        (r"encoder_q\.0\." + _CONV1,),
        prefix=r"encoder_q\.0\.",
    ),
    SourceFormat(
        "byol",
        "online_net.0. (OpenSelfSup)",
        (r"online_net\.0\." + _CONV1,),
        prefix=r"online_net\.0\.",
    ),
    SourceFormat(
        "byol",
        "online_network_state_dict: encoder.{0,1,4..7}.",
        (r"encoder\.0\.weight$", r"encoder\.4\.0\.conv1\.weight$"),
        prefix=r"encoder\.",
        rename=_from_sequential,
        container="online_network_state_dict",
    ),
    SourceFormat(
        "insloc",
        "backbone., beside backbone_k.; C4: layer4 in roi_head.shared_head.",
        (_MM_STEM, r"backbone_k\."),
        prefix=_MM_PREFIX,
    ),
    SourceFormat(
        "mmseg",
        "backbone., with decode_head",
        (_MM_STEM, r"decode_head\."),
        prefix=r"backbone\.",
    ),
    SourceFormat(
        "mmdet",
        "backbone., with a detector's heads; C4: layer4 in roi_head.shared_head.",
        (_MM_STEM, r"(rpn_head|roi_head|bbox_head|neck\.lateral_convs)\."),
        prefix=_MM_PREFIX,
    ),
    SourceFormat(
        "mmpretrain",
        "backbone. (mmselfsup, too)",
        (_MM_STEM,),
        prefix=r"backbone\.",
        heads=_NO_TRUNK,
        general=True,
    ),
    SourceFormat(
        "detectron2",
        "backbone.bottom_up.stem, .res2 to .res5",
        (r"backbone\.bottom_up\.stem\.conv1\.weight$", r"backbone\.bottom_up\.res2\."),
        prefix=r"backbone\.bottom_up\.",
        heads=_D2_HEADS,
        rename=from_detectron2,
        general=True,
    ),
    SourceFormat(
        "detectron2",
        "stem, res2 to res5, shortcut",
        (r"stem\.conv1\.weight$", r"res2\."),
        heads=_D2_HEADS,
        rename=from_detectron2,
        general=True,
    ),
    SourceFormat(
        "timm",
        "plain, deep stem in conv1.0. to conv1.6.",
        (r"conv1\.0\.weight$",),
        heads=_NO_TRUNK,
        general=True,
    ),
    SourceFormat(
        "torchvision",
        "plain, with fc (timm's, too)",
        (_CONV1, r"fc\."),
        heads=_NO_TRUNK,
        general=True,
    ),
    SourceFormat(
        "plain",
        "plain, backbone only (DenseCL's, mmpretrain's own names, ...)",
        (r"(conv1|stem\.0(\.conv)?)\.weight$", r"layer1\.0\.conv1\.weight$"),
        heads=_NO_TRUNK,
        general=True,
    ),
    SourceFormat(
        "sequential",
        "{0,1,4..7}., the numbered children of a ResNet (lightly)",
        (r"0\.weight$", r"4\.0\.conv1\.weight$"),
        heads=r"(?![0-7]\.)",
        rename=_from_sequential,
        general=True,
    ),
)
"""First row that fits wins: the special ones stand before the general ones."""


def detect(tensors: Collection[str], container: str | None, *, bare: bool = False) -> SourceFormat | None:
    """Finds the format of a file by the names of its tensors.

    Args:
        tensors: Names.
        container: Entry of the file they are in.
        bare: Whether only formats without a prefix come into question.

    Returns:
        The row of :data:`FORMATS`, None if there is no such row.
    """
    for row in FORMATS:
        if row.container not in (None, container) or (bare and row.prefix):
            continue
        if all(any(re.match(need, name) for name in tensors) for need in row.needs):
            return row
    return None


def unknown(tensors: Collection[str], *, where: str) -> ValueError:
    """The error for a file without a known format.

    Args:
        tensors: Names.
        where: The file, for messages.

    Returns:
        An error that lists the formats and the first names of the file.
    """
    known = "\n".join(f"  {row.name}: {row.layout}" for row in FORMATS)
    return ValueError(
        f"{where} holds no ResNet in a format that is known. Its first tensors are {shortened(tensors, 6)}. Other "
        "backbones (ViT, Swin, ConvNeXt, ...) are read from pre-training checkpoints of sspyr_mm and what `export` "
        f"made of them; ResNets under any prefix, and from\n{known}"
    )


def select(row: SourceFormat, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Picks the backbone.

    Args:
        row: The format.
        tensors: All tensors of the file.

    Returns:
        The backbone's tensors under torchvision's names (deep stems: timm's or mmdet's), complete or not.

    Raises:
        ValueError: If two tensors claim the same name.
    """
    chosen: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = re.match(row.prefix, name)
        if match is None or re.match(row.heads, rest := name[match.end() :]):
            continue
        if (ours := row.rename(rest)) in chosen:
            raise ValueError(f"Two tensors claim to be the backbone's {ours}, one of them is {name}")
        chosen[ours] = tensor
    return chosen
