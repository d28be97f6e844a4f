// What every body and strategy stands on: types, packs of elements, warp sums, and the context.
//
// A body never looks at blockIdx, threadIdx or __syncthreads. It sees a context, so that the same body runs as a kernel
// of its own, as some warps of a block, as some blocks of a grid, or between the instructions of another body, and always
// with the same operations in the same order. Kernels are compiled with --fmad=false and write their fused multiply-adds
// out: otherwise the compiler could contract differently in two kernels, and equal bits would be luck.
//
// CUDA C++14 without any header, so that NVRTC 10.2 to 13 take it without an include path.
#ifndef NITRO_BASE_CUH
#define NITRO_BASE_CUH

#ifdef NITRO_EMULATION
#include "emulation.h"
#else
#define NITRO_DEVICE static __device__ __forceinline__
#define NITRO_METHOD __device__ __forceinline__
#endif

#if defined(__CUDA_ARCH__)
#define NITRO_ARCH __CUDA_ARCH__
#elif defined(NITRO_EMULATION)
#define NITRO_ARCH NITRO_EMULATION
#else
#define NITRO_ARCH 0  // nvcc's pass for the host: bodies are parsed there and never run
#endif

namespace nitro {

typedef unsigned int uint32;
typedef unsigned long long uint64;

struct half_t {
  unsigned short bits;
};

// A run of elements that one load or store moves. The alignment makes it one instruction up to 16 bytes.
template <typename Element, int kCount>
struct alignas(sizeof(Element) * kCount) Pack {
  Element at[kCount];
};

}  // namespace nitro

#ifndef NITRO_EMULATION
#include "ptx.cuh"
#endif

namespace nitro {

NITRO_DEVICE float to_float(float value) { return value; }
NITRO_DEVICE float to_float(half_t value) { return half_to_float(value); }
NITRO_DEVICE void from_float(float value, float& out) { out = value; }
NITRO_DEVICE void from_float(float value, half_t& out) { out = float_to_half(value); }

template <typename Element, int kCount>
NITRO_DEVICE Pack<Element, kCount> zero_pack() {
  Pack<Element, kCount> pack;
#pragma unroll
  for (int i = 0; i < kCount; i++) from_float(0.f, pack.at[i]);
  return pack;
}

// The sum and the maximum of a value over the lanes of a warp; every lane gets them.
NITRO_DEVICE float warp_sum(float value) {
#pragma unroll
  for (int mask = 16; mask; mask >>= 1) value = value + shuffle_xor(value, mask);
  return value;
}
NITRO_DEVICE float warp_max(float value) {
#pragma unroll
  for (int mask = 16; mask; mask >>= 1) value = fmaxf(value, shuffle_xor(value, mask));
  return value;
}

struct Sum {
  NITRO_DEVICE float of(float left, float right) { return left + right; }
};
struct Maximum {
  NITRO_DEVICE float of(float left, float right) { return fmaxf(left, right); }
};

// The same of several values at once, in fewer instructions: lanes give away the values that others go on with, until
// lane l has the result of value l / (32 / kCount). Its bits are those of the value reduced alone.
template <class Operation, int kCount>
NITRO_DEVICE float reduce_apart(float (&values)[kCount], int lane) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4 || kCount == 8, "halves are exchanged");
#pragma unroll
  for (int half = kCount / 2, mask = 16; half; half /= 2, mask /= 2) {
    const bool upper = (lane & mask) != 0;
#pragma unroll
    for (int i = 0; i < half; i++) {
      const float kept = upper ? values[i + half] : values[i];
      const float given = upper ? values[i] : values[i + half];
      values[i] = Operation::of(kept, shuffle_xor(given, mask));
    }
  }
#pragma unroll
  for (int mask = 16 / kCount; mask; mask /= 2) values[0] = Operation::of(values[0], shuffle_xor(values[0], mask));
  return values[0];
}
// What the lanes that went on with value i hold, for all of them.
template <int kCount>
NITRO_DEVICE float everywhere(float apart, int i) {
  return kCount == 1 ? apart : shuffle_from(apart, i * (32 / kCount));
}

// The sum of a few values in registers, as a tree: fewer of them wait for each other than in a row.
template <int kCount>
NITRO_DEVICE float tree_sum(float (&values)[kCount]) {
#pragma unroll
  for (int step = kCount / 2; step; step /= 2) {
#pragma unroll
    for (int i = 0; i < step; i++) values[i] = values[i] + values[i + step];
  }
  return values[0];
}

NITRO_DEVICE int minimum(int left, int right) { return left < right ? left : right; }
NITRO_DEVICE int ceil_div(int value, int by) { return value / by + (value % by ? 1 : 0); }

// Where a body is: which of how many virtual blocks and threads, its barrier, and its part of shared memory.
// The barrier id is a template argument: with an id known only at run time ptxas reserves all 16 barriers.
template <int kBarrierId, int kThreadCount>
struct Context {
  static constexpr int kThreads = kThreadCount;
  static constexpr int kWarps = kThreadCount / 32;
  int block;
  int blocks;
  int thread;
  char* shared;

  NITRO_METHOD void barrier() const { named_barrier<kBarrierId, kThreadCount>(); }
  NITRO_METHOD int lane() const { return thread & 31; }
  NITRO_METHOD int warp() const { return thread >> 5; }
};

// The work of a launch: units [first, first + count) of a body. Fusing only a slice of a body is a smaller range.
struct Range {
  int first;
  int count;
};

// The hook of a compute body that runs alone: nothing happens between its slabs.
struct NoHook {
  NITRO_METHOD void step() {}
};

}  // namespace nitro
#endif
