"""The rollout record: a batch of rows as tensors, texts and files, and `replay` of other engines' rows."""
