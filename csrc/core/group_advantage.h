// Advantages of one group of rewards. Everything is computed in double: a group has a handful of members, and
// a mean rounded to float would give equal rewards a tiny advantage.
#pragma once

#include <cmath>

#include "core/host_device.h"
#include "core/loss_params.h"

namespace elastic {

// C(n - good, k) / C(n, k): the share of the k-subsets of n members that avoid `good` of them.
ELASTIC_HD double subsets_without(int64_t n, int64_t good, int64_t k) {
  double share = 1;
  for (int64_t i = 0; i < k; i++) {
    if (n - good - i <= 0) return 0;
    share *= static_cast<double>(n - good - i) / static_cast<double>(n - i);
  }
  return share;
}

// Pass@k training, arXiv 2508.10751: the group's reward is the chance that one of k members is right.
template <class A>
ELASTIC_HD void passk_advantages(const A* rewards, int64_t n, int64_t pass_k, A* out) {
  int64_t good = 0;
  for (int64_t i = 0; i < n; i++) good += rewards[i] > A(0.5);
  const int64_t k = pass_k < n ? pass_k : n;
  const double fail = subsets_without(n, good, k);  // 1 - mean
  const double spread = std::sqrt(fail * (1 - fail));
  for (int64_t i = 0; i < n; i++) {
    double a = 0;
    if (spread > 0) {
      // A k-set with a right member scores 1; one with this wrong member fails if all its others are wrong.
      const bool right = rewards[i] > A(0.5);
      a = (fail - (right ? 0 : subsets_without(n - 1, good, k - 1))) / spread;
    }
    out[i] = A(a);
  }
}

// The power of two that brings the largest of n rewards near 1, so that no sum or square leaves a double's
// range. Scaling by it is exact, so results keep their bits. Float32 rewards do not need it.
template <class A>
ELASTIC_HD double reward_unit(const A* rewards, int64_t n) {
  if constexpr (sizeof(A) < sizeof(double)) return 1;
  double largest = 0;
  for (int64_t i = 0; i < n; i++) largest = std::fmax(largest, std::fabs(static_cast<double>(rewards[i])));
  if (largest == 0) return 1;
  const int exponent = std::ilogb(largest), most = 1000;  // 2^-1000 and 2^1000 are both normal
  return std::ldexp(1., exponent > most ? -most : exponent < -most ? most : -exponent);
}

// Standard deviation (Bessel) of all rewards of the batch, times `unit`; 0 below two of them.
struct BatchSpread {
  double unit;
  double deviation;
};

template <class A>
ELASTIC_HD BatchSpread batch_spread(const A* rewards, int64_t n) {
  const double unit = reward_unit(rewards, n);
  if (n < 2) return {unit, 0};
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < n; i++) sum += static_cast<double>(rewards[i]) * unit;
  for (int64_t i = 0; i < n; i++) {
    const double d = static_cast<double>(rewards[i]) * unit - sum / static_cast<double>(n);
    squares += d * d;
  }
  return {unit, std::sqrt(squares / static_cast<double>(n - 1))};
}

// Only Advantage::BATCH reads `batch`. rewards and out [n] are one group's.
template <class A>
ELASTIC_HD void group_advantages(Advantage kind, const A* rewards, int64_t n, double eps, int64_t pass_k,
                                 const BatchSpread& batch, A* out) {
  const double unit = kind == Advantage::BATCH ? batch.unit : reward_unit(rewards, n);
  double sum = 0, squares = 0;
  bool equal = true;
  for (int64_t i = 0; i < n; i++) {
    sum += static_cast<double>(rewards[i]) * unit;
    equal = equal && rewards[i] == rewards[0];
  }
  if (!(sum - sum ==
        0)) {  // NaN or inf among the rewards: the CPU op refuses them, a kernel can only pass it on
    for (int64_t i = 0; i < n; i++) out[i] = A(sum - sum);
    return;
  }
  if (kind == Advantage::PASSK) return passk_advantages(rewards, n, pass_k, out);
  const double mean = n > 0 ? sum / static_cast<double>(n) : 0;
  for (int64_t i = 0; i < n; i++) {
    const double d = static_cast<double>(rewards[i]) * unit - mean;
    squares += d * d;
  }
  double scale = 0;
  if (!equal) {  // hence n >= 2
    const double others = static_cast<double>(n - 1);
    switch (kind) {
      case Advantage::GROUP:
        scale = 1 / (std::sqrt(squares / others) + eps * unit);
        break;
      case Advantage::BATCH:
        scale = 1 / (batch.deviation + eps * unit);
        break;
      case Advantage::RLOO:
        scale = static_cast<double>(n) / others / unit;
        break;
      case Advantage::MAXRL:
        scale = mean > 0 ? 1 / mean : 0;
        break;
      default:
        scale = 1 / unit;
    }
  }
  for (int64_t i = 0; i < n; i++)
    out[i] = equal ? A(0) : A((static_cast<double>(rewards[i]) * unit - mean) * scale);
}

}  // namespace elastic
