// Group advantages: K groups of a handful of rewards, serial.
#include "core/group_advantage.h"
#include "cpu/loss.h"

namespace elastic::cpu {

template <class A>
void group_advantage(Advantage kind, const A* rewards, const int64_t* group_offsets, int64_t groups,
                     double eps, int64_t pass_k, A* advantages) {
  BatchSpread batch{1, 0};
  if (kind == Advantage::BATCH) batch = batch_spread(rewards, group_offsets[groups]);
  for (int64_t k = 0; k < groups; k++) {
    const int64_t begin = group_offsets[k], n = group_offsets[k + 1] - begin;
    group_advantages(kind, rewards + begin, n, eps, pass_k, batch, advantages + begin);
  }
}

template void group_advantage(Advantage, const float*, const int64_t*, int64_t, double, int64_t, float*);
template void group_advantage(Advantage, const double*, const int64_t*, int64_t, double, int64_t, double*);

}  // namespace elastic::cpu
