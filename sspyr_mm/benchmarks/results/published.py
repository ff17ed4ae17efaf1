"""Figures of the paper, to be printed next to measured ones."""

from dataclasses import dataclass

__all__ = ["PUBLISHED", "PublishedFigure"]


@dataclass(frozen=True)
class PublishedFigure:
    """One cell of a published table.

    Args:
        network: Method, and what it was pre-trained on.
        protocol: As :class:`Result.protocol`.
        data: As :class:`Result.data`.
        metric: As :class:`Result.metric`.
        value: In percent.
        source: Table it is from.
    """

    network: str
    protocol: str
    data: str
    metric: str
    value: float
    source: str


_ASL = {  # method: pre-trained on COCO, on ImageNet
    "Random init": (50.0, 50.0),
    "MoCo v2": (63.8, 71.1),
    "SwAV": (68.3, 73.2),
    "BYOL": (62.7, 68.6),
    "DenseCL": (68.7, 72.7),
    "DetCo": (64.7, 71.0),
    "MaskCo": (65.8, 70.8),
    "InsLoc": (62.9, 71.8),
    "SS-PRL": (69.3, 73.8),
}
_VOC_MASKS = {  # pre-trained on COCO
    "Random init": 40.7,
    "MoCo v2": 57.3,
    "SwAV": 56.1,
    "BYOL": 54.1,
    "DenseCL": 63.2,
    "DetCo": 47.6,
    "MaskCo": 59.8,
    "InsLoc": 56.1,
    "SS-PRL": 62.6,
}
_ABLATIONS = (  # network, VOC linear mAP, tables; cells that are in both tables stand here once
    ("SS-PRL, scale 0 alone", 79.2, "tables S-C and S-D (K0 300, K1 0)"),
    ("SS-PRL, two scales, shared prototypes", 77.8, "table S-C"),
    ("SS-PRL, two scales", 79.9, "tables S-C and S-D (K0 300, K1 300)"),
    ("SS-PRL, two scales, K0 3000, K1 1500", 77.6, "table S-D"),
    ("SS-PRL, two scales, K0 300, K1 1500", 79.6, "table S-D"),
    ("SS-PRL, two scales, K0 300, K1 150", 79.9, "table S-D"),
)

PUBLISHED = (
    tuple(
        PublishedFigure(
            name if name == "Random init" else f"{name} ({pretrained_on})",
            "asl",
            "coco14",
            "mAP",
            values[column],
            "SS-PRL supplementary, ASL on COCO",
        )
        for column, pretrained_on in enumerate(("COCO", "ImageNet"))
        for name, values in _ASL.items()
        if not (name == "Random init" and column)
    )
    + tuple(
        PublishedFigure(name, "linear", "voc07", "mAP", value, f"SS-PRL supplementary, {tables}")
        for name, value, tables in _ABLATIONS
    )
    + tuple(
        PublishedFigure(
            name if name == "Random init" else f"{name} (COCO)",
            "fcn_voc",
            "voc12aug",
            "mIoU",
            value,
            "SS-PRL supplementary, FCN on VOC",
        )
        for name, value in _VOC_MASKS.items()
    )
)
"""The main paper's other tables were not at hand: no figure is given for them."""
