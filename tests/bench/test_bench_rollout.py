"""The rollout bench compares the same work, and stops where a method does not do it."""

import pytest

from bench.ops.rollout import BASELINE, ENGINE, Method, build, check, make_requests, methods


@pytest.fixture(scope="module", params=["budgets", "natural"])
def setting(request):
    model = build("micro", request.param == "natural")
    return methods(model, 4), model.config.vocab_size, request.param


def test_the_methods_do_the_same_work(setting):
    found, vocab, lengths = setting
    check(found, 4, vocab, lengths, group=2)


def test_methods_of_one_eos_rule_can_be_compared_alone(setting):
    found, vocab, lengths = setting
    check({name: found[name] for name in (BASELINE, ENGINE)}, 4, vocab, lengths, group=1)


def test_a_method_that_does_less_stops_the_bench(setting):
    found, vocab, lengths = setting
    own = found[ENGINE]

    def shorter(requests, seed, sampling):
        return [tokens[:-1] for tokens in own.run(requests, seed, sampling)]

    with pytest.raises(AssertionError, match=r"elastic|differ"):
        check({**found, ENGINE: Method(shorter, own.on_eos)}, 4, vocab, lengths, group=1)


def test_requests_of_one_prompt_stand_together():
    requests = make_requests(12, 512, "budgets", group=4, on_eos="stop")
    assert [requests[i].prompt is requests[i - 1].prompt for i in range(1, 12)] == (
        [True] * 3 + [False] + [True] * 3 + [False] + [True] * 3
    )
    totals = [r.budget.max_sampled for r in requests]
    assert min(totals) >= 7
    assert max(totals) <= 127
