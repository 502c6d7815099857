// Budget ops: checks, allocation, device guard. Schemas are in library.cpp, kernels in csrc/cpu, csrc/cuda.
#include "cpu/budget.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "binding/budget_checks.h"
#include "binding/checks.h"
#include "binding/device.h"
#ifdef ELASTIC_WITH_CUDA
#include "cuda/budget.h"
#endif

namespace elastic {
namespace {

using at::Tensor;
using budget::STATE_WIDTH;

#ifdef ELASTIC_WITH_CUDA
#define ELASTIC_RUN(op, name, tensor, params)                         \
  do {                                                                \
    const auto& p_ = (params);                                        \
    if (runs_on_cuda(tensor)) {                                       \
      check_launch((op), (tensor), cuda::name(p_, current_stream())); \
    } else {                                                          \
      cpu::name(p_);                                                  \
    }                                                                 \
  } while (0)
#else
#define ELASTIC_RUN(op, name, tensor, params) cpu::name(params)
#endif

Tensor new_state(const Tensor& rows, const Tensor& phase, const Tensor& tables,
                 const std::optional<Tensor>& thinking_used) {
  const char* op = "new_state";
  const budget::Tables view = checked_tables(op, tables, nullptr, tables);
  TORCH_CHECK_VALUE(rows.dim() == 1, op, ": rows: expected one dimension, got ", describe(rows));
  const int64_t count = rows.size(0);
  expect(op, "rows", rows, {count}, at::kLong, tables);
  expect(op, "phase", phase, {count}, at::kLong, tables);
  if (thinking_used.has_value()) expect(op, "thinking_used", *thinking_used, {count}, at::kLong, tables);
  const int64_t* budgets = rows.const_data_ptr<int64_t>();
  const int64_t* phases = phase.const_data_ptr<int64_t>();
  const int64_t* used = thinking_used.has_value() ? thinking_used->const_data_ptr<int64_t>() : nullptr;
  for (int64_t r = 0; !runs_on_cuda(tables) && r < count; r++) {
    TORCH_CHECK_VALUE(budgets[r] >= 0 && budgets[r] < view.count, op, ": rows: expected indices below ",
                      view.count, ", got ", budgets[r], " in row ", r);
    const int64_t p = phases[r];
    const bool start =
        p == budget::OPENING || p == budget::THINKING || p == budget::SOLUTION || p == budget::DONE;
    TORCH_CHECK_VALUE(start, op, ": phase: expected OPENING, THINKING, SOLUTION or DONE, got ", p, " in row ",
                      r);
    if (used == nullptr) continue;
    TORCH_CHECK_VALUE(used[r] >= 0, op, ": thinking_used: expected at least 0, got ", used[r], " in row ", r);
    TORCH_CHECK_VALUE(used[r] == 0 || p != budget::OPENING, op,
                      ": thinking_used: expected 0 in OPENING, where thinking has not begun, got ", used[r],
                      " in row ", r);
  }
  const c10::DeviceGuard guard(tables.device());
  Tensor state = at::empty({count, STATE_WIDTH}, tables.options());
  const budget::NewStateParams params{view, budgets, phases, used, state.mutable_data_ptr<int32_t>(), count};
  ELASTIC_RUN(op, new_state, tables, params);
  return state;
}

void end_thinking_(Tensor& state, const Tensor& rows) {
  const char* op = "end_thinking_";
  TORCH_CHECK_VALUE(state.dim() == 2, op, ": state: expected [B, 8], got ", describe(state));
  const int64_t count = state.size(0);
  expect(op, "state", state, {count, STATE_WIDTH}, at::kInt, state);
  check_alignment(op, state);
  const bool masked = rows.scalar_type() == at::kBool;
  TORCH_CHECK_VALUE(rows.dim() == 1, op, ": rows: expected one dimension, got ", describe(rows));
  expect(op, "rows", rows, {masked ? count : rows.size(0)}, masked ? at::kBool : at::kLong, state);
  const int64_t* indices = masked ? nullptr : rows.const_data_ptr<int64_t>();
  for (int64_t i = 0; !masked && !runs_on_cuda(state) && i < rows.size(0); i++) {
    TORCH_CHECK_VALUE(indices[i] >= 0 && indices[i] < count, op, ": rows: expected indices from 0 to ",
                      count - 1, ", got ", indices[i], " at position ", i);
  }
  const c10::DeviceGuard guard(state.device());
  bump_version(state);
  const budget::EndThinkingParams params{indices, masked ? rows.const_data_ptr<bool>() : nullptr,
                                         state.mutable_data_ptr<int32_t>(), rows.size(0), count};
  ELASTIC_RUN(op, end_thinking, state, params);
}

Tensor budget_step_(Tensor& tokens, Tensor& state, const Tensor& tables, const Tensor& token_flags,
                    const std::optional<Tensor>& active) {
  const char* op = "budget_step_";
  TORCH_CHECK_VALUE(tokens.dim() == 1, op, ": tokens: expected one dimension, got ", describe(tokens));
  const int64_t rows = tokens.size(0);
  expect(op, "tokens", tokens, {rows}, at::kLong, tokens);
  const budget::Tables view = checked_tables(op, tables, &token_flags, tokens);
  check_state(op, state, rows, view, tokens);
  if (active.has_value()) expect(op, "active", *active, {1}, at::kInt, tokens);
  const c10::DeviceGuard guard(tokens.device());
  Tensor source = at::empty({rows}, tokens.options().dtype(at::kByte));
  bump_version(tokens);
  bump_version(state);
  if (active.has_value()) bump_version(*active);
  const budget::StepParams params{view,
                                  tokens.mutable_data_ptr<int64_t>(),
                                  state.mutable_data_ptr<int32_t>(),
                                  source.mutable_data_ptr<uint8_t>(),
                                  active.has_value() ? active->mutable_data_ptr<int32_t>() : nullptr,
                                  rows};
  ELASTIC_RUN(op, budget_step, tokens, params);
  return source;
}

uint64_t negative_infinity_bits(const char* op, at::ScalarType dtype) {
  switch (dtype) {
    case at::kBFloat16:
      return 0xFF80u;
    case at::kHalf:
      return 0xFC00u;
    case at::kFloat:
      return 0xFF800000u;
    case at::kDouble:
      return 0xFFF0000000000000u;
    default:
      TORCH_CHECK_TYPE(false, op, ": logits: expected float32, bfloat16, float16 or float64, got ",
                       dtype_name(dtype));
  }
}

void force_logits_(Tensor& logits, const Tensor& state, const Tensor& tables) {
  const char* op = "force_logits_";
  const uint64_t negative_infinity = negative_infinity_bits(op, logits.scalar_type());
  TORCH_CHECK_VALUE(logits.dim() == 2, op, ": logits: expected [B, V], got ", describe(logits));
  check_rows(op, "logits", logits, /*written=*/true);
  const budget::Tables view = checked_tables(op, tables, nullptr, logits);
  const Tensor readable = readable_state(op, state, logits.size(0), view, logits);
  if (logits.numel() == 0) return;
  const c10::DeviceGuard guard(logits.device());
  bump_version(logits);
  const budget::ForceParams params{
      view,           logits.mutable_data_ptr(), readable.const_data_ptr<int32_t>(), logits.size(0),
      logits.size(1), logits.stride(0),          int32_t(logits.element_size()),     negative_infinity};
  ELASTIC_RUN(op, force_logits, logits, params);
}

Tensor forced_next(const Tensor& state, const Tensor& tables) {
  const char* op = "forced_next";
  TORCH_CHECK_VALUE(state.dim() == 2, op, ": state: expected [B, 8], got ", describe(state));
  const int64_t rows = state.size(0);
  const budget::Tables view = checked_tables(op, tables, nullptr, state);
  const Tensor readable = readable_state(op, state, rows, view, state);
  const c10::DeviceGuard guard(state.device());
  Tensor forced = at::empty({rows}, state.options());
  const budget::ForcedNextParams params{view, readable.const_data_ptr<int32_t>(),
                                        forced.mutable_data_ptr<int32_t>(), rows};
  ELASTIC_RUN(op, forced_next, state, params);
  return forced;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> replay(const Tensor& tokens, const Tensor& lengths,
                                                  const Tensor& state, const Tensor& tables,
                                                  const Tensor& token_flags,
                                                  const std::optional<Tensor>& source,
                                                  const std::optional<Tensor>& ended) {
  const char* op = "replay";
  TORCH_CHECK_VALUE(tokens.dim() == 2, op, ": tokens: expected [R, T], got ", describe(tokens));
  const int64_t rows = tokens.size(0), length = tokens.size(1);
  expect(op, "tokens", tokens, {rows, length}, at::kLong, tokens);
  expect(op, "lengths", lengths, {rows}, at::kLong, tokens);
  const budget::Tables view = checked_tables(op, tables, &token_flags, tokens);
  const Tensor readable = readable_state(op, state, rows, view, tokens);
  if (source.has_value()) expect(op, "source", *source, {rows, length}, at::kByte, tokens);
  if (ended.has_value()) expect(op, "ended", *ended, {rows}, at::kLong, tokens);
  if (!runs_on_cuda(tokens)) {
    for (int64_t r = 0; r < rows; r++) {
      const int64_t n = lengths.const_data_ptr<int64_t>()[r];
      TORCH_CHECK_VALUE(n >= 0 && n <= length, op, ": lengths: expected 0 to ", length, ", got ", n,
                        " in row ", r);
      const int64_t end = ended.has_value() ? ended->const_data_ptr<int64_t>()[r] : -1;
      TORCH_CHECK_VALUE(end >= -1 && end <= n, op, ": ended: expected -1 to ", n,
                        ", the tokens of the row, got ", end, " in row ", r);
    }
  }
  const c10::DeviceGuard guard(tokens.device());
  const auto bytes = tokens.options().dtype(at::kByte);
  Tensor phase = at::full({rows, length}, int64_t(budget::DONE), bytes);
  Tensor read = at::full({rows, length}, int64_t(budget::PAD), bytes);
  Tensor mismatch = at::empty({rows}, lengths.options());
  Tensor after = readable.clone();
  const budget::ReplayParams params{view,
                                    tokens.const_data_ptr<int64_t>(),
                                    lengths.const_data_ptr<int64_t>(),
                                    source.has_value() ? source->const_data_ptr<uint8_t>() : nullptr,
                                    ended.has_value() ? ended->const_data_ptr<int64_t>() : nullptr,
                                    after.mutable_data_ptr<int32_t>(),
                                    phase.mutable_data_ptr<uint8_t>(),
                                    read.mutable_data_ptr<uint8_t>(),
                                    mismatch.mutable_data_ptr<int64_t>(),
                                    rows,
                                    length};
  ELASTIC_RUN(op, replay, tokens, params);
  return {phase, read, after, mismatch};
}

void register_ops(torch::Library& m) {
  m.impl("new_state", new_state);
  m.impl("end_thinking_", end_thinking_);
  m.impl("budget_step_", budget_step_);
  m.impl("force_logits_", force_logits_);
  m.impl("forced_next", forced_next);
  m.impl("replay", replay);
}

ELASTIC_REGISTER(register_ops)

}  // namespace
}  // namespace elastic
