// Budget ops: checks, allocation, device guard. Schemas stand in library.cpp, the work in csrc/cpu and
// csrc/cuda.
#include "cpu/budget.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "binding/device.h"
#ifdef ELASTIC_WITH_CUDA
#include "cuda/budget.h"
#endif

namespace elastic {
namespace {

using at::Tensor;
using budget::STATE_WIDTH;

// One argument: its type, that it is contiguous, and that it lives where the first argument does.
void check(const char* op, const char* name, const Tensor& tensor, at::ScalarType dtype, int64_t dimensions,
           const Tensor& beside) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, op, ": ", name, ": expected ", dtype, ", got ",
                   tensor.scalar_type());
  TORCH_CHECK_VALUE(tensor.dim() == dimensions, op, ": ", name, ": expected ", dimensions,
                    " dimensions, got shape ", tensor.sizes());
  TORCH_CHECK_VALUE(tensor.is_contiguous(), op, ": ", name, ": expected a contiguous tensor, got strides ",
                    tensor.strides());
  TORCH_CHECK_VALUE(tensor.device() == beside.device(), op, ": ", name, ": expected device ", beside.device(),
                    ", got ", tensor.device());
}

void check_size(const char* op, const char* name, const Tensor& tensor, int64_t axis, int64_t expected) {
  TORCH_CHECK_VALUE(tensor.size(axis) == expected, op, ": ", name, ": expected size ", expected,
                    " in dimension ", axis, ", got shape ", tensor.sizes());
}

budget::Tables checked_tables(const char* op, const Tensor& tables, const Tensor* token_flags,
                              const Tensor& beside) {
  check(op, "tables", tables, at::kInt, 2, beside);
  TORCH_CHECK_VALUE(tables.size(0) > 0 && tables.size(1) >= budget::HEADER_WIDTH, op,
                    ": tables: expected at least one row of at least ", int(budget::HEADER_WIDTH),
                    " columns, got shape ", tables.sizes());
  budget::Tables out{tables.const_data_ptr<int32_t>(), nullptr, tables.size(0), tables.size(1), 0};
  if (token_flags != nullptr) {
    check(op, "token_flags", *token_flags, at::kLong, 1, beside);
    out.token_flags = token_flags->const_data_ptr<int64_t>();
    out.vocab = token_flags->size(0);
  }
  return out;
}

// State rows index the tables, so a state made for another machine could read outside them. Host only: on a
// device a check would have to wait for it.
void check_state(const char* op, const Tensor& state, int64_t rows, const Tensor& tables,
                 const Tensor& beside) {
  check(op, "state", state, at::kInt, 2, beside);
  check_size(op, "state", state, 0, rows);
  check_size(op, "state", state, 1, STATE_WIDTH);
  if (runs_on_cuda(state)) {
    // Kernels move a row's state as two 16-byte words.
    TORCH_CHECK_VALUE(rows == 0 || reinterpret_cast<uintptr_t>(state.const_data_ptr()) % 16 == 0, op,
                      ": state: expected rows aligned to 16 bytes, got storage offset ",
                      state.storage_offset());
    return;
  }
  const int32_t* data = state.const_data_ptr<int32_t>();
  for (int64_t r = 0; r < rows; r++) {
    TORCH_CHECK_VALUE(data[r * STATE_WIDTH] >= 0 && data[r * STATE_WIDTH] < tables.size(0), op,
                      ": state: expected a budget below ", tables.size(0), " in row ", r, ", got ",
                      data[r * STATE_WIDTH]);
  }
}

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

Tensor new_state(const Tensor& budgets, const Tensor& phases, const Tensor& tables) {
  const char* op = "new_state";
  const budget::Tables view = checked_tables(op, tables, nullptr, tables);
  check(op, "budgets", budgets, at::kLong, 1, tables);
  check(op, "phases", phases, at::kInt, 1, tables);
  const int64_t rows = budgets.size(0);
  check_size(op, "phases", phases, 0, rows);
  if (!runs_on_cuda(tables)) {
    for (int64_t r = 0; r < rows; r++) {
      const int64_t b = budgets.const_data_ptr<int64_t>()[r];
      TORCH_CHECK_VALUE(b >= 0 && b < view.count, op, ": budgets: expected indices below ", view.count,
                        ", got ", b, " in row ", r);
      const int32_t phase = phases.const_data_ptr<int32_t>()[r];
      const bool start = phase == budget::OPENING || phase == budget::THINKING || phase == budget::SOLUTION ||
                         phase == budget::DONE;
      TORCH_CHECK_VALUE(start, op, ": phases: expected OPENING, THINKING, SOLUTION or DONE, got ", phase,
                        " in row ", r);
    }
  }
  const c10::DeviceGuard guard(tables.device());
  Tensor state = at::empty({rows, STATE_WIDTH}, tables.options());
  const budget::NewStateParams params{view, budgets.const_data_ptr<int64_t>(),
                                      phases.const_data_ptr<int32_t>(), state.mutable_data_ptr<int32_t>(),
                                      rows};
  ELASTIC_RUN(op, new_state, tables, params);
  return state;
}

Tensor budget_step_(Tensor& tokens, Tensor& state, const Tensor& tables, const Tensor& token_flags,
                    const std::optional<Tensor>& active) {
  const char* op = "budget_step_";
  check(op, "tokens", tokens, at::kLong, 1, tokens);
  const budget::Tables view = checked_tables(op, tables, &token_flags, tokens);
  const int64_t rows = tokens.size(0);
  check_state(op, state, rows, tables, tokens);
  if (active.has_value()) {
    check(op, "active", *active, at::kInt, 1, tokens);
    check_size(op, "active", *active, 0, 1);
  }
  const c10::DeviceGuard guard(tokens.device());
  Tensor source = at::empty({rows}, tokens.options().dtype(at::kByte));
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
      TORCH_CHECK_TYPE(false, op, ": logits: expected bfloat16, float16, float32 or float64, got ", dtype);
  }
}

void force_logits_(Tensor& logits, const Tensor& state, const Tensor& tables) {
  const char* op = "force_logits_";
  const uint64_t negative_infinity = negative_infinity_bits(op, logits.scalar_type());
  TORCH_CHECK_VALUE(logits.dim() == 2, op, ": logits: expected 2 dimensions, got shape ", logits.sizes());
  // One row has no meaningful row stride, and an empty row no column stride.
  TORCH_CHECK_VALUE(logits.size(1) <= 1 || logits.stride(1) == 1, op,
                    ": logits: expected a last dimension of stride 1, got strides ", logits.strides());
  TORCH_CHECK_VALUE(logits.size(0) <= 1 || logits.stride(0) >= logits.size(1), op,
                    ": logits: expected rows that do not overlap, got strides ", logits.strides());
  const budget::Tables view = checked_tables(op, tables, nullptr, logits);
  check_state(op, state, logits.size(0), tables, logits);
  if (logits.numel() == 0) return;
  const c10::DeviceGuard guard(logits.device());
  const budget::ForceParams params{
      view,           logits.mutable_data_ptr(), state.const_data_ptr<int32_t>(), logits.size(0),
      logits.size(1), logits.stride(0),          int32_t(logits.element_size()),  negative_infinity};
  ELASTIC_RUN(op, force_logits, logits, params);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> replay(const Tensor& tokens, const Tensor& lengths,
                                                  const Tensor& state, const Tensor& tables,
                                                  const Tensor& token_flags,
                                                  const std::optional<Tensor>& source) {
  const char* op = "replay";
  check(op, "tokens", tokens, at::kLong, 2, tokens);
  const int64_t rows = tokens.size(0), length = tokens.size(1);
  check(op, "lengths", lengths, at::kLong, 1, tokens);
  check_size(op, "lengths", lengths, 0, rows);
  const budget::Tables view = checked_tables(op, tables, &token_flags, tokens);
  check_state(op, state, rows, tables, tokens);
  if (source.has_value()) {
    check(op, "source", *source, at::kByte, 2, tokens);
    check_size(op, "source", *source, 0, rows);
    check_size(op, "source", *source, 1, length);
  }
  if (!runs_on_cuda(tokens)) {
    for (int64_t r = 0; r < rows; r++) {
      const int64_t n = lengths.const_data_ptr<int64_t>()[r];
      TORCH_CHECK_VALUE(n >= 0 && n <= length, op, ": lengths: expected 0 to ", length, ", got ", n,
                        " in row ", r);
    }
  }
  const c10::DeviceGuard guard(tokens.device());
  const auto bytes = tokens.options().dtype(at::kByte);
  Tensor phase = at::full({rows, length}, int64_t(budget::DONE), bytes);
  Tensor read = at::full({rows, length}, int64_t(budget::PAD), bytes);
  Tensor mismatch = at::empty({rows}, lengths.options());
  Tensor after = state.clone();
  const budget::ReplayParams params{view,
                                    tokens.const_data_ptr<int64_t>(),
                                    lengths.const_data_ptr<int64_t>(),
                                    source.has_value() ? source->const_data_ptr<uint8_t>() : nullptr,
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
  m.impl("budget_step_", budget_step_);
  m.impl("force_logits_", force_logits_);
  m.impl("replay", replay);
}

ELASTIC_REGISTER(register_ops)

}  // namespace
}  // namespace elastic
