// token_logprobs, its backward, and group_advantage: checks, allocation, device guard.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>

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

void check_all(const char* op, const Tensor& logits, const Tensor& targets, double temperature,
               const std::optional<Tensor>& temperatures, std::optional<double> softcap) {
  check_logits(op, logits, /*written=*/false);
  check_targets(op, logits.size(0), logits.size(1), logits, targets, std::nullopt);
  check_temperature(op, logits.size(0), logits, temperature, temperatures);
  if (softcap.has_value()) check_positive(op, "softcap", *softcap);
}

template <class A>
Softmax<A> softmax_of(const Tensor& logits, const Tensor& targets, double temperature,
                      const std::optional<Tensor>& temperatures, std::optional<double> softcap) {
  return {logits.size(1), targets.const_data_ptr<int64_t>(), temperature, optional_ptr<A>(temperatures),
          softcap.value_or(0)};
}

// All tokens; `gradient` undefined: none.
LogitsChunk whole(const Tensor& logits, const Tensor& gradient) {
  return {scalar_type(logits),
          logits.const_data_ptr(),
          logits.stride(0),
          gradient.defined() ? gradient.mutable_data_ptr() : nullptr,
          logits.size(1),
          logits.size(0),
          0,
          nullptr};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> token_logprobs(const Tensor& logits, const Tensor& targets,
                                                          double temperature,
                                                          const std::optional<Tensor>& temperatures,
                                                          std::optional<double> softcap) {
  const char* op = "token_logprobs";
  check_all(op, logits, targets, temperature, temperatures, softcap);
  const c10::DeviceGuard guard(logits.device());
  const auto options = logits.options().dtype(float_type(logits));
  Tensor logprobs = at::empty({logits.size(0)}, options), entropy = at::empty_like(logprobs),
         maximum = at::empty_like(logprobs), log_sum = at::empty_like(logprobs);
  const auto run = [&](auto zero) {
    using A = decltype(zero);
    run_logprobs<A>(logits, {softmax_of<A>(logits, targets, temperature, temperatures, softcap),
                             whole(logits, {}), logprobs.mutable_data_ptr<A>(), entropy.mutable_data_ptr<A>(),
                             maximum.mutable_data_ptr<A>(), log_sum.mutable_data_ptr<A>()});
  };
  if (logits.scalar_type() == at::kDouble)
    run(double{});
  else
    run(float{});
  return {logprobs, entropy, maximum, log_sum};
}

Tensor token_logprobs_backward(const Tensor& logits, const Tensor& targets, const Tensor& maximum,
                               const Tensor& log_sum, const Tensor& entropy,
                               const std::optional<Tensor>& grad_logprobs,
                               const std::optional<Tensor>& grad_entropy, double temperature,
                               const std::optional<Tensor>& temperatures, std::optional<double> softcap) {
  const char* op = "token_logprobs_backward";
  check_all(op, logits, targets, temperature, temperatures, softcap);
  const at::ScalarType dtype = float_type(logits);
  expect(op, "maximum", maximum, targets.sizes(), dtype, logits);
  expect(op, "log_sum", log_sum, targets.sizes(), dtype, logits);
  expect(op, "entropy", entropy, targets.sizes(), dtype, logits);
  if (grad_logprobs.has_value()) expect(op, "grad_logprobs", *grad_logprobs, targets.sizes(), dtype, logits);
  if (grad_entropy.has_value()) expect(op, "grad_entropy", *grad_entropy, targets.sizes(), dtype, logits);
  const c10::DeviceGuard guard(logits.device());
  Tensor gradient = at::empty(logits.sizes(), logits.options());
  if (!runs_on_cuda(gradient)) cpu::prefer_huge_pages(gradient.mutable_data_ptr(), gradient.nbytes());
  const auto run = [&](auto zero) {
    using A = decltype(zero);
    run_backward<A>(
        logits, {softmax_of<A>(logits, targets, temperature, temperatures, softcap), whole(logits, gradient),
                 maximum.const_data_ptr<A>(), log_sum.const_data_ptr<A>(), entropy.const_data_ptr<A>(),
                 optional_ptr<A>(grad_logprobs), optional_ptr<A>(grad_entropy)});
  };
  if (logits.scalar_type() == at::kDouble)
    run(double{});
  else
    run(float{});
  return gradient;
}

Tensor group_advantage(const Tensor& rewards, const Tensor& group_offsets, c10::string_view kind_name,
                       double eps, int64_t pass_k) {
  const char* op = "group_advantage";
  const Advantage kind = advantage_kind(op, "kind", kind_name);
  TORCH_CHECK_VALUE(rewards.dim() == 1, op, ": rewards: expected [R], got ", describe(rewards));
  const bool wide = rewards.scalar_type() == at::kDouble && !runs_on_cuda(rewards);
  expect(op, "rewards", rewards, rewards.sizes(), wide ? at::kDouble : at::kFloat, rewards);
  check_rewards(op, rewards, group_offsets, "eps", eps, pass_k);
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
    cpu::group_advantage<A>(kind, rewards.const_data_ptr<A>(), offsets, groups, eps, pass_k,
                            advantages.mutable_data_ptr<A>());
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
