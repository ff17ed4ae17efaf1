"""Views: what is cut from an image, and how it is augmented."""

from sspyr_mm.views.view_spec import AugmentSpec, GroupSpec, ViewsSpec

__all__ = ["AugmentSpec", "GroupSpec", "ViewsSpec"]
