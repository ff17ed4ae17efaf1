"""A ResNet-50 and a photograph that reveal exchanged tensors."""

import pytest
import torchvision
from backbone_checks import map_of, scatter
from PIL import Image
from project import ROOT
from torchvision.transforms.functional import normalize, to_tensor

JPEG = ROOT / "docs" / "views.jpg"


@pytest.fixture(scope="session")
def photograph():
    image = Image.open(JPEG).convert("RGB").crop((600, 100, 728, 228))
    return normalize(to_tensor(image), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))[None]


@pytest.fixture(scope="session")
def resnet50():
    return scatter(torchvision.models.resnet50(), seed=1)


@pytest.fixture(scope="session")
def backbone50(resnet50):
    """Tensors without fc, which must be found in every layout."""
    return {k: v for k, v in resnet50.state_dict().items() if not k.startswith("fc.")}


@pytest.fixture(scope="session")
def features50(resnet50, photograph):
    return map_of(resnet50, photograph)


@pytest.fixture(scope="session")
def small():
    """Tensors of a narrow ResNet-18."""
    from mmpretrain.models import ResNet

    return dict(scatter(ResNet(18, stem_channels=8, base_channels=8), seed=9).state_dict())
