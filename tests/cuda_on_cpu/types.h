// The types of the CUDA runtime that csrc/ names.
#pragma once

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

using cudaStream_t = void*;  // launches run at once

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719,
};

// For cudaErrorLaunchFailure: what the last kernel that failed did.
const char* cudaGetErrorString(cudaError_t error);

// ---- the one device ----

namespace cuda_on_cpu {

// Limits of sm_90, unless a test pretends another device.
struct Device {
  int capability = 9;  // major: 8 knows no clusters
  int block_bytes = 227 * 1024;
  int sm_bytes = 228 * 1024;
};
inline Device device;

}  // namespace cuda_on_cpu

enum cudaDeviceAttr {
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor,
  cudaDevAttrSingleToDoublePrecisionPerfRatio,
};

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr name, int) {
  switch (name) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = cuda_on_cpu::device.capability;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = cuda_on_cpu::device.block_bytes;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = cuda_on_cpu::device.sm_bytes;
      return cudaSuccess;
    case cudaDevAttrSingleToDoublePrecisionPerfRatio:
      *value = cuda_on_cpu::device.capability <= 10 ? 2 : 64;
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}
