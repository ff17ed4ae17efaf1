"""On import, checks the stack, registers every component and makes the bases of forks resolvable."""

from sspyr_mm.compat import check_versions, register_forks

check_versions()

# ruff: noqa: E402
import sspyr_mm.datasets
import sspyr_mm.engine
import sspyr_mm.evaluation
import sspyr_mm.models
import sspyr_mm.probes
import sspyr_mm.reports.view_sheet_hook  # noqa: F401

register_forks()
