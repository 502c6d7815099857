// Marks functions of csrc/core that both compilers build: nvcc for the device, the C++ compiler for the CPU.
#pragma once

#ifdef __CUDACC__
#define ELASTIC_HD __host__ __device__ __forceinline__
#else
#define ELASTIC_HD static inline  // one copy per file: one compiled for AVX-512 must serve no other file
#endif
