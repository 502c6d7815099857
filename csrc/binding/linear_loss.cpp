// linear_grpo_loss: the stages of the loss over chunks of logits (head/chunked_head.h), each of which becomes
// its own gradient in place. Three matrix products in all; four where rows share a ratio (gspo), because no
// gradient is known before a row's last chunk was seen.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>

#include <array>

#include "binding/chunk_size.h"
#include "binding/device.h"
#include "binding/grpo.h"
#include "binding/loss_checks.h"
#include "core/grpo_scratch.h"
#include "head/chunked_head.h"

namespace elastic {
namespace {

using at::Tensor;
using Result = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

TokenList tokens_with(const Tensor& work, Work kind) {
  return tokens_where(work.eq(static_cast<int64_t>(kind)));
}

Result linear_grpo_loss(const Tensor& hidden, const Tensor& weight,
                        const std::optional<Tensor>& bias GRPO_PARAMETERS,
                        std::optional<int64_t> chunk_tokens, bool gather,
                        std::array<bool, 3> needs_gradient) {
  const char* op = "linear_grpo_loss";
  const GrpoArguments arguments{GRPO_VALUES};
  const Head head{hidden, weight, bias};
  check_head(op, head, chunk_tokens);
  const int64_t tokens = hidden.size(0), vocab = weight.size(0);
  const Objective objective = check_grpo(op, tokens, vocab, hidden, arguments);
  const c10::DeviceGuard guard(hidden.device());
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const bool learns = needs_gradient[0] || needs_gradient[1] || needs_gradient[2];

  GrpoRun run(op, tokens, vocab, hidden, arguments, objective, learns);
  run.begin();
  TokenList read{{}, learns ? 0 : tokens}, learn{{}, learns ? tokens : 0};
  if (gather) {
    const Tensor work = run.work();
    read = tokens_with(work, Work::READ);
    if (learns) learn = tokens_with(work, Work::LEARN);
  }
  ChunkedHead chunks(head, chunk_size(chunk_tokens, hidden), read, learn, needs_gradient,
                     /*gradient_in_place=*/true);
  const auto statistics = [&](const HeadChunk& c) { run.chunk(c.logits, {}, c.first, c.index); };
  chunks.read(read, statistics);
  if (!run.is_row_level()) {
    chunks.learn(learn, [&](const HeadChunk& c) { run.chunk(c.logits, c.gradient, c.first, c.index); });
  } else {
    chunks.read(learn, statistics);
    run.rows();
    chunks.learn_again(
        learn, [&](const HeadChunk& c) { run.chunk_gradient(c.logits, c.gradient, c.first, c.index); });
  }
  run.end();
  const auto [d_hidden, d_weight, d_bias] = chunks.gradients();
  return {run.loss, run.logprobs, run.entropy, run.advantages, run.clip_fraction,
          run.kl,   d_hidden,     d_weight,    d_bias};
}

void register_ops(torch::Library& m) { m.impl("linear_grpo_loss", linear_grpo_loss); }

ELASTIC_REGISTER(register_ops)

}  // namespace
}  // namespace elastic
