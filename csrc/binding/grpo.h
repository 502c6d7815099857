// What grpo_loss and linear_grpo_loss share: their arguments, the checks, and the stages of one run on either
// device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/string_view.h>

#include <optional>
#include <variant>

#include "core/loss_params.h"

namespace elastic {

// The arguments behind the logits, in the order of the schemas (library.cpp).
struct GrpoArguments {
  const at::Tensor& targets;
  const at::Tensor& old_logprobs;
  const at::Tensor& row_offsets;
  const std::optional<at::Tensor>& advantages;
  const std::optional<at::Tensor>& rewards;
  const std::optional<at::Tensor>& group_offsets;
  const std::optional<at::Tensor>& mask;
  const std::optional<at::Tensor>& ref_logprobs;
  const std::optional<at::Tensor>& engine_logprobs;
  const std::optional<at::Tensor>& temperatures;
  double temperature;
  std::optional<double> softcap;
  c10::string_view advantage;
  double advantage_eps;
  int64_t pass_k;
  c10::string_view loss;
  double clip_low;
  double clip_high;
  std::optional<double> delta;
  std::optional<double> dual_clip;
  double kl_coef;
  c10::string_view kl;
  bool kl_weighted;
  double entropy_coef;
  double tau_positive;
  double tau_negative;
  std::optional<int64_t> num_tokens;
  std::optional<int64_t> num_rows;
  std::optional<int64_t> max_length;
  c10::string_view engine_mode;
  bool engine_rows;
  double engine_low;
  double engine_high;
  bool skip_zero_advantage;
};

// The same as parameters of an op, and as the braces of a GrpoArguments.
#define GRPO_PARAMETERS                                                                                     \
  const at::Tensor &targets, const at::Tensor &old_logprobs, const at::Tensor &row_offsets,                 \
      const std::optional<at::Tensor>&advantages, const std::optional<at::Tensor>&rewards,                  \
      const std::optional<at::Tensor>&group_offsets, const std::optional<at::Tensor>&mask,                  \
      const std::optional<at::Tensor>&ref_logprobs, const std::optional<at::Tensor>&engine_logprobs,        \
      const std::optional<at::Tensor>&temperatures, double temperature, std::optional<double> softcap,      \
      c10::string_view advantage, double advantage_eps, int64_t pass_k, c10::string_view loss,              \
      double clip_low, double clip_high, std::optional<double> delta, std::optional<double> dual_clip,      \
      double kl_coef, c10::string_view kl, bool kl_weighted, double entropy_coef, double tau_positive,      \
      double tau_negative, std::optional<int64_t> num_tokens, std::optional<int64_t> num_rows,              \
      std::optional<int64_t> max_length, c10::string_view engine_mode, bool engine_rows, double engine_low, \
      double engine_high, bool skip_zero_advantage
#define GRPO_ARGUMENTS                                                                                       \
  targets, old_logprobs, row_offsets, advantages, rewards, group_offsets, mask, ref_logprobs,                \
      engine_logprobs, temperatures, temperature, softcap, advantage, advantage_eps, pass_k, loss, clip_low, \
      clip_high, delta, dual_clip, kl_coef, kl, kl_weighted, entropy_coef, tau_positive, tau_negative,       \
      num_tokens, num_rows, max_length, engine_mode, engine_rows, engine_low, engine_high,                   \
      skip_zero_advantage

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
  at::Tensor advantages;  // [R], or [0] where they were given

 private:
  at::Tensor scratch_;
  const char* op_;
  std::variant<GrpoParams<float>, GrpoParams<double>> params_;
};

}  // namespace elastic
