// Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3. A random
// number is a pure function of (key, counter), so a row's draws depend on no other row and on no order.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace elastic {

struct Philox4 {
  uint32_t word[4];
};

ELASTIC_HD Philox4 philox4x32_10(Philox4 counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = uint64_t(counter.word[0]) * 0xD2511F53u, p1 = uint64_t(counter.word[2]) * 0xCD9E8D57u;
    counter = {{uint32_t(p1 >> 32) ^ counter.word[1] ^ key0, uint32_t(p1),
                uint32_t(p0 >> 32) ^ counter.word[3] ^ key1, uint32_t(p0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// The random number of token `position` of the row with this seed: 53 bits, over 2^53 uniform in [0, 1).
ELASTIC_HD uint64_t row_random(int64_t seed, int64_t position) {
  const uint64_t key = uint64_t(seed), counter = uint64_t(position);
  const Philox4 x =
      philox4x32_10({{uint32_t(counter), uint32_t(counter >> 32), 0, 0}}, uint32_t(key), uint32_t(key >> 32));
  return uint64_t(x.word[0] >> 5) << 26 | x.word[1] >> 6;
}

}  // namespace elastic
