// Sampling: checks, allocation, device guard. Schemas are in library.cpp, kernels in csrc/cpu, csrc/cuda.
#include "cpu/sample.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <cmath>

#include "binding/budget_checks.h"
#include "binding/checks.h"
#include "binding/device.h"
#ifdef ELASTIC_WITH_CUDA
#include "cuda/sample.h"
#endif

namespace elastic {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using sampling::Filters;
using sampling::SampleParams;

void check_filters(const char* op, const Filters& f) {
  TORCH_CHECK_VALUE(f.temperature >= 0 && std::isfinite(f.temperature), op,
                    ": temperature: expected a finite number >= 0, got ", f.temperature);
  TORCH_CHECK_VALUE(f.top_k >= 0, op, ": top_k: expected 0 (off) or more, got ", f.top_k);
  TORCH_CHECK_VALUE(f.top_p > 0 && f.top_p <= 1, op, ": top_p: expected a number in (0, 1], got ", f.top_p);
  TORCH_CHECK_VALUE(f.min_p >= 0 && f.min_p <= 1, op, ": min_p: expected a number in [0, 1], got ", f.min_p);
}

template <class T>
const T* per_row(const char* op, const char* name, const OptionalTensor& values, at::ScalarType dtype,
                 const Tensor& logits) {
  if (!values.has_value()) return nullptr;
  expect(op, name, *values, {logits.size(0)}, dtype, logits);
  return values->const_data_ptr<T>();
}

struct RowOptions {
  const OptionalTensor &temperatures, &top_ks, &top_ps, &min_ps;
};

SampleParams checked(const char* op, const Tensor& logits, const Tensor& seeds, const Tensor& positions,
                     const Filters& all, const RowOptions& rows, int64_t most_kept,
                     const OptionalTensor& broken) {
  SampleParams p{};
  TORCH_CHECK_VALUE(most_kept >= 0 && most_kept <= sampling::LARGEST_VOCAB, op,
                    ": most_kept: expected 0 (off) to ", sampling::LARGEST_VOCAB, ", got ", most_kept);
  const at::ScalarType dtype = logits.scalar_type();
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf, op,
                   ": logits: expected float32, bfloat16 or float16, got ", dtype_name(dtype));
  p.dtype = scalar_type(logits);
  TORCH_CHECK_VALUE(logits.dim() == 2, op, ": logits: expected [B, V], got ", describe(logits));
  p.rows = logits.size(0);
  p.vocab = logits.size(1);
  TORCH_CHECK_VALUE(p.vocab >= 1 && p.vocab <= sampling::LARGEST_VOCAB, op, ": logits: expected 1 to ",
                    sampling::LARGEST_VOCAB, " columns, got ", describe(logits));
  check_rows(op, "logits", logits, /*written=*/false);
  p.logits = logits.const_data_ptr();
  p.row_stride = logits.stride(0);
  expect(op, "seeds", seeds, {p.rows}, at::kLong, logits);
  expect(op, "positions", positions, {p.rows}, at::kLong, logits);
  p.seeds = seeds.const_data_ptr<int64_t>();
  p.positions = positions.const_data_ptr<int64_t>();
  p.all = all;
  p.temperature = per_row<double>(op, "temperature", rows.temperatures, at::kDouble, logits);
  p.top_k = per_row<int64_t>(op, "top_k", rows.top_ks, at::kLong, logits);
  p.top_p = per_row<double>(op, "top_p", rows.top_ps, at::kDouble, logits);
  p.min_p = per_row<double>(op, "min_p", rows.min_ps, at::kDouble, logits);
  check_filters(op, all);
  if (!runs_on_cuda(logits)) {
    for (int64_t r = 0; r < p.rows; r++) check_filters(op, filters_of(p, r));
  }
  if (broken.has_value()) {
    expect(op, "broken", *broken, {1}, at::kInt, logits);
    p.broken = broken->mutable_data_ptr<int32_t>();
    bump_version(*broken);
  }
  return p;
}

struct Outputs {
  Tensor tokens, logprobs, full_logprobs;
  Tensor kept_ids, kept_counts;  // [B, K] and [B]; [B, 0] and [0] where nobody asks
  Tensor kept_rows;              // scratch
};

void allocate(SampleParams& p, const Tensor& logits, int64_t most_kept, Outputs& out) {
  out.tokens = at::empty({p.rows}, logits.options().dtype(at::kLong));
  out.logprobs = at::empty({p.rows}, logits.options().dtype(at::kFloat));
  out.full_logprobs = at::empty_like(out.logprobs);
  p.tokens = out.tokens.mutable_data_ptr<int64_t>();
  p.logprobs = out.logprobs.mutable_data_ptr<float>();
  p.full_logprobs = out.full_logprobs.mutable_data_ptr<float>();
  const auto integers = logits.options().dtype(at::kInt);
  out.kept_ids = at::empty({p.rows, most_kept}, integers);
  out.kept_counts = at::empty({most_kept > 0 ? p.rows : 0}, integers);
  p.most_kept = most_kept;
  if (most_kept == 0) return;
  p.kept_ids = out.kept_ids.mutable_data_ptr<int32_t>();
  p.kept_counts = out.kept_counts.mutable_data_ptr<int32_t>();
  if (!runs_on_cuda(logits)) return;
  const int64_t bytes = p.rows * static_cast<int64_t>(sizeof(sampling::KeptRow));
  out.kept_rows = at::zeros({bytes}, logits.options().dtype(at::kByte));
  p.kept_rows = static_cast<sampling::KeptRow*>(out.kept_rows.mutable_data_ptr());
}

// On the host an unusable row is an error at once, unless the caller asked for a flag to look at later.
void run(const char* op, const Tensor& logits, SampleParams& p) {
#ifdef ELASTIC_WITH_CUDA
  if (runs_on_cuda(logits)) return check_launch(op, logits, cuda::sample(p, current_stream()));
#endif
  const int64_t broken = cpu::sample(p);
  TORCH_CHECK(broken < 0 || p.broken != nullptr, op, ": logits: row ", broken,
              " holds NaN or +inf, or nothing but -inf that may be drawn");
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> sample(
    const Tensor& logits, const Tensor& seeds, const Tensor& positions, double temperature, int64_t top_k,
    double top_p, double min_p, const OptionalTensor& temperatures, const OptionalTensor& top_ks,
    const OptionalTensor& top_ps, const OptionalTensor& min_ps, int64_t most_kept,
    const OptionalTensor& broken) {
  const char* op = "sample";
  SampleParams p = checked(op, logits, seeds, positions, {temperature, top_k, top_p, min_p},
                           {temperatures, top_ks, top_ps, min_ps}, most_kept, broken);
  const c10::DeviceGuard guard(logits.device());
  Outputs out;
  allocate(p, logits, most_kept, out);
  run(op, logits, p);
  return {out.tokens, out.logprobs, out.full_logprobs, out.kept_ids, out.kept_counts};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> sample_(
    const Tensor& logits, const Tensor& seeds, const Tensor& positions, Tensor& state, const Tensor& tables,
    const Tensor& token_flags, double temperature, int64_t top_k, double top_p, double min_p,
    const OptionalTensor& temperatures, const OptionalTensor& top_ks, const OptionalTensor& top_ps,
    const OptionalTensor& min_ps, int64_t most_kept, const OptionalTensor& active,
    const OptionalTensor& broken) {
  const char* op = "sample";
  SampleParams p = checked(op, logits, seeds, positions, {temperature, top_k, top_p, min_p},
                           {temperatures, top_ks, top_ps, min_ps}, most_kept, broken);
  p.tables = checked_tables(op, tables, &token_flags, logits);
  check_state(op, state, p.rows, p.tables, logits);
  p.state = state.mutable_data_ptr<int32_t>();
  if (active.has_value()) {
    expect(op, "active", *active, {1}, at::kInt, logits);
    p.active = active->mutable_data_ptr<int32_t>();
    bump_version(*active);
  }
  bump_version(state);
  const c10::DeviceGuard guard(logits.device());
  Outputs out;
  allocate(p, logits, most_kept, out);
  Tensor source = at::empty({p.rows}, logits.options().dtype(at::kByte)), phase = at::empty_like(source);
  p.source = source.mutable_data_ptr<uint8_t>();
  p.phase = phase.mutable_data_ptr<uint8_t>();
  run(op, logits, p);
  return {out.tokens, out.logprobs, out.full_logprobs, source, phase, out.kept_ids, out.kept_counts};
}

void register_sample(torch::Library& m) {
  m.impl("sample", sample);
  m.impl("sample_", sample_);
}

ELASTIC_REGISTER(register_sample)

}  // namespace
}  // namespace elastic
