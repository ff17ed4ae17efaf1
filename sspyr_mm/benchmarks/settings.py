"""What may differ from the paper's protocols."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """What may differ from the paper's protocols.

    Args:
        size: Side of crops in pixels; of Mask R-CNN the shorter side of the images.
        epochs: Passes over the training images.
        learning_rates: Grid of the linear protocol.
        iterations: Steps of detection and segmentation; the schedule keeps its proportions.
        batch_size: Images a step of detection and segmentation; the learning rate is scaled along.
        options: Changes of the protocol's config, which have the last word.
    """

    size: int | None = None
    epochs: int | None = None
    learning_rates: tuple[float, ...] | None = None
    iterations: int | None = None
    batch_size: int | None = None
    options: Mapping[str, Any] | None = None

    @property
    def changed(self) -> dict[str, Any]:
        """What differs."""
        return {name: value for name, value in asdict(self).items() if value is not None}
