// The language-model head in chunks of tokens: logits = hidden weight^T + bias, and the products that turn
// the logits' gradient into those of hidden states, weight and bias. Operands keep their dtype.
//
// Memory besides the gradients: one chunk of logits, another for their gradient where it cannot overwrite
// them, and the weight's gradient in float32 where it is summed over 16-bit chunks.
//
// This layer computes with whole tensors, on either device: it knows ATen, but no op, schema or check.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/FunctionRef.h>

#include <array>
#include <optional>

#include "head/chunk_size.h"

namespace elastic {

struct Head {
  const at::Tensor& hidden;               // [N, H]
  const at::Tensor& weight;               // [V, H]
  const std::optional<at::Tensor>& bias;  // [V]
};

// Tokens that go through the products together: those of `index`, or all where it is undefined.
struct TokenList {
  at::Tensor index;  // [count] int64
  int64_t count;
};

// The tokens for which `chosen` [N] bool holds; the host waits for their number.
TokenList tokens_where(const at::Tensor& chosen);

// One chunk: the tokens first, first + 1, ..., or those of index [n].
struct HeadChunk {
  at::Tensor logits;    // [n, V]
  at::Tensor gradient;  // [n, V], for the user to write; may be the logits
  int64_t first;
  at::Tensor index;  // or undefined
};
using UseChunk = c10::function_ref<void(const HeadChunk&)>;

// A gradient summed over chunks: in the dtype of the weight if there is one chunk, else in float32.
class GradientSum {
 public:
  GradientSum(at::IntArrayRef shape, const at::TensorOptions& options, bool needed, bool several);

  bool needed() const { return needed_; }
  void add_product(const at::Tensor& a, const at::Tensor& b);  // += a b
  void add_rows(const at::Tensor& a);                          // += the sum over the rows of a
  at::Tensor finish();                                         // [0] where not needed

 private:
  void add_rounded();

  at::Tensor result_, wide_;
  bool needed_, empty_ = true;
};

// Runs chunks of tokens through the head and back. Owns the chunk buffers.
class ChunkedHead {
 public:
  // `read`, `learn`: all tokens that calls of these will pass; `needs`: gradients of hidden, weight, bias.
  ChunkedHead(const Head& head, const ChunkSize& size, const TokenList& read, const TokenList& learn,
              std::array<bool, 3> needs, bool gradient_in_place);

  void read(const TokenList& tokens, UseChunk use);
  // `use` writes a chunk's gradient, which is multiplied with hidden states and weight at once.
  void learn(const TokenList& tokens, UseChunk use);
  // The same for tokens that read() has just seen; the logits of its last chunk are still there.
  void learn_again(const TokenList& tokens, UseChunk use);

  // d_hidden, d_weight, d_bias, [0] where not needed.
  std::array<at::Tensor, 3> gradients();

 private:
  void select(const TokenList& tokens, int64_t first);
  void forward();
  void backward();

  const Head& head_;
  const int64_t chunk_tokens_;
  const bool needs_hidden_;
  at::Tensor d_hidden_;
  GradientSum d_weight_, d_bias_;
  at::Tensor logits_, gradient_, gathered_;  // buffers
  HeadChunk chunk_;                          // the chunk at hand, and its hidden states
  at::Tensor hidden_;
};

}  // namespace elastic
