#include "cpu/dispatch.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace elastic::cpu {
namespace {

Isa best_isa() {
#ifdef ELASTIC_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return Isa::AVX512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
    return Isa::AVX2;
#endif
  return Isa::DEFAULT;
}

Isa choose_isa() {
  const Isa best = best_isa();
  const char* asked = std::getenv("ELASTIC_CPU_ISA");
  if (asked == nullptr || *asked == '\0') return best;
  const std::string name(asked);
  Isa isa;
  if (name == "default")
    isa = Isa::DEFAULT;
  else if (name == "avx2")
    isa = Isa::AVX2;
  else if (name == "avx512")
    isa = Isa::AVX512;
  else
    throw std::invalid_argument("ELASTIC_CPU_ISA: expected default, avx2 or avx512, got '" + name + "'");
  if (isa > best)
    throw std::invalid_argument("ELASTIC_CPU_ISA=" + name + ": this processor's best is " + isa_name(best));
  return isa;
}

}  // namespace

Isa active_isa() {
  static const Isa isa = choose_isa();
  return isa;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::AVX512:
      return "AVX512";
    case Isa::AVX2:
      return "AVX2";
    default:
      return "DEFAULT";
  }
}

}  // namespace elastic::cpu
