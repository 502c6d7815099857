// The stages of the GRPO loss on either device: allocation and dispatch.
#include "binding/grpo.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "binding/device.h"
#include "binding/loss_checks.h"
#include "core/grpo_scratch.h"
#include "cpu/loss.h"
#ifdef ELASTIC_WITH_CUDA
#include "cuda/loss.h"
#endif

namespace elastic {
namespace {

using at::Tensor;

template <class A>
A* data_of(const Tensor& tensor) {
  return tensor.mutable_data_ptr<A>();
}

LogitsChunk chunk_of(const Tensor& logits, const Tensor& gradient, int64_t first, const Tensor& index) {
  return {scalar_type(logits),
          logits.const_data_ptr(),
          logits.stride(0),
          gradient.defined() ? gradient.mutable_data_ptr() : nullptr,
          gradient.defined() ? gradient.stride(0) : 0,
          logits.size(0),
          first,
          index.defined() ? index.const_data_ptr<int64_t>() : nullptr};
}

#ifdef ELASTIC_WITH_CUDA
#define ELASTIC_STAGE(stage, ...)                                                                        \
  if (runs_on_cuda(logprobs))                                                                            \
    return check_launch(                                                                                 \
        op_, logprobs,                                                                                   \
        cuda::stage(std::get<GrpoParams<float>>(params_) __VA_OPT__(, ) __VA_ARGS__, current_stream())); \
  std::visit([&](const auto& p) { cpu::stage(p __VA_OPT__(, ) __VA_ARGS__); }, params_)
#else
#define ELASTIC_STAGE(stage, ...) \
  std::visit([&](const auto& p) { cpu::stage(p __VA_OPT__(, ) __VA_ARGS__); }, params_)
#endif

template <class A>
GrpoParams<A> params_of(int64_t tokens, int64_t vocab, const GrpoArguments& a, const Objective& objective,
                        bool needs_gradient, const GrpoRun& run, const Tensor& scratch) {
  GrpoParams<A> p{};
  p.softmax = {vocab,
               a.targets.const_data_ptr<int64_t>(),
               a.temperature,
               optional_ptr<A>(a.temperatures),
               a.softcap.value_or(0),
               kept_sets(a.kept_ids, a.kept_offsets)};
  p.tokens = tokens;
  p.rows = a.row_offsets.size(0) - 1;
  p.row_offsets = a.row_offsets.const_data_ptr<int64_t>();
  p.mask = optional_ptr<bool>(a.mask);
  p.old_logprobs = a.old_logprobs.const_data_ptr<A>();
  p.ref_logprobs = optional_ptr<A>(a.ref_logprobs);
  p.engine_logprobs = optional_ptr<A>(a.engine_logprobs);
  if (a.rewards.has_value()) {
    p.rewards = a.rewards->const_data_ptr<A>();
    p.group_offsets = a.group_offsets->const_data_ptr<int64_t>();
    p.groups = a.group_offsets->size(0) - 1;
    p.advantage = advantage_kind("grpo_loss", "advantage", a.advantage);
    p.advantage_eps = a.advantage_eps;
    p.pass_k = a.pass_k;
    p.advantages = data_of<A>(run.advantages);
  } else {
    p.advantages = const_cast<A*>(a.advantages->const_data_ptr<A>());  // written only where there are rewards
  }
  p.objective = objective;
  p.needs_gradient = needs_gradient;
  p.skip_zero_advantage = a.skip_zero_advantage;
  p.logprobs = data_of<A>(run.logprobs);
  p.entropy = data_of<A>(run.entropy);
  p.loss = data_of<A>(run.loss);
  p.clip_fraction = data_of<A>(run.clip_fraction);
  p.kl = data_of<A>(run.kl);
  p.scratch = scratch.mutable_data_ptr();
  p.kept_gradient = data_of<A>(run.kept_gradient);
  return p;
}

}  // namespace

GrpoRun::GrpoRun(const char* op, int64_t tokens, int64_t vocab, const Tensor& beside,
                 const GrpoArguments& arguments, const Objective& objective, bool needs_gradient)
    : op_(op) {
  const bool wide = float_type(beside) == at::kDouble;
  const int64_t rows = arguments.row_offsets.size(0) - 1;
  const auto options = beside.options().dtype(float_type(beside));
  logprobs = at::empty({tokens}, options);
  entropy = at::empty_like(logprobs);
  loss = at::empty({}, options);
  clip_fraction = at::empty({}, options);
  kl = at::empty({}, options);
  advantages = at::empty({arguments.rewards.has_value() ? rows : 0}, options);
  const size_t bytes =
      wide ? grpo_scratch_bytes<double>(tokens, rows) : grpo_scratch_bytes<float>(tokens, rows);
  scratch_ = at::empty({static_cast<int64_t>(bytes)}, options.dtype(at::kByte));
  const bool stashes = needs_gradient && runs_on_cuda(beside) && arguments.kept_ids.has_value();
  kept_gradient = at::empty({stashes ? arguments.kept_ids->size(0) : 0}, options);
  if (wide)
    params_ = params_of<double>(tokens, vocab, arguments, objective, needs_gradient, *this, scratch_);
  else
    params_ = params_of<float>(tokens, vocab, arguments, objective, needs_gradient, *this, scratch_);
}

void GrpoRun::begin() const { ELASTIC_STAGE(grpo_begin); }

void GrpoRun::chunk(const Tensor& logits, const Tensor& gradient, int64_t first, const Tensor& index) const {
  const LogitsChunk chunk = chunk_of(logits, gradient, first, index);
  ELASTIC_STAGE(grpo_chunk, chunk);
}

void GrpoRun::rows() const { ELASTIC_STAGE(grpo_rows); }

void GrpoRun::chunk_gradient(const Tensor& logits, const Tensor& gradient, int64_t first,
                             const Tensor& index) const {
  const LogitsChunk chunk = chunk_of(logits, gradient, first, index);
  ELASTIC_STAGE(grpo_chunk_gradient, chunk);
}

void GrpoRun::end() const { ELASTIC_STAGE(grpo_end); }

bool GrpoRun::is_row_level() const {
  return std::visit([](const auto& p) { return elastic::is_row_level(p.objective); }, params_);
}

Tensor GrpoRun::work() const {
  return std::visit(
      [&](const auto& p) {
        const auto* first = reinterpret_cast<const char*>(grpo_scratch(p).work);
        return scratch_.narrow(0, first - static_cast<const char*>(p.scratch), p.tokens);
      },
      params_);
}

}  // namespace elastic
