#include "head/chunked_head.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/nonzero.h>

#include <algorithm>

#include "cpu/huge_pages.h"

namespace elastic {

using at::Tensor;

namespace {

int64_t chunk_tokens(const Head& head, const ChunkSize& size, const TokenList& read, const TokenList& learn,
                     bool sums_weight, int64_t buffers) {
  const int64_t most = std::max<int64_t>({1, read.count, learn.count});
  if (size.tokens.has_value()) return std::min(*size.tokens, most);
  if (learn.count == 0) return std::min(USUAL_CHUNK_TOKENS, most);
  const int64_t item = head.weight.element_size();
  const int64_t sum = sums_weight && item == 2 ? head.weight.numel() * int64_t{sizeof(float)} : 0;
  const int64_t of_a_token = head.weight.size(0) * item * buffers;
  return std::min(default_chunk_tokens(learn.count, of_a_token, sum, size.free_bytes), most);
}

}  // namespace

TokenList tokens_where(const Tensor& chosen) {
  const Tensor index = at::nonzero(chosen).squeeze(1);
  if (index.size(0) == chosen.size(0)) return {{}, chosen.size(0)};
  return {index, index.size(0)};
}

ChunkedHead::ChunkedHead(const Head& head, const ChunkSize& size, const TokenList& read,
                         const TokenList& learn, std::array<bool, 3> needs, bool gradient_in_place)
    : head_(head),
      chunk_tokens_(chunk_tokens(head, size, read, learn, needs[1], gradient_in_place ? 1 : 2)),
      needs_hidden_(needs[0]),
      d_hidden_(at::empty(needs[0] ? head.hidden.sizes() : at::IntArrayRef({0}), head.hidden.options())),
      d_weight_(head.weight.sizes(), head.weight.options(), needs[1], learn.count > chunk_tokens_),
      d_bias_({head.weight.size(0)}, head.weight.options(), needs[2], learn.count > chunk_tokens_),
      logits_(at::empty({chunk_tokens_, head.weight.size(0)}, head.hidden.options())),
      gradient_(gradient_in_place ? logits_ : at::empty(logits_.sizes(), logits_.options())) {
  for (const Tensor& buffer : {logits_, gradient_})
    if (!buffer.is_cuda()) cpu::prefer_huge_pages(buffer.mutable_data_ptr(), buffer.nbytes());
  const bool gathers = read.index.defined() || learn.index.defined();
  if (learn.count < head.hidden.size(0)) d_hidden_.zero_();
  gathered_ = at::empty({gathers ? chunk_tokens_ : 0, head.hidden.size(1)}, head.hidden.options());
}

void ChunkedHead::read(const TokenList& tokens, UseChunk use) {
  for (int64_t first = 0; first < tokens.count; first += chunk_tokens_) {
    select(tokens, first);
    forward();
    use(chunk_);
  }
}

void ChunkedHead::learn(const TokenList& tokens, UseChunk use) {
  for (int64_t first = 0; first < tokens.count; first += chunk_tokens_) {
    select(tokens, first);
    forward();
    use(chunk_);
    backward();
  }
}

void ChunkedHead::learn_again(const TokenList& tokens, UseChunk use) {
  const int64_t last = tokens.count > 0 ? (tokens.count - 1) / chunk_tokens_ * chunk_tokens_ : -1;
  for (int64_t first = last; first >= 0; first -= chunk_tokens_) {
    if (first != last) {
      select(tokens, first);
      forward();
    }
    use(chunk_);
    backward();
  }
}

std::array<Tensor, 3> ChunkedHead::gradients() { return {d_hidden_, d_weight_.finish(), d_bias_.finish()}; }

void ChunkedHead::select(const TokenList& tokens, int64_t first) {
  const int64_t n = std::min(chunk_tokens_, tokens.count - first);
  chunk_ = {logits_.narrow(0, 0, n), gradient_.narrow(0, 0, n), first, {}};
  if (tokens.index.defined()) {
    chunk_.index = tokens.index.narrow(0, first, n);
    hidden_ = gathered_.narrow(0, 0, n);
    at::index_select_out(hidden_, head_.hidden, 0, chunk_.index);
  } else {
    hidden_ = head_.hidden.narrow(0, first, n);
  }
}

void ChunkedHead::forward() {
  if (head_.bias.has_value())
    at::addmm_out(chunk_.logits, *head_.bias, hidden_, head_.weight.t());
  else
    at::mm_out(chunk_.logits, hidden_, head_.weight.t());
}

void ChunkedHead::backward() {
  const Tensor& gradient = chunk_.gradient;
  if (d_weight_.needed()) d_weight_.add_product(gradient.t(), hidden_);
  if (d_bias_.needed()) d_bias_.add_rows(gradient);
  if (!needs_hidden_) return;
  if (!chunk_.index.defined()) {
    Tensor out = d_hidden_.narrow(0, chunk_.first, gradient.size(0));
    at::mm_out(out, gradient, head_.weight);
  } else {
    at::mm_out(hidden_, gradient, head_.weight);  // over the gathered states, which are done with
    d_hidden_.index_copy_(0, chunk_.index, hidden_);
  }
}

}  // namespace elastic
