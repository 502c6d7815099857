"""Two data-parallel processes train as TRL trains them, and roll out what one process does."""

import torch
from trl import GRPOTrainer

from elastic import Budget
from elastic.integrations.trl import ElasticGRPOTrainer, elastic_rollout_func
from tests.forked import fork, free_port, status
from tests.integrations.trl.runs import build, digits, logged, prompts, weights
from tests.integrations.trl.server import connect


def train(trainer_class, model_path, output, rows):
    """Trains, and saves what came out."""
    completions = []

    def reward(**given):
        completions.extend(given["completion_ids"])
        return digits(given["completions"])

    trainer = build(
        *(trainer_class, model_path, output),
        rollout_func=elastic_rollout_func(Budget(8, 6), thinking_low=1),
        reward_funcs=reward,
        per_device_train_batch_size=rows,
        beta=0.1,
    )
    trainer.train()
    result = {"weights": weights(trainer), "log": logged(trainer), "completions": completions}
    torch.save(result, output / f"{trainer_class.__name__}-{trainer.accelerator.process_index}.pt")
    return result


def in_two_processes(work):
    port = free_port()
    children = [fork(rank, port, work) for rank in range(2)]
    assert [status(child) for child in children] == [0, 0], "see the captured stderr"


def test_two_processes_train_as_trl_does_and_draw_the_rows_of_one(model_path, tmp_path):
    def work():  # with 6 rows in a process, groups of 4 lie in both
        for trainer_class in (GRPOTrainer, ElasticGRPOTrainer):
            train(trainer_class, model_path, tmp_path, 6)

    in_two_processes(work)
    saved = {
        (name, rank): torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True)
        for name in ("GRPOTrainer", "ElasticGRPOTrainer")
        for rank in range(2)
    }
    theirs, ours = saved["GRPOTrainer", 0], saved["ElasticGRPOTrainer", 0]
    torch.testing.assert_close(ours["weights"], theirs["weights"], rtol=0, atol=1e-6)
    torch.testing.assert_close(saved["ElasticGRPOTrainer", 1]["weights"], ours["weights"], rtol=0, atol=0)
    for entry, other in zip(ours["log"], theirs["log"], strict=True):
        assert entry.keys() == other.keys()
        assert max(abs(entry[name] - value) for name, value in other.items()) < 2e-5
    one = train(ElasticGRPOTrainer, model_path, tmp_path, 12)
    first = [*ours["completions"][:6], *saved["ElasticGRPOTrainer", 1]["completions"][:6]]
    assert one["completions"][:12] == first
    torch.testing.assert_close(one["weights"], ours["weights"], rtol=0, atol=1e-5)


def generate(model_path, output, rows):
    """One generation by a server, which the main process alone is connected to; saves what came out."""
    rollouts = elastic_rollout_func(Budget(8, 6), thinking_low=1)
    options = {"rollout_func": rollouts, "per_device_train_batch_size": rows, "shuffle_dataset": False}
    trainer = build(GRPOTrainer, model_path, output, **options)
    client = connect(trainer)
    if not trainer.accelerator.is_main_process:
        del trainer.vllm_generation.vllm_client
    texts = [row["prompt"] for row in prompts(3) for _ in range(4)]
    rank = trainer.accelerator.process_index
    trainer.model.train()
    answer = rollouts(texts[rows * rank : rows * (rank + 1)], trainer)
    torch.save((answer["completion_ids"], len(client.requests)), output / f"{rank}.pt")
    return answer


def test_the_main_process_asks_a_server_for_the_rows_of_all(model_path, tmp_path):
    in_two_processes(lambda: generate(model_path, tmp_path, 6))
    (first, asked), (second, none) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert (asked, none) == (3, 0)
    assert first + second == generate(model_path, tmp_path, 12)["completion_ids"]
