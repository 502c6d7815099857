// Picks the instruction set of the CPU kernels at run time.
//
// A file csrc/cpu/NAME_kernel.cpp is compiled once per instruction set with
// CPU_CAPABILITY=DEFAULT|AVX2|AVX512. It defines one table of function pointers, `const NameKernels
// ELASTIC_ISA_SYMBOL(name_kernels)`, and callers reach the right one through ELASTIC_SELECT(name_kernels).
#pragma once

namespace elastic::cpu {

enum class Isa { DEFAULT = 0, AVX2 = 1, AVX512 = 2 };

// The best set this processor has, or what ELASTIC_CPU_ISA (default|avx2|avx512) asks for; throws
// std::invalid_argument for an unknown name or one the processor lacks. Decided once.
Isa active_isa();
const char* isa_name(Isa isa);

}  // namespace elastic::cpu

#define ELASTIC_CONCAT_(a, b) a##_##b
#define ELASTIC_CONCAT(a, b) ELASTIC_CONCAT_(a, b)
#define ELASTIC_ISA_SYMBOL(name) ELASTIC_CONCAT(name, CPU_CAPABILITY)

#ifdef ELASTIC_X86
#define ELASTIC_DECLARE(Type, name) \
  extern const Type name##_DEFAULT; \
  extern const Type name##_AVX2;    \
  extern const Type name##_AVX512;
#define ELASTIC_SELECT(name)                                                   \
  (::elastic::cpu::active_isa() == ::elastic::cpu::Isa::AVX512 ? name##_AVX512 \
   : ::elastic::cpu::active_isa() == ::elastic::cpu::Isa::AVX2 ? name##_AVX2   \
                                                               : name##_DEFAULT)
#else
#define ELASTIC_DECLARE(Type, name) extern const Type name##_DEFAULT;
#define ELASTIC_SELECT(name) (name##_DEFAULT)
#endif
