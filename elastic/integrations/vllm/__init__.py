"""Both budgets in vLLM: a logits processor for its two model runners."""
