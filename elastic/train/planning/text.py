"""A plan for reading."""

from elastic.train.planning.run_plan import RunPlan


def text(plan: RunPlan) -> str:
    """The plan in lines of two columns: a name, what there is to say."""
    parts = (_what(plan), _tokens(plan), _memory(plan), _disk(plan), _time(plan), _remarks(plan))
    lines = [line for part in parts for line in part]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in lines)


Lines = list[tuple[str, str]]


def _what(plan: RunPlan) -> Lines:
    model, precision = plan.config.model, plan.config.train.mixed_precision
    mixed = "" if precision == "no" else f", computing in {precision}"
    what = f"{plan.architecture}, {plan.parameters / 1e6:,.1f} M parameters, {model.dtype}{mixed}"
    return [("model", f"{model.path}: {what}"), ("device", plan.device)]


def _tokens(plan: RunPlan) -> Lines:
    rollout, loop, work = plan.config.rollout, plan.config.train, plan.work
    prompts = f"{work.problems:,} problems, prompts of at most {work.longest_prompt:,} tokens"
    updates = loop.epochs_per_batch * loop.minibatches
    run = work.step_tokens * loop.steps
    lines = [
        ("data", f"{prompts}, {work.mean_prompt:.0f} on average" if work.longest_prompt else "not known"),
        ("step", f"{rollout.prompts_per_step} prompts x {rollout.samples_per_prompt} = {work.rows:,} rows"),
        ("", f"at most {work.row_tokens:,} tokens a row, {_count(work.step_tokens)} a step"),
        ("run", f"{loop.steps:,} steps, {loop.steps * updates:,} updates: at most {_count(run)} tokens"),
    ]
    if work.evaluations:
        rows = sum(len(call.most) for call in work.evaluation)
        most = _count(work.evaluations * work.evaluation_tokens)
        lines.append(("evaluations", f"{work.evaluations} of {rows:,} rows: at most {most} tokens"))
    return lines


def _memory(plan: RunPlan) -> Lines:
    memory = plan.memory
    rows = min(plan.config.rollout.max_rows, plan.work.rows)
    items = [
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("optimizer state", memory.optimizer),
        ("reference copy", memory.reference),
        ("rollout copy", memory.rollout_copy),
        (f"KV cache, {rows} rows", memory.kv_cache),
        ("KV cache, evaluation", memory.kv_cache_evaluation),
        ("logits of a decode step", memory.decode_logits),
        ("kept sets of 64 steps", memory.kept_sets),
        (f"activations, {memory.micro_batch_tokens:,} tokens", memory.activations),
        ("  of these beside the loss", memory.saved),
        ("logits of the loss", memory.loss),
        ("kept of rollouts", memory.kept),
    ]
    lines = [("memory", "")] + [(f"  {name}", _gib(size)) for name, size in items if size]
    lines += [("  most in rollouts", _gib(memory.rollouts)), ("  most in updates", _gib(memory.updates))]
    if memory.on_host:
        lines.append(("", f"offloaded activations: {_gib(memory.on_host)} of the host's memory"))
    if memory.kept_sets:
        most = plan.work.step_tokens * plan.config.sampling.recorded * 4
        lines.append(("", f"kept sets of a step: at most {_gib(round(most))} of the host's memory"))
    if memory.kv_cache_most:
        lines.append(("", f"KV cache grows with its rows, up to {_gib(memory.kv_cache_most)}"))
    if memory.free is not None:
        fits = "fits" if memory.most <= memory.free else "does not fit"
        lines.append((f"  free on {plan.device}", f"{_gib(memory.free)}: {fits}"))
    return lines


def _disk(plan: RunPlan) -> Lines:
    disk, loop = plan.disk, plan.config.train
    saves = f"{disk.saves} checkpoints of {_gib(disk.checkpoint)}, at most {disk.kept} at a time; "
    size = _gib(disk.model)
    models = f"final model, best by {loop.best}: {size} each" if loop.best else f"final model: {size}"
    return [("disk", f"{saves if disk.saves else ''}{models}"), ("", f"at most {_gib(disk.most)}")]


def _time(plan: RunPlan) -> Lines:
    rates, hours = plan.rates, plan.hours
    if rates is None or hours is None:
        how = "run a few steps (train.steps = 3, another output_dir) and plan again with --rates DIRECTORY"
        return [("time", f"not measured on this device: {how}")]
    speed = f"{rates.rollout:,.0f} tokens/s in rollouts, {rates.update:,.0f} in updates"
    lines = [
        ("time", f"at most {hours.most:.3g} hours"),
        ("", f"measured: {speed} ({rates.steps} steps of {rates.source})"),
    ]
    if hours.expected is not None:
        rows = f"{rates.completion_tokens:.0f} tokens as measured"
        lines.insert(1, ("", f"{hours.expected:.3g} hours with rows of {rows}"))
    return lines


def _remarks(plan: RunPlan) -> Lines:
    first = [("to put right", text) for text in plan.problems]
    return first + [("note", text) for text in plan.notes]


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"


def _count(tokens: float) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if tokens >= size:
            return f"{tokens / size:.3g} {unit}"
    return f"{tokens:,.0f}"
