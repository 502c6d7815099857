// grpo_loss, in place and out of place, and the op that scales its gradient for autograd.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>

#include "binding/device.h"
#include "binding/grpo.h"
#include "binding/loss_checks.h"
#include "cpu/huge_pages.h"
#ifdef ELASTIC_WITH_CUDA
#include "cuda/loss.h"
#endif

namespace elastic {
namespace {

using at::Tensor;

// `gradient` undefined: none; the logits themselves: in place.
GrpoRun all_stages(const char* op, const Tensor& logits, const Tensor& gradient,
                   const GrpoArguments& arguments, const Objective& objective) {
  GrpoRun run(op, logits.size(0), logits.size(1), logits, arguments, objective, gradient.defined());
  run.begin();
  run.chunk(logits, gradient, 0, {});
  if (run.is_row_level()) {
    run.rows();
    if (gradient.defined()) run.chunk_gradient(logits, gradient, 0, {});
  }
  run.end();
  return run;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> grpo_loss(
    const Tensor& logits GRPO_PARAMETERS, bool needs_gradient) {
  const char* op = "grpo_loss";
  const GrpoArguments arguments{GRPO_VALUES};
  check_logits(op, logits, /*written=*/false);
  const Objective objective = check_grpo(op, logits.size(0), logits.size(1), logits, arguments);
  const c10::DeviceGuard guard(logits.device());
  Tensor gradient = at::empty({needs_gradient ? logits.size(0) : 0, logits.size(1)}, logits.options());
  if (!runs_on_cuda(gradient)) cpu::prefer_huge_pages(gradient.mutable_data_ptr(), gradient.nbytes());
  const GrpoRun run = all_stages(op, logits, needs_gradient ? gradient : Tensor(), arguments, objective);
  return {run.loss, run.logprobs, run.entropy, run.advantages, run.clip_fraction, run.kl, gradient};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> grpo_loss_(Tensor& logits GRPO_PARAMETERS) {
  const char* op = "grpo_loss";  // the public name
  const GrpoArguments arguments{GRPO_VALUES};
  check_logits(op, logits, /*written=*/true);
  const Objective objective = check_grpo(op, logits.size(0), logits.size(1), logits, arguments);
  const c10::DeviceGuard guard(logits.device());
  bump_version(logits);
  const GrpoRun run = all_stages(op, logits, logits, arguments, objective);
  return {run.loss, run.logprobs, run.entropy, run.advantages, run.clip_fraction, run.kl};
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
    bump_version(values);
    check_launch(op, values,
                 cuda::scale(scalar_type(values), values.mutable_data_ptr(), values.size(0), values.size(1),
                             values.stride(0), factor.const_data_ptr<float>(), current_stream()));
    return;
  }
#endif
  const double f = factor.item<double>();
  if (f != 1) values.mul_(f);  // backward() of the loss itself brings 1: no pass, no new version
}

void register_ops(torch::Library& m) {
  m.impl("grpo_loss", grpo_loss);
  m.impl("grpo_loss_", grpo_loss_);
  m.impl("scale_", scale_);
}

ELASTIC_REGISTER(register_ops)

}  // namespace
}  // namespace elastic
