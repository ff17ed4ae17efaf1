"""Log records of mmengine."""

import logging

import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def log():
    """Collects the records of mmengine's current logger."""
    logger = MMLogger.get_current_instance()
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)
