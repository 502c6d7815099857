// linear_grpo_loss: logits = hidden weight^T + bias in chunks of tokens, the stages of the loss over each
// chunk in place, and the products that turn the logits' gradient into those of hidden states, weight and
// bias. Three matrix products in all, whose operands keep their dtype; four where rows share a ratio (gspo),
// because no gradient is known before a row's last chunk was seen.
//
// Memory besides the outputs: one chunk of logits, and the weight's gradient in float32 where 16-bit chunks
// add up.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <array>

#include "binding/device.h"
#include "binding/grpo.h"
#include "binding/loss_checks.h"
#include "core/grpo_scratch.h"
#include "cpu/huge_pages.h"

namespace elastic {
namespace {

using at::Tensor;

// A gradient that chunks add up to: in the dtype of the weight where one chunk is all, else in float32.
class Sum {
 public:
  Sum(at::IntArrayRef shape, const at::TensorOptions& options, bool needed, bool several)
      : result(at::empty(needed ? shape : at::IntArrayRef({0}), options)), needed_(needed) {
    const bool short_floats = result.element_size() == 2;
    if (needed && several && short_floats) wide_ = at::empty(shape, options.dtype(at::kFloat));
    for (const Tensor& tensor : {result, wide_})
      if (tensor.defined() && !tensor.is_cuda())
        cpu::prefer_huge_pages(tensor.mutable_data_ptr(), tensor.nbytes());
  }

  bool needed() const { return needed_; }

  // += a b
  void add_product(const Tensor& a, const Tensor& b) {
    if (!wide_.defined()) {
      if (empty_)
        at::mm_out(result, a, b);
      else
        at::addmm_out(result, result, a, b);
    } else if (result.is_cuda()) {
      // the product's own accumulator starts from the sum; a factor of 0 leaves what is there unread
      at::addmm_out(wide_, wide_, a, b, at::kFloat, /*beta=*/empty_ ? 0 : 1);
    } else {
      at::mm_out(result, a, b);  // rounded once a chunk: CPU products of 16 bits have no wider result
      add_rounded();
    }
    empty_ = false;
  }

  // += the sum over the rows of a
  void add_rows(const Tensor& a) {
    Tensor& sum = wide_.defined() ? wide_ : result;
    if (empty_) sum.zero_();
    sum.add_(at::sum(a, 0, /*keepdim=*/false, sum.scalar_type()));
    empty_ = false;
  }

  void finish() {
    if (wide_.defined())
      result.copy_(wide_);
    else if (empty_)
      result.zero_();
  }

  Tensor result;

 private:
  // wide_ += result, or = result at first, in slices that stay in cache: adding mixed dtypes at once takes
  // six times as long.
  void add_rounded() {
    constexpr int64_t ROWS = 1024;
    Tensor slice = at::empty({std::min(ROWS, wide_.size(0)), wide_.size(1)}, wide_.options());
    for (int64_t first = 0; first < wide_.size(0); first += ROWS) {
      const int64_t rows = std::min(ROWS, wide_.size(0) - first);
      Tensor sum = wide_.narrow(0, first, rows), part = slice.narrow(0, 0, rows);
      (empty_ ? sum : part).copy_(result.narrow(0, first, rows));
      if (!empty_) sum.add_(part);
    }
  }

  Tensor wide_;
  bool needed_, empty_ = true;
};

// Tokens that go through the products together: those of `index`, or all where it is undefined.
struct TokenList {
  Tensor index;
  int64_t count;
};

struct Head {
  const Tensor& hidden;
  const Tensor& weight;
  const std::optional<Tensor>& bias;
};

// Runs chunks of tokens through the head and back. Owns the chunk buffers.
class ChunkedHead {
 public:
  ChunkedHead(const Head& head, const GrpoRun& run, int64_t chunk_tokens, const TokenList& read,
              const TokenList& learn, std::array<bool, 3> needs)
      : head_(head),
        run_(run),
        chunk_(std::max<int64_t>(1, std::min(chunk_tokens, std::max(read.count, learn.count)))),
        d_hidden(at::empty(needs[0] ? head.hidden.sizes() : at::IntArrayRef({0}), head.hidden.options())),
        d_weight(head.weight.sizes(), head.weight.options(), needs[1], learn.count > chunk_),
        d_bias({head.weight.size(0)}, head.weight.options(), needs[2], learn.count > chunk_),
        logits_(at::empty({chunk_, head.weight.size(0)}, head.hidden.options())),
        needs_hidden_(needs[0]) {
    if (!runs_on_cuda(logits_)) cpu::prefer_huge_pages(logits_.mutable_data_ptr(), logits_.nbytes());
    const bool gathers = read.index.defined() || learn.index.defined();
    if (learn.count < head.hidden.size(0)) d_hidden.zero_();
    gathered_ = at::empty({gathers ? chunk_ : 0, head.hidden.size(1)}, head.hidden.options());
  }

  void read(const TokenList& tokens) {
    for (int64_t first = 0; first < tokens.count; first += chunk_) {
      select(tokens, first);
      forward();
      run_.chunk(rows_, {}, first_, index_);
    }
  }

  void learn(const TokenList& tokens) {
    for (int64_t first = 0; first < tokens.count; first += chunk_) {
      select(tokens, first);
      forward();
      run_.chunk(rows_, rows_, first_, index_);
      backward();
    }
  }

  // The gradients of tokens that read() has seen; the logits of its last chunk are still there.
  void learn_again(const TokenList& tokens) {
    const int64_t last = tokens.count > 0 ? (tokens.count - 1) / chunk_ * chunk_ : -1;
    for (int64_t first = last; first >= 0; first -= chunk_) {
      if (first != last) {
        select(tokens, first);
        forward();
      }
      run_.chunk_gradient(rows_, rows_, first_, index_);
      backward();
    }
  }

 private:
  void select(const TokenList& tokens, int64_t first) {
    const int64_t n = std::min(chunk_, tokens.count - first);
    first_ = first;
    rows_ = logits_.narrow(0, 0, n);
    if (tokens.index.defined()) {
      index_ = tokens.index.narrow(0, first, n);
      hidden_ = gathered_.narrow(0, 0, n);
      at::index_select_out(hidden_, head_.hidden, 0, index_);
    } else {
      index_ = Tensor();
      hidden_ = head_.hidden.narrow(0, first, n);
    }
  }

  void forward() {
    if (head_.bias.has_value())
      at::addmm_out(rows_, *head_.bias, hidden_, head_.weight.t());
    else
      at::mm_out(rows_, hidden_, head_.weight.t());
  }

  // rows_ holds the logits' gradient.
  void backward() {
    if (d_weight.needed()) d_weight.add_product(rows_.t(), hidden_);
    if (d_bias.needed()) d_bias.add_rows(rows_);
    if (!needs_hidden_) return;
    if (!index_.defined()) {
      Tensor out = d_hidden.narrow(0, first_, rows_.size(0));
      at::mm_out(out, rows_, head_.weight);
    } else {
      at::mm_out(hidden_, rows_, head_.weight);  // over the gathered states, which are done with
      d_hidden.index_copy_(0, index_, hidden_);
    }
  }

  const Head& head_;
  const GrpoRun& run_;
  const int64_t chunk_;

 public:
  Tensor d_hidden;
  Sum d_weight, d_bias;

 private:
  Tensor logits_, gathered_;      // buffers
  Tensor rows_, hidden_, index_;  // the chunk at hand
  int64_t first_ = 0;
  const bool needs_hidden_;
};

void check_head(const char* op, const Head& head, int64_t chunk_tokens) {
  const Tensor &hidden = head.hidden, &weight = head.weight;
  check_float(op, "hidden", hidden);
  TORCH_CHECK_VALUE(hidden.dim() == 2, op, ": hidden: expected [N, H], got ", describe(hidden));
  TORCH_CHECK_TYPE(weight.scalar_type() == hidden.scalar_type(), op,
                   ": weight: expected the dtype of hidden, ", describe(hidden), ", got ", describe(weight));
  TORCH_CHECK_VALUE(
      weight.dim() == 2 && weight.size(1) == hidden.size(1) && weight.device() == hidden.device(), op,
      ": weight: expected [V, ", hidden.size(1), "] on ", hidden.device(), ", got ", describe(weight));
  TORCH_CHECK_VALUE(weight.size(0) > 0 || hidden.size(0) == 0, op,
                    ": weight: expected a vocabulary of at least one id, got ", describe(weight));
  TORCH_CHECK_VALUE(hidden.size(0) <= MOST_ROWS && weight.size(0) <= MOST_ROWS, op,
                    ": hidden: expected at most ", MOST_ROWS, " tokens and ids, got ", describe(hidden),
                    " and ", describe(weight));
  if (head.bias.has_value()) expect(op, "bias", *head.bias, {weight.size(0)}, hidden.scalar_type(), hidden);
  TORCH_CHECK_VALUE(chunk_tokens >= 1, op, ": chunk_tokens: expected at least 1, got ", chunk_tokens);
}

// The tokens of one kind of work; the host waits for their number.
TokenList tokens_with(const Tensor& work, Work kind) {
  const Tensor index = at::nonzero(work.eq(static_cast<int64_t>(kind))).squeeze(1);
  if (index.size(0) == work.size(0)) return {{}, work.size(0)};
  return {index, index.size(0)};
}

using Result = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Result linear_grpo_loss(const Tensor& hidden, const Tensor& weight, const std::optional<Tensor>& bias,
                        GRPO_PARAMETERS, int64_t chunk_tokens, bool gather,
                        std::array<bool, 3> needs_gradient) {
  const char* op = "linear_grpo_loss";
  const GrpoArguments arguments{GRPO_ARGUMENTS};
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
  ChunkedHead chunks(head, run, chunk_tokens, read, learn, needs_gradient);
  chunks.read(read);
  if (!run.is_row_level()) {
    chunks.learn(learn);
  } else {
    chunks.read(learn);
    run.rows();
    chunks.learn_again(learn);
  }
  run.end();
  chunks.d_weight.finish();
  chunks.d_bias.finish();
  return {run.loss,        run.logprobs,           run.entropy,
          run.advantages,  run.clip_fraction,      run.kl,
          chunks.d_hidden, chunks.d_weight.result, chunks.d_bias.result};
}

void register_ops(torch::Library& m) { m.impl("linear_grpo_loss", linear_grpo_loss); }

ELASTIC_REGISTER(register_ops)

}  // namespace
}  // namespace elastic
