// The list of the GRPO losses' arguments behind the logits, in the order of the schemas. Schemas
// (library.cpp), struct and parameters (grpo.h) and range checks (grpo_checks.cpp) are made from it: a new
// option is one line.
#pragma once

// X(type in the schema, type in C++, name)
#define GRPO_TENSORS(X)                                           \
  X("Tensor", const at::Tensor&, targets)                         \
  X("Tensor", const at::Tensor&, old_logprobs)                    \
  X("Tensor", const at::Tensor&, row_offsets)                     \
  X("Tensor?", const std::optional<at::Tensor>&, advantages)      \
  X("Tensor?", const std::optional<at::Tensor>&, rewards)         \
  X("Tensor?", const std::optional<at::Tensor>&, group_offsets)   \
  X("Tensor?", const std::optional<at::Tensor>&, mask)            \
  X("Tensor?", const std::optional<at::Tensor>&, ref_logprobs)    \
  X("Tensor?", const std::optional<at::Tensor>&, engine_logprobs) \
  X("Tensor?", const std::optional<at::Tensor>&, temperatures)    \
  X("Tensor?", const std::optional<at::Tensor>&, kept_ids)        \
  X("Tensor?", const std::optional<at::Tensor>&, kept_offsets)

// X(type in the schema, type in C++, name, range): a range of grpo_checks.cpp; ANY where every value is legal
// or another argument's check covers it.
#define GRPO_OPTIONS(X)                                        \
  X("float", double, temperature, ANY)                         \
  X("float?", std::optional<double>, softcap, FACTOR)          \
  X("str", c10::string_view, advantage, ANY)                   \
  X("float", double, advantage_eps, ANY)                       \
  X("SymInt", int64_t, pass_k, ANY)                            \
  X("str", c10::string_view, loss, ANY)                        \
  X("float", double, clip_low, FROM_0_TO_1)                    \
  X("float", double, clip_high, FINITE_FROM_0)                 \
  X("float?", std::optional<double>, delta, ABOVE_0)           \
  X("float?", std::optional<double>, dual_clip, ABOVE_1)       \
  X("float", double, kl_coef, FINITE_FROM_0)                   \
  X("str", c10::string_view, kl, ANY)                          \
  X("bool", bool, kl_weighted, ANY)                            \
  X("float", double, entropy_coef, FINITE)                     \
  X("float", double, tau_positive, FACTOR)                     \
  X("float", double, tau_negative, FACTOR)                     \
  X("SymInt?", std::optional<int64_t>, num_tokens, AT_LEAST_0) \
  X("SymInt?", std::optional<int64_t>, num_rows, AT_LEAST_0)   \
  X("SymInt?", std::optional<int64_t>, max_length, AT_LEAST_1) \
  X("str", c10::string_view, engine_mode, ANY)                 \
  X("bool", bool, engine_rows, ANY)                            \
  X("float", double, engine_low, ANY)                          \
  X("float", double, engine_high, ANY)                         \
  X("bool", bool, skip_zero_advantage, ANY)

#define GRPO_ARGUMENTS(X) GRPO_TENSORS(X) GRPO_OPTIONS(X)
