"""The load of `load.py`, for seconds."""

from tests.integrations.vllm.load import Load


def test_mixed_requests_and_clients_that_leave_keep_every_budget(server, tiny):
    report = Load(server, tiny[1], seed=1).run(seconds=15)
    assert not report.errors
    for what in ("finished", "left", "refused", "cut"):
        assert report.counts[what] > 5, report.counts
