// The token stages of the GRPO loss: grpo_chunk and grpo_chunk_gradient.
//
// grpo_chunk is one logits pass (logits_pass.cuh) per token: statistics, the objective's slope, the gradient.
// Per logit: one read and one write of its type; masked tokens only write. An objective whose rows share a
// ratio (gspo) has no slope before the whole completion was seen: grpo_chunk then only reads, grpo_rows finds
// the slopes, and grpo_chunk_gradient reads and writes once more.
#include "core/grpo_objective.h"
#include "core/grpo_scratch.h"
#include "cuda/kept.cuh"
#include "cuda/logits_launch.cuh"
#include "cuda/logits_task.cuh"
#include "cuda/loss.h"

namespace elastic::cuda {
namespace {

using Params = GrpoParams<float>;

template <class T, bool SOFTCAP>
struct GrpoTask : LogitsTask<T, SOFTCAP> {
  static constexpr bool WRITES = true;
  static constexpr bool PLANS = false;
  Params p;
  LogitsChunk chunk;

  struct Inputs {
    TokenGiven<float> given;
    int64_t row;
    float logit;  // the target's
    int32_t target;
    Work work;
  };

  GrpoTask(const Params& p, const LogitsChunk& chunk) : p(p), chunk(chunk) {}

  __device__ __forceinline__ bool counted(int64_t i) const {
    return grpo_scratch(p).work[token_of(chunk, i)] != Work::SKIP;
  }
  __device__ __forceinline__ TokenLogits<T> logits(int64_t i) const {
    return this->logits_of(p.softmax, chunk, i, token_of(chunk, i), !is_row_level(p.objective), counted(i));
  }

  __device__ __forceinline__ Inputs inputs(int64_t i, const TokenLogits<T>& logits) const {
    const GrpoScratch<float> s = grpo_scratch(p);
    const int64_t token = token_of(chunk, i);
    Inputs in{};
    in.work = s.work[token];
    in.target = this->target_of(p.softmax, token);
    if (in.target >= 0) in.logit = to_float(logits.values[in.target]);
    in.row = s.row_of[token];
    if (in.row >= 0) in.given = token_given(p, token, in.row, s.rows[in.row].scale, s.rows[in.row].weight);
    return in;
  }

  __device__ __forceinline__ Plan combine(int64_t i, const Inputs& in, const TokenLogits<T>& logits,
                                          const LogitsStats& stats, const Transform<SOFTCAP>& transform,
                                          bool writes) const {
    const GrpoScratch<float> s = grpo_scratch(p);
    const int64_t token = token_of(chunk, i);
    float cap_slope;
    const float x = transform.capped(in.logit, cap_slope);
    const float logprob = in.target >= 0 ? stats.logprob(x, transform.inv_temperature) : NAN;
    TokenTerms<float> terms = unset_terms<float>(in.work);  // what grpo_begin has stored
    const bool has_terms = in.row >= 0 && !is_row_level(p.objective);
    if (has_terms) terms = token_terms(p.objective, token_input(p, in.given, logprob, stats.entropy), 0.f);
    if (writes) {
      p.logprobs[token] = logprob;
      p.entropy[token] = stats.entropy;
      s.maximum[token] = stats.max;
      s.log_sum[token] = stats.log_sum();
      s.cap_slope[token] = cap_slope;
      if (has_terms) s.terms[token] = terms;
    }
    if (logits.gradient == nullptr) return Plan{};
    if (terms.slope == 0 && terms.entropy_slope == 0) return zeros_plan();
    return slopes_plan(transform, stats.max, 1.f / stats.sum, stats.log2_sum, in.target, cap_slope, logprob,
                       stats.entropy, terms.slope, terms.entropy_slope);
  }
};

template <class T, bool SOFTCAP>
struct GrpoGradientTask : LogitsTask<T, SOFTCAP> {
  static constexpr bool WRITES = true;
  static constexpr bool PLANS = true;
  Params p;
  LogitsChunk chunk;

  GrpoGradientTask(const Params& p, const LogitsChunk& chunk) : p(p), chunk(chunk) {}

  __device__ __forceinline__ bool counted(int64_t i) const {
    const TokenTerms<float>& terms = grpo_scratch(p).terms[token_of(chunk, i)];
    return terms.slope != 0 || terms.entropy_slope != 0;
  }
  __device__ __forceinline__ TokenLogits<T> logits(int64_t i) const {
    return this->logits_of(p.softmax, chunk, i, token_of(chunk, i), true, counted(i));
  }

  __device__ __forceinline__ Plan plan(int64_t i, const Transform<SOFTCAP>& transform) const {
    const GrpoScratch<float> s = grpo_scratch(p);
    const int64_t token = token_of(chunk, i);
    return saved_plan(transform, s.maximum[token], s.log_sum[token], this->target_of(p.softmax, token),
                      s.cap_slope[token], p.logprobs[token], p.entropy[token], s.terms[token].slope,
                      s.terms[token].entropy_slope);
  }
};

}  // namespace

LaunchResult grpo_chunk(const Params& p, const LogitsChunk& chunk, cudaStream_t stream) {
  const bool rereads = chunk.gradient != nullptr && !is_row_level(p.objective);
  return with_logits_type(chunk.dtype, p.softmax.softcap, [&](auto type, auto softcap) {
    using Task = GrpoTask<decltype(type), decltype(softcap)::value>;
    const Task task(p, chunk);
    return with_kept_sets(task, chunk, rereads, stream,
                          [&] { return launch_pass<true>(task, chunk, p.softmax.vocab, rereads, stream); });
  });
}

LaunchResult grpo_chunk_gradient(const Params& p, const LogitsChunk& chunk, cudaStream_t stream) {
  return with_logits_type(chunk.dtype, p.softmax.softcap, [&](auto type, auto softcap) {
    using Task = GrpoGradientTask<decltype(type), decltype(softcap)::value>;
    const Task task(p, chunk);
    return with_kept_sets(task, chunk, true, stream,
                          [&] { return launch_gradient(task, chunk, p.softmax.vocab, stream); });
  });
}

}  // namespace elastic::cuda
