"""What the tests of the core share."""

import pytest

from escsr.weights import Provenance


@pytest.fixture
def provenance() -> Provenance:
    """Of weights that were made up."""
    return Provenance(licence="CC0-1.0", training_data="none", date="2026-11-20")
