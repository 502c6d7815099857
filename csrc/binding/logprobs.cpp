// token_logprobs, its backward, and group_advantage: checks, allocation, device guard.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <cmath>

#include "binding/device.h"
#include "binding/loss_checks.h"
#include "cpu/huge_pages.h"
#include "cpu/loss.h"
#ifdef ELASTIC_WITH_CUDA
#include "cuda/loss.h"
#endif

namespace elastic {
namespace {

using at::Tensor;

template <class A>
void run_logprobs(const Tensor& logits, const LogprobParams<A>& params) {
#ifdef ELASTIC_WITH_CUDA
  if constexpr (std::is_same_v<A, float>)
    if (runs_on_cuda(logits))
      return check_launch("token_logprobs", logits, cuda::token_logprobs(params, current_stream()));
#endif
  cpu::token_logprobs(params);
}

template <class A>
void run_backward(const Tensor& logits, const LogprobBackwardParams<A>& params) {
#ifdef ELASTIC_WITH_CUDA
  if constexpr (std::is_same_v<A, float>)
    if (runs_on_cuda(logits))
      return check_launch("token_logprobs_backward", logits,
                          cuda::token_logprobs_backward(params, current_stream()));
#endif
  cpu::token_logprobs_backward(params);
}

std::tuple<Tensor, Tensor, Tensor> token_logprobs(const Tensor& logits, const Tensor& targets,
                                                  double temperature,
                                                  const std::optional<Tensor>& temperatures) {
  const char* op = "token_logprobs";
  check_logits(op, logits, /*written=*/false);
  check_targets(op, logits, targets, std::nullopt);
  check_temperature(op, logits, temperature, temperatures);
  const c10::DeviceGuard guard(logits.device());
  const auto options = logits.options().dtype(float_type(logits));
  Tensor logprobs = at::empty({logits.size(0)}, options), entropy = at::empty_like(logprobs),
         logsumexp = at::empty_like(logprobs);
  const auto run = [&](auto zero) {
    using A = decltype(zero);
    run_logprobs<A>(
        logits, {logits_view<A>(logits, targets, temperature, temperatures), logprobs.mutable_data_ptr<A>(),
                 entropy.mutable_data_ptr<A>(), logsumexp.mutable_data_ptr<A>()});
  };
  if (logits.scalar_type() == at::kDouble)
    run(double{});
  else
    run(float{});
  return {logprobs, entropy, logsumexp};
}

Tensor token_logprobs_backward(const Tensor& logits, const Tensor& targets, const Tensor& logsumexp,
                               const Tensor& entropy, const std::optional<Tensor>& grad_logprobs,
                               const std::optional<Tensor>& grad_entropy, double temperature,
                               const std::optional<Tensor>& temperatures) {
  const char* op = "token_logprobs_backward";
  check_logits(op, logits, /*written=*/false);
  check_targets(op, logits, targets, std::nullopt);
  check_temperature(op, logits, temperature, temperatures);
  const at::ScalarType dtype = float_type(logits);
  expect(op, "logsumexp", logsumexp, targets.sizes(), dtype, logits);
  expect(op, "entropy", entropy, targets.sizes(), dtype, logits);
  if (grad_logprobs.has_value()) expect(op, "grad_logprobs", *grad_logprobs, targets.sizes(), dtype, logits);
  if (grad_entropy.has_value()) expect(op, "grad_entropy", *grad_entropy, targets.sizes(), dtype, logits);
  const c10::DeviceGuard guard(logits.device());
  Tensor gradient = at::empty(logits.sizes(), logits.options());
  if (!runs_on_cuda(gradient)) cpu::prefer_huge_pages(gradient.mutable_data_ptr(), gradient.nbytes());
  const auto run = [&](auto zero) {
    using A = decltype(zero);
    run_backward<A>(
        logits, {logits_view<A>(logits, targets, temperature, temperatures), logsumexp.const_data_ptr<A>(),
                 entropy.const_data_ptr<A>(), optional_ptr<A>(grad_logprobs), optional_ptr<A>(grad_entropy),
                 gradient.mutable_data_ptr()});
  };
  if (logits.scalar_type() == at::kDouble)
    run(double{});
  else
    run(float{});
  return gradient;
}

Advantage advantage_kind(const char* op, std::string_view name) {
  if (name == "group") return Advantage::GROUP;
  if (name == "none") return Advantage::NONE;
  if (name == "batch") return Advantage::BATCH;
  if (name == "rloo") return Advantage::RLOO;
  if (name == "maxrl") return Advantage::MAXRL;
  if (name == "passk") return Advantage::PASSK;
  TORCH_CHECK_VALUE(false, op, ": kind: expected group, none, batch, rloo, maxrl or passk, got '", name, "'");
}

Tensor group_advantage(const Tensor& rewards, const Tensor& group_offsets, c10::string_view kind_name,
                       double eps, int64_t pass_k) {
  const char* op = "group_advantage";
  const Advantage kind = advantage_kind(op, kind_name);
  TORCH_CHECK_VALUE(rewards.dim() == 1, op, ": rewards: expected [R], got ", describe(rewards));
  const bool wide = rewards.scalar_type() == at::kDouble && !runs_on_cuda(rewards);
  expect(op, "rewards", rewards, rewards.sizes(), wide ? at::kDouble : at::kFloat, rewards);
  check_offsets(op, "group_offsets", group_offsets, rewards.size(0), "R", rewards);
  TORCH_CHECK_VALUE(std::isfinite(eps) && eps >= 0, op, ": eps: expected a finite value of at least 0, got ",
                    eps);
  TORCH_CHECK_VALUE(pass_k >= 1, op, ": pass_k: expected at least 1, got ", pass_k);
  const int64_t* offsets = group_offsets.const_data_ptr<int64_t>();
  const int64_t groups = group_offsets.size(0) - 1;
  const c10::DeviceGuard guard(rewards.device());
  Tensor advantages = at::empty_like(rewards);
#ifdef ELASTIC_WITH_CUDA
  if (runs_on_cuda(rewards)) {
    check_launch(
        op, rewards,
        cuda::group_advantage(kind, rewards.const_data_ptr<float>(), offsets, groups, rewards.size(0), eps,
                              pass_k, advantages.mutable_data_ptr<float>(), current_stream()));
    return advantages;
  }
#endif
  const auto run = [&](auto zero) {
    using A = decltype(zero);
    const A* data = rewards.const_data_ptr<A>();
    for (int64_t i = 0; i < rewards.size(0); i++)
      TORCH_CHECK_VALUE(std::isfinite(data[i]), op, ": rewards: expected finite values, got ", data[i],
                        " in row ", i);
    cpu::group_advantage<A>(kind, data, offsets, groups, eps, pass_k, advantages.mutable_data_ptr<A>());
  };
  if (wide)
    run(double{});
  else
    run(float{});
  return advantages;
}

void register_ops(torch::Library& m) {
  m.impl("token_logprobs", token_logprobs);
  m.impl("token_logprobs_backward", token_logprobs_backward);
  m.impl("group_advantage", group_advantage);
}

ELASTIC_REGISTER(register_ops)

}  // namespace
}  // namespace elastic
