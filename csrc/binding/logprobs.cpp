// Logprobs and entropy of tokens, from logits or hidden states in chunks: checks, allocation, device guard.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>

#include <array>

#include "binding/chunk_size.h"
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
void run_logprobs(const char* op, const Tensor& logits, const LogprobParams<A>& params) {
#ifdef ELASTIC_WITH_CUDA
  if constexpr (std::is_same_v<A, float>)
    if (runs_on_cuda(logits)) return check_launch(op, logits, cuda::token_logprobs(params, current_stream()));
#endif
  cpu::token_logprobs(params);
}

template <class A>
void run_backward(const char* op, const Tensor& logits, const LogprobBackwardParams<A>& params) {
#ifdef ELASTIC_WITH_CUDA
  if constexpr (std::is_same_v<A, float>)
    if (runs_on_cuda(logits))
      return check_launch(op, logits, cuda::token_logprobs_backward(params, current_stream()));
#endif
  cpu::token_logprobs_backward(params);
}

// run(float{}), or run(double{}) for float64 logits.
template <class Run>
void with_compute_type(const Tensor& logits, const Run& run) {
  if (logits.scalar_type() == at::kDouble)
    run(double{});
  else
    run(float{});
}

// The tokens first, first + 1, ... of a tensor of all.
Tensor part(const Tensor& all, int64_t first, int64_t count) { return all.narrow(0, first, count); }
std::optional<Tensor> part(const std::optional<Tensor>& all, int64_t first, int64_t count) {
  return all.has_value() ? std::optional(part(*all, first, count)) : std::nullopt;
}

// How tokens' logits become the distributions in which their targets are looked up.
struct Targets {
  Tensor ids;  // [N]
  double temperature;
  std::optional<Tensor> temperatures;
  std::optional<double> softcap;
  std::optional<Tensor> kept_ids, kept_offsets;

  void check(const char* op, int64_t tokens, int64_t vocab, const Tensor& beside) const {
    check_targets(op, tokens, vocab, beside, ids, std::nullopt);
    check_temperature(op, tokens, beside, temperature, temperatures);
    if (softcap.has_value()) check_positive(op, "softcap", *softcap);
    check_kept(op, tokens, vocab, ids, std::nullopt, kept_ids, kept_offsets);
  }
  Targets of(int64_t first, int64_t count) const {
    return {part(ids, first, count),
            temperature,
            part(temperatures, first, count),
            softcap,
            kept_ids,
            part(kept_offsets, first, count + 1)};
  }
  template <class A>
  Softmax<A> softmax(const Tensor& logits) const {
    return {logits.size(1),      ids.const_data_ptr<int64_t>(),    temperature, optional_ptr<A>(temperatures),
            softcap.value_or(0), kept_sets(kept_ids, kept_offsets)};
  }
};

// [N] each; the last two are what the backward needs besides the entropy.
struct Statistics {
  Tensor logprobs, entropy, maximum, log_sum;

  static Statistics empty(int64_t tokens, const Tensor& beside) {
    const auto options = beside.options().dtype(float_type(beside));
    const auto one = [&] { return at::empty({tokens}, options); };
    return {one(), one(), one(), one()};
  }
  Statistics of(int64_t first, int64_t count) const {
    return {part(logprobs, first, count), part(entropy, first, count), part(maximum, first, count),
            part(log_sum, first, count)};
  }
};

struct Backward {
  Tensor maximum, log_sum, entropy;
  std::optional<Tensor> grad_logprobs, grad_entropy;

  void check(const char* op, int64_t tokens, const Tensor& beside) const {
    const at::ScalarType dtype = float_type(beside);
    expect(op, "maximum", maximum, {tokens}, dtype, beside);
    expect(op, "log_sum", log_sum, {tokens}, dtype, beside);
    expect(op, "entropy", entropy, {tokens}, dtype, beside);
    if (grad_logprobs.has_value()) expect(op, "grad_logprobs", *grad_logprobs, {tokens}, dtype, beside);
    if (grad_entropy.has_value()) expect(op, "grad_entropy", *grad_entropy, {tokens}, dtype, beside);
  }
  Backward of(int64_t first, int64_t count) const {
    return {part(maximum, first, count), part(log_sum, first, count), part(entropy, first, count),
            part(grad_logprobs, first, count), part(grad_entropy, first, count)};
  }
};

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

void find(const char* op, const Tensor& logits, const Targets& targets, const Statistics& out) {
  with_compute_type(logits, [&](auto zero) {
    using A = decltype(zero);
    run_logprobs<A>(op, logits,
                    {targets.softmax<A>(logits), whole(logits, {}), out.logprobs.mutable_data_ptr<A>(),
                     out.entropy.mutable_data_ptr<A>(), out.maximum.mutable_data_ptr<A>(),
                     out.log_sum.mutable_data_ptr<A>()});
  });
}

void find_gradient(const char* op, const Tensor& logits, const Targets& targets, const Backward& given,
                   const Tensor& gradient) {
  const bool stashes = runs_on_cuda(logits) && targets.kept_ids.has_value();
  const Tensor kept_gradient =
      at::empty({stashes ? targets.kept_ids->size(0) : 0}, logits.options().dtype(float_type(logits)));
  with_compute_type(logits, [&](auto zero) {
    using A = decltype(zero);
    run_backward<A>(op, logits,
                    {targets.softmax<A>(logits), whole(logits, gradient), given.maximum.const_data_ptr<A>(),
                     given.log_sum.const_data_ptr<A>(), given.entropy.const_data_ptr<A>(),
                     optional_ptr<A>(given.grad_logprobs), optional_ptr<A>(given.grad_entropy),
                     kept_gradient.mutable_data_ptr<A>()});
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> token_logprobs(const Tensor& logits, const Tensor& ids,
                                                          double temperature,
                                                          const std::optional<Tensor>& temperatures,
                                                          std::optional<double> softcap,
                                                          const std::optional<Tensor>& kept_ids,
                                                          const std::optional<Tensor>& kept_offsets) {
  const char* op = "token_logprobs";
  const Targets targets{ids, temperature, temperatures, softcap, kept_ids, kept_offsets};
  check_logits(op, logits, /*written=*/false);
  targets.check(op, logits.size(0), logits.size(1), logits);
  const c10::DeviceGuard guard(logits.device());
  const Statistics out = Statistics::empty(logits.size(0), logits);
  find(op, logits, targets, out);
  return {out.logprobs, out.entropy, out.maximum, out.log_sum};
}

Tensor token_logprobs_backward(const Tensor& logits, const Tensor& ids, const Tensor& maximum,
                               const Tensor& log_sum, const Tensor& entropy,
                               const std::optional<Tensor>& grad_logprobs,
                               const std::optional<Tensor>& grad_entropy, double temperature,
                               const std::optional<Tensor>& temperatures, std::optional<double> softcap,
                               const std::optional<Tensor>& kept_ids,
                               const std::optional<Tensor>& kept_offsets) {
  const char* op = "token_logprobs_backward";
  const Targets targets{ids, temperature, temperatures, softcap, kept_ids, kept_offsets};
  const Backward given{maximum, log_sum, entropy, grad_logprobs, grad_entropy};
  check_logits(op, logits, /*written=*/false);
  targets.check(op, logits.size(0), logits.size(1), logits);
  given.check(op, logits.size(0), logits);
  const c10::DeviceGuard guard(logits.device());
  Tensor gradient = at::empty(logits.sizes(), logits.options());
  if (!runs_on_cuda(gradient)) cpu::prefer_huge_pages(gradient.mutable_data_ptr(), gradient.nbytes());
  find_gradient(op, logits, targets, given, gradient);
  return gradient;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> linear_token_logprobs(
    const Tensor& hidden, const Tensor& weight, const std::optional<Tensor>& bias, const Tensor& ids,
    double temperature, const std::optional<Tensor>& temperatures, std::optional<double> softcap,
    const std::optional<Tensor>& kept_ids, const std::optional<Tensor>& kept_offsets,
    std::optional<int64_t> chunk_tokens) {
  const char* op = "linear_token_logprobs";
  const Head head{hidden, weight, bias};
  const Targets targets{ids, temperature, temperatures, softcap, kept_ids, kept_offsets};
  check_head(op, head, chunk_tokens);
  const TokenList all{{}, hidden.size(0)}, none{{}, 0};
  targets.check(op, all.count, weight.size(0), hidden);
  const c10::DeviceGuard guard(hidden.device());
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const Statistics out = Statistics::empty(all.count, hidden);
  ChunkedHead chunks(head, chunk_size(chunk_tokens, hidden), all, none, {false, false, false},
                     /*gradient_in_place=*/true);
  chunks.read(all, [&](const HeadChunk& c) {
    const int64_t count = c.logits.size(0);
    find(op, c.logits, targets.of(c.first, count), out.of(c.first, count));
  });
  return {out.logprobs, out.entropy, out.maximum, out.log_sum};
}

std::tuple<Tensor, Tensor, Tensor> linear_token_logprobs_backward(
    const Tensor& hidden, const Tensor& weight, const std::optional<Tensor>& bias, const Tensor& ids,
    const Tensor& maximum, const Tensor& log_sum, const Tensor& entropy,
    const std::optional<Tensor>& grad_logprobs, const std::optional<Tensor>& grad_entropy, double temperature,
    const std::optional<Tensor>& temperatures, std::optional<double> softcap,
    const std::optional<Tensor>& kept_ids, const std::optional<Tensor>& kept_offsets,
    std::optional<int64_t> chunk_tokens, std::array<bool, 3> needs_gradient) {
  const char* op = "linear_token_logprobs_backward";
  const Head head{hidden, weight, bias};
  const Targets targets{ids, temperature, temperatures, softcap, kept_ids, kept_offsets};
  const Backward given{maximum, log_sum, entropy, grad_logprobs, grad_entropy};
  check_head(op, head, chunk_tokens);
  const TokenList none{{}, 0}, all{{}, hidden.size(0)};
  targets.check(op, all.count, weight.size(0), hidden);
  given.check(op, all.count, hidden);
  const c10::DeviceGuard guard(hidden.device());
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  // On CUDA the CTAs of one token do not synchronise, so none may overwrite the target's logit.
  ChunkedHead chunks(head, chunk_size(chunk_tokens, hidden), none, all, needs_gradient,
                     /*gradient_in_place=*/false);
  chunks.learn(all, [&](const HeadChunk& c) {
    const int64_t count = c.logits.size(0);
    find_gradient(op, c.logits, targets.of(c.first, count), given.of(c.first, count), c.gradient);
  });
  const auto [d_hidden, d_weight, d_bias] = chunks.gradients();
  return {d_hidden, d_weight, d_bias};
}

void register_ops(torch::Library& m) {
  m.impl("token_logprobs", token_logprobs);
  m.impl("token_logprobs_backward", token_logprobs_backward);
  m.impl("linear_token_logprobs", linear_token_logprobs);
  m.impl("linear_token_logprobs_backward", linear_token_logprobs_backward);
}

ELASTIC_REGISTER(register_ops)

}  // namespace
}  // namespace elastic
