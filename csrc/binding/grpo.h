// Shared by grpo_loss and linear_grpo_loss: arguments, checks, and the stages of a run on either device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/string_view.h>

#include <optional>
#include <variant>

#include "binding/grpo_list.h"
#include "core/loss_params.h"

namespace elastic {

struct GrpoArguments {
#define GRPO_MEMBER(schema, type, name, ...) type name;
  GRPO_ARGUMENTS(GRPO_MEMBER)
#undef GRPO_MEMBER
};

// The same list as an op's parameters behind the first one, and as the initialisers of a GrpoArguments.
#define GRPO_PARAMETER(schema, type, name, ...) , type name
#define GRPO_PARAMETERS GRPO_ARGUMENTS(GRPO_PARAMETER)
#define GRPO_VALUE(schema, type, name, ...) name,
#define GRPO_VALUES GRPO_ARGUMENTS(GRPO_VALUE)

// Every check of the arguments, for logits [tokens, vocab] of the dtype and on the device of `beside`.
Objective check_grpo(const char* op, int64_t tokens, int64_t vocab, const at::Tensor& beside,
                     const GrpoArguments& arguments);

// One run: outputs and scratch are allocated at once, the stages (core/loss_params.h) are called by the
// owner. Holds raw pointers into the arguments' tensors.
class GrpoRun {
 public:
  GrpoRun(const char* op, int64_t tokens, int64_t vocab, const at::Tensor& beside,
          const GrpoArguments& arguments, const Objective& objective, bool needs_gradient);

  void begin() const;
  // logits [n, V] of the tokens first, first + 1, ... or index [n]; gradient undefined: none.
  void chunk(const at::Tensor& logits, const at::Tensor& gradient, int64_t first,
             const at::Tensor& index) const;
  void rows() const;
  void chunk_gradient(const at::Tensor& logits, const at::Tensor& gradient, int64_t first,
                      const at::Tensor& index) const;
  void end() const;
  bool is_row_level() const;
  // [N] uint8, each token's Work (core/grpo_scratch.h); known after begin().
  at::Tensor work() const;

  at::Tensor loss, logprobs, entropy, clip_fraction, kl;
  at::Tensor advantages;     // [R], or [0] where they were given
  at::Tensor kept_gradient;  // scratch

 private:
  at::Tensor scratch_;
  const char* op_;
  std::variant<GrpoParams<float>, GrpoParams<double>> params_;
};

}  // namespace elastic
