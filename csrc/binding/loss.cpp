// grpo_loss, in place and not, and the op that hands its gradient to autograd: checks, allocation, device
// guard.
#include "cpu/loss.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <cmath>
#include <limits>

#include "binding/device.h"
#include "binding/loss_checks.h"
#include "cpu/huge_pages.h"
#ifdef ELASTIC_WITH_CUDA
#include "cuda/loss.h"
#endif

namespace elastic {
namespace {

using at::Tensor;
using OptTensor = std::optional<Tensor>;
using OptInt = std::optional<int64_t>;

Loss loss_type(const char* op, std::string_view name) {
  if (name == "grpo") return Loss::GRPO;
  if (name == "bnpo") return Loss::BNPO;
  if (name == "dr_grpo") return Loss::DR_GRPO;
  if (name == "dapo") return Loss::DAPO;
  if (name == "gspo") return Loss::GSPO;
  if (name == "cispo") return Loss::CISPO;
  if (name == "sapo") return Loss::SAPO;
  TORCH_CHECK_VALUE(false, op, ": loss: expected grpo, bnpo, dr_grpo, dapo, gspo, cispo or sapo, got '", name,
                    "'");
}

Kl kl_type(const char* op, std::string_view name) {
  if (name == "k1") return Kl::K1;
  if (name == "k2") return Kl::K2;
  if (name == "k3") return Kl::K3;
  TORCH_CHECK_VALUE(false, op, ": kl: expected k1, k2 or k3, got '", name, "'");
}

EngineMode engine_mode_type(const char* op, std::string_view name) {
  if (name == "truncate") return EngineMode::TRUNCATE;
  if (name == "mask") return EngineMode::MASK;
  TORCH_CHECK_VALUE(false, op, ": engine_mode: expected truncate or mask, got '", name, "'");
}

double at_least_one(const char* op, const char* name, OptInt value) {
  if (!value.has_value()) return -1;
  TORCH_CHECK_VALUE(*value >= 1, op, ": ", name, ": expected at least 1, got ", *value);
  return static_cast<double>(*value);
}

void check_bounds(const char* op, const Objective& o) {
  TORCH_CHECK_VALUE(o.clip_low >= 0 && o.clip_low <= 1, op, ": clip_low: expected a value in [0, 1], got ",
                    o.clip_low);
  TORCH_CHECK_VALUE(std::isfinite(o.clip_high) && o.clip_high >= 0, op,
                    ": clip_high: expected a finite value of at least 0, got ", o.clip_high);
  TORCH_CHECK_VALUE(o.delta > 0, op, ": delta: expected a value above 0, got ", o.delta);
  TORCH_CHECK_VALUE(o.dual_clip > 1, op, ": dual_clip: expected a value above 1, got ", o.dual_clip);
  TORCH_CHECK_VALUE(std::isfinite(o.kl_coef) && o.kl_coef >= 0, op,
                    ": kl_coef: expected a finite value of at least 0, got ", o.kl_coef);
  TORCH_CHECK_VALUE(std::isfinite(o.entropy_coef), op, ": entropy_coef: expected a finite value, got ",
                    o.entropy_coef);
  TORCH_CHECK_VALUE(o.engine_low >= 0 && o.engine_low <= o.engine_high, op,
                    ": engine_low: expected 0 <= engine_low <= engine_high, got ", o.engine_low, " and ",
                    o.engine_high);
  check_positive(op, "tau_positive", o.tau_positive);
  check_positive(op, "tau_negative", o.tau_negative);
  TORCH_CHECK_VALUE(o.loss != Loss::DR_GRPO || o.max_length >= 1, op,
                    ": max_length: expected a length, which dr_grpo divides by, got None");
}

template <class A>
void run(const Tensor& logits, const GrpoParams<A>& params) {
#ifdef ELASTIC_WITH_CUDA
  if constexpr (std::is_same_v<A, float>)
    if (runs_on_cuda(logits)) {
      const auto bytes = static_cast<int64_t>(cuda::grpo_scratch_bytes(params.view.tokens, params.rows));
      Tensor scratch = at::empty({bytes}, logits.options().dtype(at::kByte));
      return check_launch("grpo_loss", logits,
                          cuda::grpo_loss(params, scratch.mutable_data_ptr(), current_stream()));
    }
#endif
  cpu::grpo_loss(params);
}

// loss, logprobs, entropy, clip_fraction, kl; `gradient` undefined: no gradient; the logits themselves: in
// place.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> compute(
    const Tensor& logits, const Tensor& targets, const Tensor& old_logprobs, const Tensor& row_offsets,
    const Tensor& advantages, const OptTensor& mask, const OptTensor& ref_logprobs,
    const OptTensor& engine_logprobs, const OptTensor& temperatures, double temperature,
    const Objective& objective, const Tensor& gradient) {
  const at::ScalarType dtype = float_type(logits);
  const auto options = logits.options().dtype(dtype);
  Tensor logprobs = at::empty({logits.size(0)}, options), entropy = at::empty_like(logprobs),
         loss = at::empty({}, options), clip_fraction = at::empty({}, options), kl = at::empty({}, options);
  const auto call = [&](auto zero) {
    using A = decltype(zero);
    GrpoParams<A> p{};
    p.view = logits_view<A>(logits, targets, temperature, temperatures);
    p.gradient = gradient.defined() ? gradient.mutable_data_ptr() : nullptr;
    p.gradient_stride = gradient.defined() ? gradient.stride(0) : 0;
    p.rows = row_offsets.size(0) - 1;
    p.row_offsets = row_offsets.const_data_ptr<int64_t>();
    p.mask = optional_ptr<bool>(mask);
    p.old_logprobs = old_logprobs.const_data_ptr<A>();
    p.ref_logprobs = optional_ptr<A>(ref_logprobs);
    p.engine_logprobs = optional_ptr<A>(engine_logprobs);
    p.advantages = advantages.const_data_ptr<A>();
    p.objective = objective;
    p.logprobs = logprobs.mutable_data_ptr<A>();
    p.entropy = entropy.mutable_data_ptr<A>();
    p.loss = loss.mutable_data_ptr<A>();
    p.clip_fraction = clip_fraction.mutable_data_ptr<A>();
    p.kl = kl.mutable_data_ptr<A>();
    run<A>(logits, p);
  };
  if (dtype == at::kDouble)
    call(double{});
  else
    call(float{});
  return {loss, logprobs, entropy, clip_fraction, kl};
}

Objective checked(const char* op, const Tensor& logits, bool inplace, const Tensor& targets,
                  const Tensor& old_logprobs, const Tensor& row_offsets, const Tensor& advantages,
                  const OptTensor& mask, const OptTensor& ref_logprobs, const OptTensor& engine_logprobs,
                  const OptTensor& temperatures, double temperature, std::string_view loss, double clip_low,
                  double clip_high, std::optional<double> delta, std::optional<double> dual_clip,
                  double kl_coef, std::string_view kl, bool kl_weighted, double entropy_coef,
                  double tau_positive, double tau_negative, OptInt num_tokens, OptInt num_rows,
                  OptInt max_length, std::string_view engine_mode, bool engine_rows, double engine_low,
                  double engine_high) {
  check_logits(op, logits, inplace);
  check_targets(op, logits, targets, mask);
  check_offsets(op, "row_offsets", row_offsets, logits.size(0), "N", logits);
  check_temperature(op, logits, temperature, temperatures);
  const at::ScalarType dtype = float_type(logits);
  expect(op, "old_logprobs", old_logprobs, targets.sizes(), dtype, logits);
  expect(op, "advantages", advantages, {row_offsets.size(0) - 1}, dtype, logits);
  if (ref_logprobs.has_value()) expect(op, "ref_logprobs", *ref_logprobs, targets.sizes(), dtype, logits);
  if (engine_logprobs.has_value())
    expect(op, "engine_logprobs", *engine_logprobs, targets.sizes(), dtype, logits);
  TORCH_CHECK_VALUE(kl_coef == 0 || ref_logprobs.has_value(), op,
                    ": ref_logprobs: expected with kl_coef = ", kl_coef, ", got None");
  const double none = std::numeric_limits<double>::infinity();
  const Objective objective{loss_type(op, loss),
                            kl_type(op, kl),
                            kl_weighted,
                            clip_low,
                            clip_high,
                            delta.value_or(none),
                            dual_clip.value_or(none),
                            kl_coef,
                            entropy_coef,
                            tau_positive,
                            tau_negative,
                            at_least_one(op, "num_tokens", num_tokens),
                            at_least_one(op, "num_rows", num_rows),
                            at_least_one(op, "max_length", max_length),
                            engine_mode_type(op, engine_mode),
                            engine_rows,
                            engine_low,
                            engine_high};
  check_bounds(op, objective);
  return objective;
}

#define GRPO_PARAMETERS                                                                                      \
  const Tensor &targets, const Tensor &old_logprobs, const Tensor &row_offsets, const Tensor &advantages,    \
      const OptTensor &mask, const OptTensor &ref_logprobs, const OptTensor &engine_logprobs,                \
      const OptTensor &temperatures, double temperature, c10::string_view loss, double clip_low,             \
      double clip_high, std::optional<double> delta, std::optional<double> dual_clip, double kl_coef,        \
      c10::string_view kl, bool kl_weighted, double entropy_coef, double tau_positive, double tau_negative,  \
      OptInt num_tokens, OptInt num_rows, OptInt max_length, c10::string_view engine_mode, bool engine_rows, \
      double engine_low, double engine_high
#define GRPO_ARGUMENTS                                                                                    \
  targets, old_logprobs, row_offsets, advantages, mask, ref_logprobs, engine_logprobs, temperatures,      \
      temperature, loss, clip_low, clip_high, delta, dual_clip, kl_coef, kl, kl_weighted, entropy_coef,   \
      tau_positive, tau_negative, num_tokens, num_rows, max_length, engine_mode, engine_rows, engine_low, \
      engine_high

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> grpo_loss(const Tensor& logits, GRPO_PARAMETERS,
                                                                     bool needs_gradient) {
  const Objective objective = checked("grpo_loss", logits, /*inplace=*/false, GRPO_ARGUMENTS);
  const c10::DeviceGuard guard(logits.device());
  Tensor gradient = at::empty({needs_gradient ? logits.size(0) : 0, logits.size(1)}, logits.options());
  if (!runs_on_cuda(gradient)) cpu::prefer_huge_pages(gradient.mutable_data_ptr(), gradient.nbytes());
  auto [value, logprobs, entropy, clip_fraction, divergence] =
      compute(logits, targets, old_logprobs, row_offsets, advantages, mask, ref_logprobs, engine_logprobs,
              temperatures, temperature, objective, needs_gradient ? gradient : Tensor());
  return {value, logprobs, entropy, clip_fraction, divergence, gradient};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> grpo_loss_(Tensor& logits, GRPO_PARAMETERS) {
  const Objective objective = checked("grpo_loss_", logits, /*inplace=*/true, GRPO_ARGUMENTS);
  const c10::DeviceGuard guard(logits.device());
  // Whoever saved these logits for a backward of its own is told, instead of reading a gradient.
  logits.unsafeGetTensorImpl()->bump_version();
  return compute(logits, targets, old_logprobs, row_offsets, advantages, mask, ref_logprobs, engine_logprobs,
                 temperatures, temperature, objective, logits);
}

void scale_(Tensor& values, const Tensor& factor) {
  const char* op = "scale_";
  TORCH_CHECK_VALUE(factor.numel() == 1 && factor.device() == values.device(), op,
                    ": factor: expected one element on ", values.device(), ", got ", describe(factor));
#ifdef ELASTIC_WITH_CUDA
  if (runs_on_cuda(values)) {
    check_logits(op, values, /*written=*/true);
    TORCH_CHECK_TYPE(factor.scalar_type() == at::kFloat, op, ": factor: expected float32, got ",
                     describe(factor));
    const c10::DeviceGuard guard(values.device());
    values.unsafeGetTensorImpl()->bump_version();
    return check_launch(
        op, values,
        cuda::scale(scalar_type(values), values.mutable_data_ptr(), values.size(0), values.size(1),
                    values.stride(0), factor.const_data_ptr<float>(), current_stream()));
  }
#endif
  const double f = factor.item<double>();
  if (f != 1) values.mul_(f);  // 1 is what backward() of the loss itself brings: no pass, no new version
}

void register_ops(torch::Library& m) {
  m.impl("grpo_loss", grpo_loss);
  m.impl("grpo_loss_", grpo_loss_);
  m.impl("scale_", scale_);
}

ELASTIC_REGISTER(register_ops)

}  // namespace
}  // namespace elastic
