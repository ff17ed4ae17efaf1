"""Results of the paper, which tables show next to measured ones."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedFigure:
    """Cell of a published table: fields as those of :class:`Result`, ``value`` in percent, ``source`` the table."""

    network: str
    protocol: str
    data: str
    metric: str
    value: float
    source: str


_ASL = ("asl", "coco14", "mAP")
_FCN = ("fcn_voc", "voc12aug", "mIoU")
_ASL_SOURCE = "SS-PRL supplementary, ASL on COCO"
_FCN_SOURCE = "SS-PRL supplementary, FCN on VOC"
_METHODS = {  # method: ASL pre-trained on COCO, ASL pre-trained on ImageNet, FCN pre-trained on COCO
    "MoCo v2": (63.8, 71.1, 57.3),
    "SwAV": (68.3, 73.2, 56.1),
    "BYOL": (62.7, 68.6, 54.1),
    "DenseCL": (68.7, 72.7, 63.2),
    "DetCo": (64.7, 71.0, 47.6),
    "MaskCo": (65.8, 70.8, 59.8),
    "InsLoc": (62.9, 71.8, 56.1),
    "SS-PRL": (69.3, 73.8, 62.6),
}
_ABLATIONS = (  # network, linear mAP on VOC, tables; results that are in both tables are listed once
    ("SS-PRL, scale 0 alone", 79.2, "tables S-C and S-D (K0 300, K1 0)"),
    ("SS-PRL, two scales, shared prototypes", 77.8, "table S-C"),
    ("SS-PRL, two scales", 79.9, "tables S-C and S-D (K0 300, K1 300)"),
    ("SS-PRL, two scales, K0 3000, K1 1500", 77.6, "table S-D"),
    ("SS-PRL, two scales, K0 300, K1 1500", 79.6, "table S-D"),
    ("SS-PRL, two scales, K0 300, K1 150", 79.9, "table S-D"),
)

PUBLISHED = (
    PublishedFigure("Random init", *_ASL, 50.0, _ASL_SOURCE),
    *(PublishedFigure(f"{name} (COCO)", *_ASL, value, _ASL_SOURCE) for name, (value, _, _) in _METHODS.items()),
    *(PublishedFigure(f"{name} (ImageNet)", *_ASL, value, _ASL_SOURCE) for name, (_, value, _) in _METHODS.items()),
    PublishedFigure("Random init", *_FCN, 40.7, _FCN_SOURCE),
    *(PublishedFigure(f"{name} (COCO)", *_FCN, value, _FCN_SOURCE) for name, (_, _, value) in _METHODS.items()),
    *(
        PublishedFigure(name, "linear", "voc07", "mAP", value, f"SS-PRL supplementary, {tables}")
        for name, value, tables in _ABLATIONS
    ),
)
"""The other tables of the main paper were not available."""
