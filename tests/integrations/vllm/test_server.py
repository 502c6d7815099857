"""Budgets over HTTP: vLLM's OpenAI-compatible server, its streams, bad requests, and clients that leave."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from elastic import Budget
from elastic.integrations.request_values import RequestBudget, values_of
from tests.integrations.vllm.sums import BUDGETS, SAMPLINGS, own_tokens, prompt_ids

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


def asked(prompt, budget, **options):
    values = {} if budget is None else {"vllm_xargs": values_of(RequestBudget(budget))}
    body = {"prompt": prompt, "temperature": 0.0, "max_tokens": 100, "return_token_ids": True}
    return {**body, **values, **options}


def test_tokens_are_those_of_the_own_engine_for_64_clients_at_once(server, tiny):
    prompts = prompt_ids(tiny[1]) * 16
    budgets = (BUDGETS * 7)[:64]
    expected = own_tokens(tiny, prompts, budgets, SAMPLINGS["seeded"], range(64))

    def client(i):
        return server.post(COMPLETIONS, **asked(prompts[i], budgets[i], temperature=1.2, seed=i))

    with ThreadPoolExecutor(64) as clients:
        answers = list(clients.map(client, range(64)))
    assert [status for status, _ in answers] == [200] * 64
    assert [answer["choices"][0]["token_ids"] for _, answer in answers] == expected


def test_a_stream_has_the_tokens_of_the_whole_answer(server, tiny):
    prompt = prompt_ids(tiny[1])[1]
    _, whole = server.post(COMPLETIONS, **asked(prompt, Budget(12, 6)))
    parts = list(server.stream(COMPLETIONS, **asked(prompt, Budget(12, 6))))
    choices = [part["choices"][0] for part in parts if part["choices"]]
    ids = [token for choice in choices for token in choice["token_ids"] or ()]
    assert ids == whole["choices"][0]["token_ids"]
    assert len(choices) >= 3
    assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]


CUT_CHAT = {
    "messages": [{"role": "user", "content": "a 3 b + 4 c - 9 = ?"}],
    "temperature": 0.0,
    "skip_special_tokens": False,  # here the markers are special; the parser looks for their text
    "vllm_xargs": {"thinking_budget": 6, "solution_budget": 4, "closing": "wait </think> so"},
}


def test_nothing_of_a_cut_thought_is_in_a_chats_answer(server):
    status, answer = server.post(CHAT, **CUT_CHAT)
    assert status == 200, answer
    message = answer["choices"][0]["message"]
    thought, said = message["reasoning"].split(), message["content"].split()
    assert len(thought) == 6 + 1
    assert thought[-1] == "wait"
    assert said[0] == "so"
    assert 1 < len(said) <= 1 + 4
    assert "</think>" not in thought + said
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] <= 6 + 3 + 4 + 1  # and the EOS that ends it


def test_a_streamed_chat_divides_thought_and_answer_in_the_same_way(server):
    message = server.post(CHAT, **CUT_CHAT)[1]["choices"][0]["message"]
    parts = [part["choices"][0]["delta"] for part in server.stream(CHAT, **CUT_CHAT) if part["choices"]]
    for name in ("reasoning", "content"):
        text = "".join(part.get(name) or "" for part in parts)
        assert text.split() == message[name].split()


def test_a_grammar_holds_behind_a_cut_thought_and_no_forced_token_breaks_it(server, tiny):
    prompt, grammar = prompt_ids(tiny[1])[0], {"structured_outputs": {"regex": "[0-9][+]7"}}
    values = {"thinking_budget": 6, "closing": "wait </think>"}
    plain = server.post(COMPLETIONS, **asked(prompt, None, vllm_xargs=values))[1]["choices"][0]
    status, answer = server.post(COMPLETIONS, **asked(prompt, None, vllm_xargs=values, **grammar))
    assert status == 200, answer
    choice = answer["choices"][0]
    assert choice["token_ids"][: 6 + 2] == plain["token_ids"][: 6 + 2]
    said = tiny[1].convert_ids_to_tokens(choice["token_ids"][6 + 2 :])
    assert said[0].isdigit()
    assert said[1:] == ["+", "7", tiny[1].eos_token]
    assert choice["finish_reason"] == "stop"


# Request values, other parameters, and what the error says.
BAD = [
    ({"thinking_budget": -3}, {}, "thinking_budget: expected an integer from 0"),
    ({"thinking_budget": 1.5}, {}, "thinking_budget: expected an integer"),
    ({"thinking_budget": "many"}, {}, "thinking_budget: expected an integer"),
    ({"solution_budget": 0}, {}, "solution_budget: expected an integer from 1"),
    ({"thinking_buget": 5}, {}, "did you mean thinking_budget"),
    ({"closing": "so so"}, {}, "expected exactly one end marker"),
    ({"closing": "<think> </think>"}, {}, "start marker"),
    ({"closing": "hello </think>"}, {}, "cannot write it"),
    ({"end_markers": ["</think>"]}, {}, "is an end already"),
    ({"end_markers": ["hello"]}, {}, "hello"),
    ({"thinking_budget": 5, "grace": 2, "boundary": ["%"]}, {}, "no token of the vocabulary"),
    ({"thinking_budget": 300}, {}, "thinking_budget: expected at most the model's context of 256"),
    ({"thinking_budget": 200, "solution_budget": 200}, {}, "do not fit the model's context of 256"),
    ({"thinking_budget": 50}, {"max_tokens": 20}, "max_tokens: expected at least 52"),
    ({"thinking_budget": 5}, {"ignore_eos": True}, "ignore_eos: expected False"),
    ({"thinking_budget": 5}, {"presence_penalty": 1.0}, "presence_penalty: expected 0.0"),
    ({"thinking_budget": 5}, {"repetition_penalty": 1.2}, "repetition_penalty: expected 1.0"),
    ({"thinking_budget": 5, "solution_budget": 5}, {"min_tokens": 50}, "min_tokens: expected at most 10"),
    (
        {"thinking_budget": 5, "solution_budget": 5},
        {"structured_outputs": {"regex": "7"}},
        "structured_outputs: expected None",
    ),
    (
        {"thinking_budget": 5, "closing": "wait </think> so"},
        {"structured_outputs": {"regex": "7"}},
        "closing: expected nothing behind its end marker",
    ),
]


@pytest.mark.parametrize(("values", "options", "said"), BAD)
def test_a_bad_request_gets_status_400_and_fails_alone(server, tiny, values, options, said):
    prompt = prompt_ids(tiny[1])[0]
    with ThreadPoolExecutor(4) as clients:
        good = [clients.submit(server.post, COMPLETIONS, **asked(prompt, Budget(20, 6))) for _ in range(3)]
        status, answer = server.post(COMPLETIONS, **asked(prompt, None, vllm_xargs=values, **options))
        assert status == 400, answer
        assert said in answer["error"]["message"]
        assert [job.result()[0] for job in good] == [200] * 3


def test_max_tokens_may_cut_a_thought_where_the_request_says_so(server, tiny):
    values = {"thinking_budget": 50, "may_be_cut": 1}
    body = asked(prompt_ids(tiny[1])[3], None, vllm_xargs=values, max_tokens=20)
    status, answer = server.post(COMPLETIONS, **body)
    assert status == 200
    assert answer["choices"][0]["finish_reason"] == "length"


def test_values_of_other_processors_are_left_to_them(server, tiny):
    prompt = prompt_ids(tiny[1])[0]
    plain = server.post(COMPLETIONS, **asked(prompt, None))
    others = {"session_id": "x", "other": [1, "a"]}
    status, answer = server.post(COMPLETIONS, **asked(prompt, None, vllm_xargs=others))
    assert status == 200
    assert answer["choices"][0]["token_ids"] == plain[1]["choices"][0]["token_ids"]


def test_clients_that_leave_in_mid_stream_change_nothing_for_others(server, tiny):
    prompts = prompt_ids(tiny[1])
    budgets = BUDGETS[:4]
    expected = own_tokens(tiny, prompts, budgets, SAMPLINGS["greedy"], range(4))

    def leaving(i):
        stream = server.stream(COMPLETIONS, **asked(prompts[i % 4], Budget(100, 60), max_tokens=200))
        for _ in range(i % 3 + 1):
            next(stream, None)
        stream.close()

    with ThreadPoolExecutor(12) as clients:
        left = [clients.submit(leaving, i) for i in range(24)]
        staying = [
            clients.submit(server.post, COMPLETIONS, **asked(prompts[i % 4], budgets[i % 4]))
            for i in range(16)
        ]
        answers = [job.result()[1]["choices"][0]["token_ids"] for job in staying]
        for job in left:
            job.result()
    assert answers == expected * 4
