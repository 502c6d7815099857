// group_advantage: checks, allocation, device guard.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>

#include "binding/device.h"
#include "binding/loss_checks.h"
#include "cpu/loss.h"
#ifdef ELASTIC_WITH_CUDA
#include "cuda/loss.h"
#endif

namespace elastic {
namespace {

using at::Tensor;

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

void register_ops(torch::Library& m) { m.impl("group_advantage", group_advantage); }

ELASTIC_REGISTER(register_ops)

}  // namespace
}  // namespace elastic
