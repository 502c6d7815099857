"""`Budget` as data: defaults, presets, texts, bounds; and how budgets compile."""

import copy
import pickle

import pytest
import torch

from elastic import Budget, FinishReason, Markers, Phase
from elastic.budget import CLOSINGS
from elastic.budget.eos import eos_tuple
from elastic.budget.machine import compile_budgets
from elastic.budget.table import Column
from tests.budget.helpers import EOS, ListTokenizer, machine_for, run
from tests.budget.tokenizers import bpe, words

START, END = 2, 3
ONE = Markers((START,), (END,))
X, Y, Z = 6, 7, 8


@pytest.fixture(scope="module")
def tokenizer():
    lines = [str(text).replace("{end}", "") for text in CLOSINGS.values()] + ["Wait, 512 tokens left.\n"]
    return bpe(lines, special=["<think>", "</think>"], merges=120)


@pytest.fixture(scope="module")
def markers(tokenizer):
    return Markers.from_tokenizer(tokenizer)


def test_defaults_are_a_thousand_tokens_each():
    assert (Budget().thinking, Budget().solution, Budget().total) == (1024, 1024, None)
    assert Budget(7) == Budget(7, 1024)
    assert Budget.unlimited() == Budget(None, None)


def test_equal_budgets_are_equal_and_hashable_whatever_sequence_they_were_given():
    a = Budget(5, 5, closing=[Y, END], notices=[[1, [Y]], (0, (Z,))], grace=1, boundary=[Z])
    b = Budget(5, 5, closing=(Y, END), notices=((0, (Z,)), (1, (Y,))), grace=1, boundary=(Z,))
    assert a == b
    assert hash(a) == hash(b)
    assert pickle.loads(pickle.dumps(a)) == copy.deepcopy(b)


def forced(table: list[int]) -> list[int]:
    """F: up to its end marker, and behind it."""
    parts = (table[Column.CLOSING_AT], table[Column.TAIL_AT])
    return [token for at in parts for token in table[at : table.index(-1, at)]]


@pytest.mark.parametrize("name", sorted(CLOSINGS))
def test_closing_presets_write_the_models_own_end_marker(name, tokenizer, markers):
    machine = machine_for(Budget(2, 3, closing=name), markers, tokenizer, [0])
    table = machine.tables[0].tolist()
    ids = forced(table)
    text = (CLOSINGS[name] or "{end}").replace("{end}", "</think>")
    assert tokenizer.decode(ids) == text
    assert ids.count(markers.end[0]) == 1


def test_closing_texts_use_the_tokenizers_own_merges(tokenizer, markers):
    text = "\n\nOkay, time is up.\n</think>\n\n"
    table = machine_for(Budget(2, 3, closing=text), markers).tables[0].tolist()
    assert forced(table) == tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize(
    ("closing", "why"),
    [
        ("time is up", "exactly one end marker '</think>'"),
        ("</think> so </think>", "found 2"),
        ("<think> </think>", "holds the start marker '<think>'"),
        ("{end}{end}", "found 2"),
    ],
)
def test_closing_texts_without_exactly_one_end_marker_are_refused_naming_them(
    closing, why, tokenizer, markers
):
    with pytest.raises(ValueError, match=r"^closing: ") as error:
        machine_for(Budget(2, 3, closing=closing), markers, tokenizer)
    assert why in str(error.value)
    assert repr(closing.replace("{end}", "</think>")) in str(error.value)


def test_a_text_that_the_tokenizer_cannot_write_is_refused_naming_it():
    tokenizer = words(["1", "<think>", "</think>"])
    markers = Markers.from_tokenizer(tokenizer)
    with pytest.raises(ValueError, match="closing: 'stop </think>' encodes to the unknown token"):
        machine_for(Budget(2, 3, closing="stop </think>"), markers)
    with pytest.raises(ValueError, match="extension: 'Wait' encodes to the unknown token"):
        machine_for(Budget(2, 3, min_thinking=1, max_extensions=1), markers)
    assert machine_for(Budget(2, 3, closing="1 </think> 1"), markers).tables.shape[0] == 1


@pytest.mark.parametrize(
    "options",
    [
        {"closing": "so </think>"},
        {"min_thinking": 1, "max_extensions": 1},
        {"notices": ((1, "hurry"),)},
    ],
)
def test_texts_without_a_tokenizer_are_refused(options):
    with pytest.raises(ValueError, match="needs a tokenizer"):
        machine_for(Budget(2, 3, **options), ONE)


def test_notices_and_extensions_with_a_marker_in_their_text_are_refused(tokenizer, markers):
    with pytest.raises(ValueError, match=r"notices: 'mind </think>' holds the marker '</think>'"):
        machine_for(Budget(9, 9, notices=((1, "mind </think>"),)), markers)
    with pytest.raises(ValueError, match=r"extension: '<think>' holds the marker '<think>'"):
        machine_for(Budget(9, 9, min_thinking=1, max_extensions=1, extension="<think>"), markers)


def test_s1_forces_a_final_answer_and_waits_until_the_cap(tokenizer, markers):
    budget = Budget.s1(6, 3, max_extensions=2)
    assert budget.min_thinking == 6
    machine = machine_for(budget, markers, tokenizer, [0])
    x = tokenizer.encode("k", add_special_tokens=False)[0]
    out = run(machine, [x, markers.end[0], *[x] * 60])
    text = tokenizer.decode(out.tokens)
    assert text.startswith("kWait")
    assert text.endswith("\n</think>\n\nFinal Answer:kkk")
    assert out.thinking == 6


def test_vanilla_is_one_cap_that_leaves_eos_alone():
    budget = Budget.vanilla(12)
    assert (budget.thinking, budget.solution, budget.total, budget.on_eos) == (None, None, 12, "stop")


def test_max_tokens_counts_texts_through_the_markers_own_tokenizer(tokenizer, markers):
    budget = Budget(10, 5, closing="qwen3", notices=((3, "hurry"),), min_thinking=4, max_extensions=2)
    ids = [
        tokenizer.encode(text, add_special_tokens=False)
        for text in (str(CLOSINGS["qwen3"]).replace("{end}", "</think>"), "hurry", "Wait", "Wait")
    ]
    assert budget.max_tokens(markers) == 15 + sum(map(len, ids))


def test_an_unfinished_unlimited_row_has_no_limit_of_its_own():
    out = run(machine_for(Budget.unlimited(), ONE), [X] * 300)
    assert len(out.tokens) == 300
    assert out.finish == FinishReason.RUNNING


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"notices": ((1,),)}, "notices: expected pairs"),
        ({"notices": ("text",)}, "notices: expected pairs"),
        ({"notices": ((-1, "x"),)}, "notices, used thinking tokens"),
        ({"notices": ((1, ""),)}, "notices, text"),
        ({"closing": 7}, "closing: expected a text or token ids"),
        ({"closing": ("a",)}, "closing, token id"),
        ({"extension": ""}, "extension: expected a text"),
        ({"grace": 2, "boundary": ()}, "boundary: expected texts or token ids"),
        ({"grace": 2, "boundary": ("",)}, "boundary: expected texts or token ids"),
        ({"boundary": ("\n",)}, "boundary: has no effect with grace=0"),
        ({"min_thinking": 9, "max_extensions": 1}, "min_thinking: expected at most thinking=5, got 9"),
    ],
)
def test_malformed_options_are_refused_naming_the_argument(options, why):
    with pytest.raises(ValueError, match=why):
        Budget(5, 5, **options)


def test_grace_without_a_thinking_budget_is_refused():
    with pytest.raises(ValueError, match="grace: expected 0 with thinking=None, got 3"):
        Budget(None, 5, grace=3)


def test_no_budgets_cannot_be_compiled():
    with pytest.raises(ValueError, match="at least one budget"):
        compile_budgets([], ONE)


def test_equal_budgets_share_a_table_row_and_padding_is_chosen_in_order():
    tokenizer = ListTokenizer(["a"] * 9)
    machine, index = compile_budgets([Budget(5, 5), Budget(5, 6), Budget(5, 5)], ONE, tokenizer, [4, 1])
    assert index.tolist() == [0, 1, 0]
    assert machine.pad_id == 1
    tokenizer.pad_token_id = 8
    assert compile_budgets([Budget()], ONE, tokenizer, [4])[0].pad_id == 8
    assert compile_budgets([Budget()], ONE, tokenizer, [4], pad_id=7)[0].pad_id == 7
    assert compile_budgets([Budget()], ONE)[0].pad_id == 0


def test_eos_ids_default_to_the_tokenizers_and_may_not_belong_to_a_marker(tokenizer, markers):
    machine = machine_for(Budget(5, 5), markers, tokenizer, eos=None)
    out = run(machine, [markers.end[0], tokenizer.eos_token_id])
    assert out.finish == FinishReason.STOP
    with pytest.raises(ValueError, match=r"eos_ids: \[3\] belong to the end marker"):
        machine_for(Budget(5, 5), ONE, eos=[3])


def test_no_eos_ids_are_none_and_not_the_tokenizers(tokenizer, markers):
    end, eos = markers.end[0], tokenizer.eos_token_id
    for none in ((), [], set(), torch.empty(0, dtype=torch.int64)):
        out = run(machine_for(Budget(5, 3), markers, tokenizer, eos=none), [end, eos, eos, eos])
        assert out.finish == FinishReason.SOLUTION_BUDGET


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        (7, (7,)),
        ([9, 7, 9], (7, 9)),
        ({5}, (5,)),
        (range(2), (0, 1)),
        (torch.tensor([4, 2]), (2, 4)),
        (torch.tensor(3), (3,)),
        ((), ()),
    ],
)
def test_eos_ids_may_be_one_id_or_a_collection_of_them(given, ids):
    assert eos_tuple(given) == ids


@pytest.mark.parametrize(
    "given", ["7", b"7", "", True, [True], (i for i in [7]), iter([7]), 7.0, [7.0], ["7"], {7: 8}, [None]]
)
def test_what_is_no_list_of_eos_ids_is_refused_by_name(given):
    with pytest.raises(TypeError, match="eos_ids: expected a token id or a list of them, got"):
        compile_budgets([Budget(5, 5)], ONE, None, given)


def test_more_boundary_sets_than_there_are_bits_are_refused():
    many = [Budget(5, 5, grace=1, boundary=(i,)) for i in range(6)]
    with pytest.raises(ValueError, match="boundary: expected at most 5 different sets"):
        compile_budgets(many, ONE)
    machine, index = compile_budgets(many[:5], ONE)
    assert machine.tables[index, Column.BOUNDARY_MASK].tolist() == [8, 16, 32, 64, 128]


def test_boundaries_of_one_budget_are_no_boundaries_of_another():
    budgets = [Budget(1, 1, grace=5, boundary=(X,)), Budget(1, 1, grace=5, boundary=(Y,))]
    machine, index = compile_budgets(budgets, ONE, None, [EOS])
    from elastic import ops

    for i, b in enumerate([X, Y]):
        out = run(machine, [Z, X, Y, X, Y, Z], state=ops.new_state(index[i : i + 1], machine))
        assert out.tokens[: out.tokens.index(END)][-1] == b


@pytest.mark.parametrize(
    ("budget", "shown"),
    [
        (Budget(), "Budget(1024, 1024)"),
        (Budget.unlimited(), "Budget(None, None)"),
        (Budget.vanilla(12), "Budget(None, None, total=12, on_eos='stop')"),
        (Budget(4, 8, grace=2, closing="qwen3"), "Budget(4, 8, closing='qwen3', grace=2)"),
        (Budget(9, 8, notices=((3, "hm"),)), "Budget(9, 8, notices=((3, 'hm'),))"),
    ],
)
def test_a_budget_shows_what_is_not_its_default_and_reads_back(budget, shown):
    assert repr(budget) == shown
    assert eval(shown) == budget


def test_a_machine_moves_to_a_device_whole():
    machine = machine_for(Budget(3, 3), ONE).to("meta")
    assert machine.tables.device.type == machine.token_flags.device.type == "meta"


def test_opening_rows_know_white_space_only_through_a_tokenizer():
    blank = ListTokenizer([" "] * 2 + ["t"] * 8)
    stream = [1, START, X]
    assert run(machine_for(Budget(1, 9), ONE, blank), stream, Phase.OPENING).phase[-1] == Phase.THINKING
    assert run(machine_for(Budget(1, 9), ONE), stream, Phase.OPENING).phase[-1] == Phase.SOLUTION


def test_finish_reasons_have_their_record_names():
    assert [reason.text for reason in FinishReason] == [
        "",
        "stop",
        "solution_budget",
        "total_budget",
        "length",
    ]


def test_tables_fit_32_bits_at_the_largest_budget():
    machine = machine_for(Budget(2**30, 2**30, grace=2**30, boundary=(X,)), ONE)
    assert machine.tables.dtype == torch.int32
    assert run(machine, [X, END, X]).tokens == [X, END, X]
