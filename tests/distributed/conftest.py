import pytest
from gloo_ranks import GlooRanks


@pytest.fixture(scope="session")
def ranks():
    """Gloo ranks for all tests of this folder."""
    ranks = GlooRanks()
    yield ranks
    ranks.close()
