"""Published results equal the tables of the supplementary material."""

from sspyr_mm.benchmarks.protocols import find_protocol
from sspyr_mm.benchmarks.results.rows import PUBLISHED


def test_ablations_are_listed_once_with_their_tables():
    found = [f for f in PUBLISHED if (f.protocol, f.data, f.metric) == ("linear", "voc07", "mAP")]
    by_table = {table: sorted(f.value for f in found if table in f.note) for table in ("S-C", "S-D")}
    assert by_table == {"S-C": [77.8, 79.2, 79.9], "S-D": [77.6, 79.2, 79.6, 79.9, 79.9]}
    assert len({f.network for f in found}) == len(found) == 6
    values = {f.network: f.value for f in found}
    assert values["SS-PRL, two scales, K0 3000, K1 1500"] == 77.6
    assert values["SS-PRL, two scales, K0 300, K1 1500"] == 79.6
    assert values["SS-PRL, two scales, K0 300, K1 150"] == 79.9


def test_published_results_have_known_protocols_and_metrics():
    for figure in PUBLISHED:
        assert figure.metric == find_protocol(figure.protocol).metric
