// The instructions that C++ has no word for, each guarded by the architecture that has it.
// `emulation.h` offers the same functions on a CPU; nothing else in this folder contains assembly.
#ifndef NITRO_PTX_CUH
#define NITRO_PTX_CUH

namespace nitro {

template <int kId, int kThreads>
NITRO_DEVICE void named_barrier() {
  asm volatile("bar.sync %0, %1;" ::"n"(kId), "n"(kThreads) : "memory");
}

NITRO_DEVICE int block_index() { return static_cast<int>(blockIdx.x); }
NITRO_DEVICE int grid_size() { return static_cast<int>(gridDim.x); }
NITRO_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
NITRO_DEVICE char* dynamic_shared() {
  // The bytes of a swizzled operand of wgmma are exchanged by their address, in periods of 1024 bytes.
  extern __shared__ __align__(1024) char nitro_dynamic_shared[];
  return nitro_dynamic_shared;
}

// The same value, and the compiler does not know it. What is computed from it in a loop is computed in every round, and
// holds no register from one to the next.
NITRO_DEVICE int anew(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// Moves registers between the warps of a block, four warps at a time: some first let go of theirs down to kCount a
// thread, and others wait until they have kCount. Only what is compiled for one architecture alone (sm_90a) can do it.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(__CUDA_ARCH_SPECIFIC__)
template <int kCount>
NITRO_DEVICE void shrink_registers() {
  if (kCount > 0) asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount) : "memory");
}
template <int kCount>
NITRO_DEVICE void grow_registers() {
  if (kCount > 0) asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount) : "memory");
}
#else
template <int kCount>
NITRO_DEVICE void shrink_registers() {}
template <int kCount>
NITRO_DEVICE void grow_registers() {}
#endif

NITRO_DEVICE void warp_barrier() { __syncwarp(); }

NITRO_DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
NITRO_DEVICE uint32 shuffle_xor(uint32 value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
NITRO_DEVICE uint32 shuffle_first(uint32 value) { return __shfl_sync(0xffffffffu, value, 0); }
NITRO_DEVICE int shuffle_from(int value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
NITRO_DEVICE float shuffle_from(float value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }

NITRO_DEVICE uint32 sm_id() {
  uint32 id;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(id));
  return id;
}
NITRO_DEVICE uint32 sm_id_count() {
  uint32 count;
  asm volatile("mov.u32 %0, %%nsmid;" : "=r"(count));
  return count;
}

// Without the wrap, which no counter reaches, the compiler adds up the lanes of a warp first, but here one of them draws.
NITRO_DEVICE uint32 atomic_increment(uint32* counter) { return atomicInc(counter, 0xfffffffeu); }
NITRO_DEVICE void memory_fence() { __threadfence(); }

NITRO_DEVICE float half_to_float(half_t value) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
}
NITRO_DEVICE half_t float_to_half(float value) {
  half_t result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  return result;
}

// One instruction each, exact to 22 bits; numbers below 1.2e-38 become 0.
NITRO_DEVICE float power_of_two(float value) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}
NITRO_DEVICE float reciprocal(float value) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}
NITRO_DEVICE float reciprocal_root(float value) { return rsqrtf(value); }

// The address so many rows on, in one instruction: left to itself the compiler adds what a lane adds to it every time.
template <typename Element>
NITRO_DEVICE Element* rows_on(Element* from, int rows, int row_elements) {
  uint64 address;
  asm("mad.wide.u32 %0, %1, %2, %3;"
      : "=l"(address)
      : "r"(rows), "r"(row_elements * static_cast<int>(sizeof(Element))), "l"(from));
  return reinterpret_cast<Element*>(address);
}

// Loads and stores of data that is used once: they leave the caches to those who come back.
template <int kBytes>
struct Transfer;
template <>
struct Transfer<16> {
  typedef uint4 Word;
};
template <>
struct Transfer<8> {
  typedef uint2 Word;
};
template <>
struct Transfer<4> {
  typedef unsigned int Word;
};
template <>
struct Transfer<2> {
  typedef unsigned short Word;
};

template <typename Element, int kCount>
union PackWord {
  typename Transfer<sizeof(Element) * kCount>::Word word;
  Pack<Element, kCount> pack;
};

template <typename Element, int kCount>
NITRO_DEVICE Pack<Element, kCount> load_once(const Element* from) {
  PackWord<Element, kCount> both;
  both.word = __ldcs(reinterpret_cast<const typename Transfer<sizeof(Element) * kCount>::Word*>(from));
  return both.pack;
}
template <typename Element, int kCount>
NITRO_DEVICE Pack<Element, kCount> load_shared_by_all(const Element* from) {
  PackWord<Element, kCount> both;
  both.word = __ldg(reinterpret_cast<const typename Transfer<sizeof(Element) * kCount>::Word*>(from));
  return both.pack;
}
template <typename Element, int kCount>
NITRO_DEVICE void store_once(Element* to, const Pack<Element, kCount>& pack) {
  PackWord<Element, kCount> both;
  both.pack = pack;
  __stcs(reinterpret_cast<typename Transfer<sizeof(Element) * kCount>::Word*>(to), both.word);
}

// A place in shared memory, for the instructions that take no pointer. It is half as wide as one, and a constant added to
// it becomes part of the instruction, so these are added up instead of pointers.
typedef uint32 Shared;
NITRO_DEVICE Shared shared_at(const void* pointer) {
  uint32 address;
  asm("{ .reg .u64 wide; cvta.to.shared.u64 wide, %1; cvt.u32.u64 %0, wide; }" : "=r"(address) : "l"(pointer));
  return address;
}

// Copies global memory to shared memory without waiting; where `valid` is false, zeros arrive and nothing is read.
template <int kBytes>
NITRO_DEVICE void copy_async(Shared to_shared, const void* from, bool valid) {
#if NITRO_ARCH >= 800
  const int source_bytes = valid ? kBytes : 0;
  if (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to_shared), "l"(from), "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to_shared), "l"(from), "n"(kBytes),
                 "r"(source_bytes)
                 : "memory");
  }
#else
  // Correct everywhere; older architectures use the staging through registers instead, which hides the latency.
  typedef typename Transfer<kBytes>::Word Word;
  void* to;
  asm("{ .reg .u64 wide; cvt.u64.u32 wide, %1; cvta.shared.u64 %0, wide; }" : "=l"(to) : "r"(to_shared));
  *static_cast<Word*>(to) = valid ? *static_cast<const Word*>(from) : Word();
#endif
}
NITRO_DEVICE void commit_copies() {
#if NITRO_ARCH >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int kPending>
NITRO_DEVICE void wait_for_copies() {
#if NITRO_ARCH >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// Four 8x8 matrices of halves from shared memory, the fragments of m16n8k16; lane l gives the address of row l % 8 of
// matrix l / 8.
NITRO_DEVICE void load_matrices(uint32 (&fragment)[4], Shared row) {
#if NITRO_ARCH >= 750
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(row)
               : "memory");
#endif
}
NITRO_DEVICE void multiply_m16n8k16(float (&sum)[4], const uint32 (&left)[4], uint32 right0, uint32 right1) {
#if NITRO_ARCH >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1));
#endif
}

// The same for sm_70 to sm_75: 16x16x16 through WMMA, whose fragments have a layout that only these four know.
NITRO_DEVICE void wmma_load_left(uint32 (&fragment)[8], const half_t* tile, int stride) {
#if NITRO_ARCH >= 700
  asm volatile(
      "wmma.load.a.sync.aligned.m16n16k16.shared.row.f16 {%0, %1, %2, %3, %4, %5, %6, %7}, [%8], %9;"
      : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3]), "=r"(fragment[4]),
        "=r"(fragment[5]), "=r"(fragment[6]), "=r"(fragment[7])
      : "r"(shared_at(tile)), "r"(stride)
      : "memory");
#endif
}
NITRO_DEVICE void wmma_load_right(uint32 (&fragment)[8], const half_t* tile, int stride) {
#if NITRO_ARCH >= 700
  asm volatile(
      "wmma.load.b.sync.aligned.m16n16k16.shared.col.f16 {%0, %1, %2, %3, %4, %5, %6, %7}, [%8], %9;"
      : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3]), "=r"(fragment[4]),
        "=r"(fragment[5]), "=r"(fragment[6]), "=r"(fragment[7])
      : "r"(shared_at(tile)), "r"(stride)
      : "memory");
#endif
}
NITRO_DEVICE void wmma_multiply(float (&sum)[8], const uint32 (&left)[8], const uint32 (&right)[8]) {
#if NITRO_ARCH >= 700
  asm volatile(
      "wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 {%0, %1, %2, %3, %4, %5, %6, %7}, "
      "{%8, %9, %10, %11, %12, %13, %14, %15}, {%16, %17, %18, %19, %20, %21, %22, %23}, "
      "{%0, %1, %2, %3, %4, %5, %6, %7};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3]), "+f"(sum[4]), "+f"(sum[5]), "+f"(sum[6]), "+f"(sum[7])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(left[4]), "r"(left[5]), "r"(left[6]), "r"(left[7]),
        "r"(right[0]), "r"(right[1]), "r"(right[2]), "r"(right[3]), "r"(right[4]), "r"(right[5]), "r"(right[6]),
        "r"(right[7]));
#endif
}
NITRO_DEVICE void wmma_store(float* tile, const float (&sum)[8], int stride) {
#if NITRO_ARCH >= 700
  asm volatile(
      "wmma.store.d.sync.aligned.m16n16k16.shared.row.f32 [%0], {%1, %2, %3, %4, %5, %6, %7, %8}, %9;" ::"r"(
          shared_at(tile)),
      "f"(sum[0]), "f"(sum[1]), "f"(sum[2]), "f"(sum[3]), "f"(sum[4]), "f"(sum[5]), "f"(sum[6]), "f"(sum[7]),
      "r"(stride)
      : "memory");
#endif
}

// Products of a warpgroup, four warps that issue them together (wgmma, sm_90a alone): left x right^T is added to the
// warpgroup's 64 x 8 * kEights sums. Both are of 16 channels, in shared memory, where a descriptor says they are. The
// products run on while the warps do something else, and until they are waited for nobody may look at the sums.
template <int kEights>
struct WarpgroupProduct;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// Operands 0 to 31 of an instruction and so on are the sums of 64 columns each, and the descriptors follow behind them.
#define NITRO_NAMES_0                                                                                              \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31"
#define NITRO_NAMES_32                                                                                             \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53" \
  ", %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define NITRO_NAMES_64                                                                                             \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85" \
  ", %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define NITRO_NAMES_96                                                                                               \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, " \
  "%115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define NITRO_EIGHT(j) "+f"(sum[j][0]), "+f"(sum[j][1]), "+f"(sum[j][2]), "+f"(sum[j][3])
#define NITRO_EIGHTS(j)                                                                              \
  NITRO_EIGHT(j), NITRO_EIGHT(j + 1), NITRO_EIGHT(j + 2), NITRO_EIGHT(j + 3), NITRO_EIGHT(j + 4), \
      NITRO_EIGHT(j + 5), NITRO_EIGHT(j + 6), NITRO_EIGHT(j + 7)
#define NITRO_WARPGROUP_PRODUCT(columns, names, left_name, right_name, ...)                                          \
  template <>                                                                                                        \
  struct WarpgroupProduct<columns / 8> {                                                                             \
    NITRO_DEVICE void issue(float (&sum)[columns / 8][4], uint64 left, uint64 right) {                               \
      asm volatile("{ .reg .pred adds; setp.eq.u32 adds, 0, 0; wgmma.mma_async.sync.aligned.m64n" #columns           \
                   "k16.f32.f16.f16 {" names "}, " left_name ", " right_name ", adds, 1, 1, 0, 0; }"                 \
                   : __VA_ARGS__                                                                                     \
                   : "l"(left), "l"(right));                                                                         \
    }                                                                                                                \
  };
NITRO_WARPGROUP_PRODUCT(64, NITRO_NAMES_0, "%32", "%33", NITRO_EIGHTS(0))
NITRO_WARPGROUP_PRODUCT(128, NITRO_NAMES_0 NITRO_NAMES_32, "%64", "%65", NITRO_EIGHTS(0), NITRO_EIGHTS(8))
NITRO_WARPGROUP_PRODUCT(192, NITRO_NAMES_0 NITRO_NAMES_32 NITRO_NAMES_64, "%96", "%97", NITRO_EIGHTS(0),
                        NITRO_EIGHTS(8), NITRO_EIGHTS(16))
NITRO_WARPGROUP_PRODUCT(256, NITRO_NAMES_0 NITRO_NAMES_32 NITRO_NAMES_64 NITRO_NAMES_96, "%128", "%129",
                        NITRO_EIGHTS(0), NITRO_EIGHTS(8), NITRO_EIGHTS(16), NITRO_EIGHTS(24))
NITRO_DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
NITRO_DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
NITRO_DEVICE void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// What this thread has in shared memory so far, copies that it waited for as well, becomes visible to products.
NITRO_DEVICE void show_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
#else
template <int kEights>
struct WarpgroupProduct {
  NITRO_DEVICE void issue(float (&)[kEights][4], uint64, uint64) {}
};
NITRO_DEVICE void begin_products() {}
NITRO_DEVICE void commit_products() {}
template <int kPending>
NITRO_DEVICE void wait_for_products() {}
NITRO_DEVICE void show_to_products() {}
#endif
// The compiler may not move what is done with a value across this.
NITRO_DEVICE void pin(float& value) { asm volatile("" : "+f"(value)::"memory"); }
NITRO_DEVICE uint32 shared_number(Shared address) { return address; }

}  // namespace nitro
#endif
