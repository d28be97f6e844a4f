// Whether a fused launch is faster than the best that can be done without it: `nitro-analyze fuse bench` as a program
// for boards whose Python is too old (JetPack 4 and 5). CUDA 10.2 and newer, C++14, nothing but the CUDA runtime:
//
//   make SM=53        (the Makefile beside this file: 53 Nano, 62 TX2, 72 Xavier, 87 Orin)
//   ./bench-sm_53 --help
//
// It measures by the same rules, with the same bodies and launches, and prints the same JSON (README.md in this folder
// says what differs). All ways to run a pair are timed in turn, forwards and then backwards, on rotating inputs that
// together are larger than twice the L2, behind a kernel that holds the stream until everything has been submitted.
// Successive halving picks a winner in every family on tuning samples; winners are then timed again, and compared by
// those judging samples. Before anything is timed, the outputs of every way are compared, bit by bit, with those of the
// bodies alone.
//
// Bodies are chosen when it is compiled, for an architecture: NITRO_SM. Those of `choose` in bodies.py run alone, and
// of the memory-bound ones other forms run where few warps have to keep the memory busy. Most other tiles and
// preferences for shared memory, which the tuner tries too, are left out: a small board would take hours.
#include "simt.cuh"
#include "strategies.cuh"
#include "tensor.cuh"

#include <cuda_runtime.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#ifndef NITRO_SM
#error "build with the Makefile beside this file, as in `make SM=53`"
#endif
// A bit for each pair below, in the order of --list: fewer pairs compile faster on a small board.
#ifndef NITRO_PAIRS
#define NITRO_PAIRS 0xfff
#endif
// The longest rows that LayerNorm and softmax hold in registers, as the shapes of the pairs have them.
#ifndef NITRO_NORM_COLUMNS
#define NITRO_NORM_COLUMNS 512
#endif
#ifndef NITRO_SOFTMAX_COLUMNS
#define NITRO_SOFTMAX_COLUMNS 80
#endif
// Defined, memory bodies take any sizes; else multiples of what a warp moves at once, which takes fewer instructions.
#ifdef NITRO_ANY_SIZE
#define NITRO_WHOLE false
#else
#define NITRO_WHOLE true
#endif
// The emulation on a CPU calls kernels another way (tests/fused_kernels/cuda_on_cpu).
#ifndef NITRO_REGISTER_KERNEL
#define NITRO_REGISTER_KERNEL(kernel)
#endif

using nitro::Counters;
using nitro::Range;

enum ExitCode { kPassed = 0, kCheckFailed = 1, kWrongUsage = 2, kToolFailed = 5 };

struct Failure : std::runtime_error {
  ExitCode code;
  Failure(ExitCode code_, const std::string& sentence) : std::runtime_error(sentence), code(code_) {}
};

static std::string number(long long value) { return std::to_string(value); }

static void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  throw Failure(kToolFailed, std::string(call) + " failed on the GPU: " + cudaGetErrorString(status) +
                                 "; look at the sizes, and at earlier messages.");
}
#define CHECK(call) check((call), #call)

// ---- kernels --------------------------------------------------------------------------------------------------------
// Templates in the place of the source that strategies.py generates; launch bounds are those of _launch_bound there.

template <class Body, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) alone_kernel(typename Body::Params first, Range range0) {
  nitro::run_alone<Body, kThreads>(first, range0);
}
template <class Body, int kThreads, int kBlocks, int kBytes>
__global__ void __launch_bounds__(kThreads, kBlocks)
    persistent_kernel(typename Body::Params first, Range range0, Counters* counters) {
  nitro::run_persistent<Body, kThreads, kBytes>(first, range0, counters);
}
template <class First, class Second, int kFirst, int kSecond, int kSecondShared, bool kDrain, int kBytes, int kBlocks>
__global__ void __launch_bounds__(kFirst + kSecond, kBlocks)
    intra_block_kernel(typename First::Params first, Range range0, typename Second::Params second, Range range1,
                       Counters* counters) {
  nitro::run_intra_block<First, Second, kFirst, kSecond, kSecondShared, kDrain, kBytes>(first, range0, second, range1,
                                                                                       counters);
}
template <class First, class Second, int kFirst, int kSecond, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks)
    inter_block_static_kernel(typename First::Params first, Range range0, typename Second::Params second, Range range1,
                              int sms, int order) {
  nitro::run_inter_block_static<First, Second, kFirst, kSecond>(first, range0, second, range1, sms, order);
}
template <class First, class Second, int kFirst, int kSecond, int kThreads, int kBlocks, bool kDrain, int kBytes>
__global__ void __launch_bounds__(kThreads, kBlocks)
    inter_block_ticket_kernel(typename First::Params first, Range range0, typename Second::Params second, Range range1,
                              Counters* counters, int turns) {
  nitro::run_inter_block_ticket<First, Second, kFirst, kSecond, kDrain, kBytes>(first, range0, second, range1, counters,
                                                                               turns);
}
template <class First, class Second, int kThreads>
__global__ void __launch_bounds__(kThreads, 1)
    intra_thread_kernel(typename First::Params first, Range range0, typename Second::Params second, Range range1) {
  nitro::run_intra_thread<First, Second, kThreads>(first, range0, second, range1);
}

static const int kHelperThreads = 256;

// Keeps a stream busy until everything behind it has been submitted. Bounded, in case the timer stands still.
__global__ void delay_kernel(unsigned int microseconds) {
#ifndef NITRO_EMULATION
  unsigned long long start, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
  for (unsigned int i = 0; i < 100000000u; i++) {
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    if (now - start >= microseconds * 1000ull) return;
  }
#else
  (void)microseconds;
#endif
}
__global__ void count_sm_ids_kernel(unsigned int* count) {
  if (nitro::thread_index() == 0) *count = nitro::sm_id_count();
}

NITRO_DEVICE unsigned int scrambled(unsigned long long index, unsigned int seed) {
  unsigned int x = static_cast<unsigned int>(index) * 2654435761u + static_cast<unsigned int>(index >> 32) + seed;
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  return x ^ (x >> 16);
}
// Numbers from -1 to 1. Zeros would make a GPU faster than it is.
template <typename Element>
__global__ void fill_kernel(Element* to, long long count, unsigned int seed) {
  const long long stride = static_cast<long long>(nitro::grid_size()) * kHelperThreads;
  for (long long i = static_cast<long long>(nitro::block_index()) * kHelperThreads + nitro::thread_index(); i < count;
       i += stride)
    nitro::from_float(static_cast<float>(scrambled(i, seed) >> 8) * (2.f / 16777216.f) - 1.f, to[i]);
}
__global__ void fill_ids_kernel(int* to, long long count, unsigned int seed, int limit) {
  const long long stride = static_cast<long long>(nitro::grid_size()) * kHelperThreads;
  for (long long i = static_cast<long long>(nitro::block_index()) * kHelperThreads + nitro::thread_index(); i < count;
       i += stride)
    to[i] = static_cast<int>(scrambled(i, seed) % static_cast<unsigned int>(limit));
}
// Counts the elements whose bits differ, or which nobody has written since they were poisoned (`right` is null).
template <typename Word>
__global__ void count_wrong_kernel(const Word* left, const Word* right, long long count, unsigned int* wrong) {
  const long long stride = static_cast<long long>(nitro::grid_size()) * kHelperThreads;
  for (long long i = static_cast<long long>(nitro::block_index()) * kHelperThreads + nitro::thread_index(); i < count;
       i += stride)
    if (right ? left[i] != right[i] : left[i] == static_cast<Word>(~static_cast<Word>(0)))
      nitro::atomic_increment(wrong);
}

// ---- the launch of a kernel -----------------------------------------------------------------------------------------

template <class... Parameters>
const void* entry(void (*kernel)(Parameters...)) {
  NITRO_REGISTER_KERNEL(kernel);
  return reinterpret_cast<const void*>(kernel);
}

// A kernel with its arguments, which live as long as it does.
struct Work {
  const void* kernel = nullptr;
  int grid = 0;
  int threads = 0;
  int shared_bytes = 0;
  std::vector<std::shared_ptr<void>> arguments;

  void submit(cudaStream_t stream) const {
    std::vector<void*> pointers;
    for (const auto& argument : arguments) pointers.push_back(argument.get());
    CHECK(cudaLaunchKernel(kernel, dim3(grid), dim3(threads), pointers.data(), shared_bytes, stream));
  }
};

static void add_arguments(Work&) {}
template <class Value, class... Rest>
void add_arguments(Work& work, const Value& value, const Rest&... rest) {
  work.arguments.push_back(std::make_shared<Value>(value));
  add_arguments(work, rest...);
}
template <class... Values>
Work make_work(const void* kernel, int grid, int threads, int shared_bytes, const Values&... values) {
  Work work;
  work.kernel = kernel;
  work.grid = grid;
  work.threads = threads;
  work.shared_bytes = shared_bytes;
  add_arguments(work, values...);
  return work;
}

static int helper_grid(long long count) {
  return static_cast<int>(std::max(1ll, std::min(4096ll, (count + kHelperThreads - 1) / kHelperThreads)));
}

// ---- the device -----------------------------------------------------------------------------------------------------

struct Device {
  int index = 0;
  std::string name;
  int sm = 0;
  int sms = 0;
  int sm_ids = 0;
  long long l2_bytes = 0;
  long long memory_bytes = 0;
  int shared_bytes_per_block = 0;
  int driver = 0;
  cudaStream_t main_stream = nullptr;
  cudaStream_t streams[2] = {nullptr, nullptr};
  cudaStream_t urgent = nullptr;
  cudaEvent_t forked = nullptr;
  cudaEvent_t start = nullptr;
  cudaEvent_t end = nullptr;

  cudaStream_t stream(int priority) {
    cudaStream_t made;
    CHECK(cudaStreamCreateWithPriority(&made, cudaStreamNonBlocking, priority));
    return made;
  }
  // `after` waits for what `before` has been given.
  void join(cudaStream_t after, cudaStream_t before) {
    CHECK(cudaEventRecord(forked, before));
    CHECK(cudaStreamWaitEvent(after, forked, 0));
  }
  void synchronize() { CHECK(cudaDeviceSynchronize()); }
};

static Device open_device(int index) {
  const char* way_out = "use a machine with an NVIDIA GPU and driver";
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0)
    throw Failure(kToolFailed, std::string("no GPU can be used (") +
                                   (status == cudaSuccess ? "there is none" : cudaGetErrorString(status)) + "); " +
                                   way_out + ".");
  if (index < 0 || index >= count)
    throw Failure(kWrongUsage, "there is no GPU " + number(index) + "; there are " + number(count) + ", from 0 on.");
  CHECK(cudaSetDevice(index));
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, index));
  Device device;
  device.index = index;
  device.name = properties.name;
  device.sm = properties.major * 10 + properties.minor;
  if (device.sm < NITRO_SM)
    throw Failure(kToolFailed, device.name + " is sm_" + number(device.sm) + ", too old for this program, which was " +
                                   "built for sm_" + number(NITRO_SM) + "; build it with `make SM=" +
                                   number(device.sm) + "`.");
  if (device.sm >= 80 && NITRO_SM < 80)
    fprintf(stderr, "bench: built for sm_%d, so the bodies of sm_80 and newer are not used on %s (sm_%d); `make SM=%d` "
            "builds them.\n", NITRO_SM, device.name.c_str(), device.sm, device.sm);
  device.sms = properties.multiProcessorCount;
  device.l2_bytes = properties.l2CacheSize;
  device.shared_bytes_per_block =
      static_cast<int>(std::max(properties.sharedMemPerBlock, properties.sharedMemPerBlockOptin));
  size_t available = 0, total = 0;
  CHECK(cudaMemGetInfo(&available, &total));
  device.memory_bytes = static_cast<long long>(total);
  CHECK(cudaDriverGetVersion(&device.driver));
  int lowest = 0, highest = 0;
  CHECK(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
  device.main_stream = device.stream(lowest);
  for (auto& one : device.streams) one = device.stream(lowest);
  device.urgent = device.stream(highest);
  CHECK(cudaEventCreateWithFlags(&device.forked, cudaEventDisableTiming));
  CHECK(cudaEventCreate(&device.start));
  CHECK(cudaEventCreate(&device.end));
  unsigned int* ids = nullptr;
  unsigned int found = 0;
  CHECK(cudaMalloc(&ids, sizeof(found)));
  make_work(entry(count_sm_ids_kernel), 1, 32, 0, ids).submit(device.main_stream);
  device.synchronize();
  CHECK(cudaMemcpy(&found, ids, sizeof(found), cudaMemcpyDeviceToHost));
  CHECK(cudaFree(ids));
  device.sm_ids = std::max(device.sms, static_cast<int>(found));
  return device;
}

static std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = popen((command + " 2>/dev/null").c_str(), "r");
  if (!pipe) return text;
  char part[256];
  while (fgets(part, sizeof(part), pipe)) text += part;
  pclose(pipe);
  return text;
}

// The clocks now by domain, from nvidia-smi, on a Jetson from the kernel; empty where neither tells.
static std::map<std::string, double> clocks_mhz(const Device& device) {
  std::map<std::string, double> clocks;
  char bus[64] = "";
  double sm = 0, memory = 0;
  if (cudaDeviceGetPCIBusId(bus, sizeof(bus), device.index) == cudaSuccess) {
    const std::string text = output_of(std::string("nvidia-smi --id=") + bus +
                                       " --query-gpu=clocks.sm,clocks.mem --format=csv,noheader,nounits");
    if (sscanf(text.c_str(), "%lf, %lf", &sm, &memory) == 2) {
      clocks["sm"] = sm;
      clocks["memory"] = memory;
      return clocks;
    }
  }
  cudaGetLastError();
  const std::string text = output_of("cat /sys/devices/gpu.0/devfreq/*/cur_freq /sys/class/devfreq/*gpu*/cur_freq "
                                     "/sys/class/devfreq/*gv11b*/cur_freq /sys/class/devfreq/*ga10b*/cur_freq");
  if (sscanf(text.c_str(), "%lf", &sm) == 1) clocks["sm"] = sm * 1e-6;
  return clocks;
}

// ---- bodies and problems --------------------------------------------------------------------------------------------
// A side of a pair: a body, its problem's shape and arrays, as in compute_bodies.py, memory_bodies.py and problems.py.

enum Type { kFloat, kHalf, kIds };
static int element_bytes(Type type) { return type == kHalf ? 2 : 4; }

struct Array {
  long long elements;
  Type type;
  bool output;
  int limit;  // ids are below it

  long long bytes() const { return elements * element_bytes(type); }
};

typedef std::vector<std::pair<std::string, long long>> Shape;
static long long& at(Shape& shape, const std::string& key) {
  for (auto& one : shape)
    if (one.first == key) return one.second;
  throw std::logic_error(key);
}
static long long get(const Shape& shape, const std::string& key) { return at(const_cast<Shape&>(shape), key); }

static long long ceil_of(long long value, long long by) { return (value + by - 1) / by; }

static void need(bool holds, const std::string& sentence) {
  if (!holds) throw Failure(kWrongUsage, sentence);
}
inline void need_width(const std::string& body, const char* what, long long size, int width) {
  need(size % width == 0, body + " moves " + number(width) + " elements at once and " + what + " is " + number(size) +
                              ", no multiple of it; choose a multiple.");
}
inline void need_whole(const std::string& body, const char* what, long long size, int width, int of, bool one = false) {
  need_width(body, what, size, width);
  need(!NITRO_WHOLE || (one ? size == of : size > 0 && size % of == 0),
       body + " takes " + (one ? "" : "multiples of ") + number(of) + " " + what + ", the shape has " + number(size) +
           "; build with `make SM=" + number(NITRO_SM) + " FLAGS=-DNITRO_ANY_SIZE`.");
}
inline std::string rebuilt(const char* macro, long long columns) {
  return "; build with `make SM=" + number(NITRO_SM) + " FLAGS=-D" + macro + "=" + number(columns) + "`.";
}
inline void need_columns(const std::string& body, long long columns, int held, bool exact, const char* macro) {
  need(exact ? columns == held : columns <= held, body + " holds rows of " + (exact ? "" : "up to ") + number(held) +
                                                      " columns, the shape has " + number(columns) +
                                                      rebuilt(macro, columns));
}

template <typename Element>
struct Named;
template <>
struct Named<float> {
  static const Type kType = kFloat;
  static const int kWidth = 4;
  static const char* text() { return "f32"; }
};
template <>
struct Named<nitro::half_t> {
  static const Type kType = kHalf;
  static const int kWidth = 8;
  static const char* text() { return "f16"; }
};

constexpr bool kAsync = NITRO_SM >= 80;
// Of LIMITS in occupancy.py: the shared memory of an SM and of a block where copies are asynchronous.
constexpr bool kLittleShared = NITRO_SM == 86 || NITRO_SM == 89 || NITRO_SM >= 120;
constexpr int kSharedBytesOfSm = (kLittleShared ? 100 : NITRO_SM < 90 ? 164 : 228) << 10;
constexpr int kReservedSharedBytes = 1 << 10;
// The registers of a block; an SM has 65536 everywhere.
constexpr int kRegistersOfBlock = NITRO_SM == 53 || NITRO_SM == 62 ? 32768 : 65536;
constexpr int rounded_up(int size, int to) { return (size + to - 1) / to * to; }
constexpr int larger(int left, int right) { return left > right ? left : right; }
constexpr int smaller(int left, int right) { return left < right ? left : right; }
// Rows are held in registers up to 32 elements a lane, longer ones are read again: 0.
constexpr int chunks_of(int columns, int width) {
  return (columns + 32 * width - 1) / (32 * width) * width <= 32 ? (columns + 32 * width - 1) / (32 * width) : 0;
}

template <typename Element>
std::string memory_name(const char* operation, int chunks, const char* kind, int rows, int together, int stages,
                        const char* batch = "") {
  return std::string(operation) + "_" + Named<Element>::text() + "_w" + number(Named<Element>::kWidth) + "x" +
         number(chunks) + kind + "_r" + number(rows) + (together > 1 ? "t" + number(together) : "") + batch +
         (stages ? "_a" + number(stages) : "");
}

// Every side also says its problem as Python prints it, its operations, and the bytes that move at least.
static std::string dtype_text(Type type) { return type == kHalf ? "dtype='float16'" : "dtype='float32'"; }
static std::string listed(const Shape& shape, const char* join) {
  std::string text;
  for (const auto& one : shape) {
    const bool flag = one.first == "bias" || one.first == "relu";
    text += (text.empty() ? "" : join) + one.first + "=";
    text += flag ? (one.second ? "True" : "False") : number(one.second);
  }
  return text;
}

// A memory-bound side has a body as `choose` gives it, for as many warps as fit, and forms for few warps beside others,
// all of which write the same bits:
//   Lean      more rows at once, or one loaded ahead of the other, for few instructions and more on its way
//   ByBlock   of those the one for blocks that carry the registers and shared memory of a tile
//   StagedAs  pieces on their way through shared memory, of more rows (if `many`) or of one
struct MemorySide {
  static constexpr bool kCompute = false;
  static constexpr int kSums = 0;
  static constexpr int kThreads = 256;
  static constexpr int kBlocks = 1;
  static constexpr int kRegistersOfMany = 0;
  static constexpr int kThreadsBeside = 256;  // that keep the memory busy beside a tile, where it leaves registers
};

template <class Plain, int kSlots>
struct InSlots {
  typedef nitro::Staged<Plain, kSlots> Body;
};
template <class Plain>
struct InSlots<Plain, 0> {
  typedef Plain Body;
};

// The shared memory of a block with so many threads of a side.
template <class Side, int kThreads, bool kCompute = Side::kCompute>
struct SharedOf {
  static constexpr int kBytes = Side::Body::kSharedBytes;
};
template <class Side, int kThreads>
struct SharedOf<Side, kThreads, false> {
  static constexpr int kBytes = kThreads / 32 * Side::Body::kWarpBytes;
};

// Where a lane holds few enough numbers of a row, two rows at once leave registers for a compute body beside.
constexpr int rows_at_once(int chunks, int width) { return chunks > 0 && chunks * width <= 16 ? 2 : 1; }
constexpr int kRegistersForTwoRows = 104;

// What so many threads have on their way of a piece each.
template <class Side, int kThreads>
struct StageOf {
  typedef typename Side::Body::Piece Piece;
  static constexpr int kBytes = kThreads * Piece::kPacks * static_cast<int>(sizeof(typename Piece::Vector));
};
// `staged` of teams.py: the form of a side that has 48 KiB on their way in a block, in at most kRoom bytes, and
// needs at most so many registers of a thread.
template <class Side, int kThreads, int kRoom, int kRegisters = 128>
struct StagedForm {
  static constexpr int kManyBytes = StageOf<typename Side::template StagedAs<true, 0>, kThreads>::kBytes;
  static constexpr int kFewBytes = StageOf<typename Side::template StagedAs<false, 0>, kThreads>::kBytes;
  static constexpr bool kMany = 2 * kManyBytes <= kRoom && kRegisters >= Side::kRegistersOfMany;
  static constexpr int kStageBytes = kMany ? kManyBytes : kFewBytes;
  static constexpr int kWanted = smaller(((48 << 10) + kStageBytes - 1) / kStageBytes, kRoom / kStageBytes);
  typedef typename Side::template StagedAs<kMany, larger(2, smaller(12, kWanted))> Form;
};

template <typename Element, int kRows = 1, int kTogether = 1, int kSlots = 0>
struct LayerNormSide : MemorySide {
  static constexpr int kWidth = Named<Element>::kWidth;
  static constexpr int kChunks = chunks_of(NITRO_NORM_COLUMNS, kWidth);
  static constexpr bool kExact = NITRO_WHOLE && NITRO_NORM_COLUMNS == 32 * kWidth * kChunks;
  typedef typename InSlots<nitro::LayerNorm<Element, kWidth, kChunks, kRows, kTogether, kExact>, kSlots>::Body Body;
  static constexpr int kMost = rows_at_once(kChunks, kWidth);
  static constexpr int kRegistersOfMany = kMost > 1 ? kRegistersForTwoRows : 0;
  typedef LayerNormSide<Element, 8, kMost> Lean;
  typedef LayerNormSide<Element, 8> ByBlock;  // with two rows at once a tile's block would spill
  static constexpr bool kCanBeStaged = kAsync && kChunks > 0;
  template <bool kMany, int kStages>
  using StagedAs = LayerNormSide<Element, 8, kMany ? kMost : 1, kStages>;
  static std::string name() {
    return memory_name<Element>("layer_norm", kChunks, kExact ? "e" : "", kRows, kTogether, kSlots);
  }
  static Shape shape() { return {{"rows", 8 * 77}, {"columns", 512}}; }
  static const char* scaled() { return "rows"; }
  static void check(const Shape& shape) {
    need_width(name(), "columns", get(shape, "columns"), kWidth);
    if (kChunks) need_columns(name(), get(shape, "columns"), 32 * kWidth * kChunks, kExact, "NITRO_NORM_COLUMNS");
  }
  static std::vector<Array> arrays(const Shape& shape) {
    const long long columns = get(shape, "columns"), all = get(shape, "rows") * columns;
    const Type type = Named<Element>::kType;
    return {{all, type, false, 0}, {columns, type, false, 0}, {columns, type, false, 0}, {all, type, true, 0}};
  }
  static typename Body::Params params(const Shape& shape, char* const* to) {
    const int columns = static_cast<int>(get(shape, "columns"));
    return {reinterpret_cast<const Element*>(to[0]), reinterpret_cast<const Element*>(to[1]),
            reinterpret_cast<const Element*>(to[2]), reinterpret_cast<Element*>(to[3]),
            static_cast<int>(get(shape, "rows")),    columns,
            static_cast<float>(1.0 / columns),       1e-5f};
  }
  static long long units(const Shape& shape) { return ceil_of(get(shape, "rows"), kRows); }
  static std::string kernel_class() {
    return Named<Element>::kType == kHalf ? "layer_norm float16" : "layer_norm float32";
  }
  static std::string text(const Shape& shape) {
    return "LayerNormProblem(" + listed(shape, ", ") + ", " + dtype_text(Named<Element>::kType) + ", epsilon=1e-05)";
  }
  static double flop(const Shape& shape) { return 7.0 * get(shape, "rows") * get(shape, "columns"); }
};

// Rows of fewer than 128 columns share the lanes of a warp, whatever their number is: few lanes would have work else,
// and few bytes be on their way.
constexpr bool kShortRows = NITRO_SOFTMAX_COLUMNS < 128;
template <typename Element, int kRows, int kTogether, bool kShort = kShortRows>
struct SoftmaxBody {
  static constexpr int kLanes = 32 / Named<Element>::kWidth;
  static constexpr int kChunks = (NITRO_SOFTMAX_COLUMNS + kLanes - 1) / kLanes;
  static constexpr bool kExact = false;
  static constexpr int kUnitRows = Named<Element>::kWidth * (kRows > 1 ? 4 : 1);
  typedef nitro::SoftmaxOfShortRows<Element, Named<Element>::kWidth, kChunks, kUnitRows> Plain;
};
template <typename Element, int kRows, int kTogether>
struct SoftmaxBody<Element, kRows, kTogether, false> {
  static constexpr int kWidth = Named<Element>::kWidth;
  static constexpr int kChunks = chunks_of(NITRO_SOFTMAX_COLUMNS, kWidth);
  static constexpr bool kExact = NITRO_WHOLE && NITRO_SOFTMAX_COLUMNS == 32 * kWidth * kChunks;
  static constexpr int kUnitRows = kRows;
  typedef nitro::Softmax<Element, kWidth, kChunks, kRows, kTogether, kExact> Plain;
};

template <typename Element, int kRows = 1, int kTogether = 1, int kSlots = 0>
struct SoftmaxSide : MemorySide {
  typedef SoftmaxBody<Element, kRows, kTogether> Rows;
  typedef typename InSlots<typename Rows::Plain, kSlots>::Body Body;
  static constexpr int kWidth = Named<Element>::kWidth;
  static constexpr int kChunks = Rows::kChunks;
  static constexpr int kMost = kShortRows ? 1 : rows_at_once(kChunks, kWidth);
  static constexpr int kRegistersOfMany = kMost > 1 ? kRegistersForTwoRows : 0;
  static constexpr int kThreadsBeside = 384;  // every step of a short row waits for the one before
  typedef SoftmaxSide<Element, 8, kMost> Lean;
  typedef Lean ByBlock;
  static constexpr bool kCanBeStaged = kAsync && kChunks > 0;
  template <bool kMany, int kStages>
  using StagedAs = SoftmaxSide<Element, 8, kMany ? kMost : 1, kStages>;
  static std::string name() {
    return memory_name<Element>("softmax", kChunks, kShortRows ? "s" : Rows::kExact ? "e" : "", Rows::kUnitRows,
                                kTogether, kSlots);
  }
  static Shape shape() { return {{"rows", 8 * 8 * 80}, {"columns", 80}}; }
  static const char* scaled() { return "rows"; }
  static void check(const Shape& shape) {
    const long long columns = get(shape, "columns");
    if (kShortRows) {
      const int most = kChunks * (32 / kWidth), least = most - 32 / kWidth + 1;
      need(columns >= least && columns <= most,
           name() + " takes rows of " + number(least) + " to " + number(most) + " columns, the shape has " +
               number(columns) + rebuilt("NITRO_SOFTMAX_COLUMNS", columns));
    } else {
      need_width(name(), "columns", columns, kWidth);
      if (kChunks) need_columns(name(), columns, 32 * kWidth * kChunks, Rows::kExact, "NITRO_SOFTMAX_COLUMNS");
    }
  }
  static std::vector<Array> arrays(const Shape& shape) {
    const long long all = get(shape, "rows") * get(shape, "columns");
    return {{all, Named<Element>::kType, false, 0}, {all, Named<Element>::kType, true, 0}};
  }
  static typename Body::Params params(const Shape& shape, char* const* to) {
    return {reinterpret_cast<const Element*>(to[0]), reinterpret_cast<Element*>(to[1]),
            static_cast<int>(get(shape, "rows")), static_cast<int>(get(shape, "columns")), 0.125f};
  }
  static long long units(const Shape& shape) { return ceil_of(get(shape, "rows"), Rows::kUnitRows); }
  static std::string text(const Shape& shape) {
    return "SoftmaxProblem(" + listed(shape, ", ") + ", " + dtype_text(Named<Element>::kType) + ", scale=0.125)";
  }
  static double flop(const Shape& shape) { return 5.0 * get(shape, "rows") * get(shape, "columns"); }
};

// A linear layer at batch 1.
template <typename Element, int kRows = 2, int kChunks = Named<Element>::kType == kHalf ? 2 : 4, int kSlots = 0>
struct SkinnyGemmSide : MemorySide {
  static constexpr int kWidth = Named<Element>::kWidth;
  typedef typename InSlots<nitro::SkinnyGemm<Element, kWidth, kChunks, kRows, 1, NITRO_WHOLE>, kSlots>::Body Body;
  typedef SkinnyGemmSide<Element, 4, kChunks> Lean;
  typedef SkinnyGemmSide ByBlock;  // four lines would take more registers than a tile's block has
  static constexpr bool kCanBeStaged = kAsync;
  template <bool kMany, int kStages>
  using StagedAs = SkinnyGemmSide<Element, kMany ? 4 : 1, kChunks / 2, kStages>;
  static std::string name() {
    return memory_name<Element>("skinny_gemm", kChunks, NITRO_WHOLE ? "e" : "", kRows, 1, kSlots, "_b1");
  }
  static Shape shape() { return {{"outputs", 2048}, {"inner", 512}}; }
  static const char* scaled() { return "outputs"; }
  static void check(const Shape& shape) {
    need_whole(name(), "inner", get(shape, "inner"), kWidth, 32 * kWidth * kChunks);
  }
  static std::vector<Array> arrays(const Shape& shape) {
    const long long outputs = get(shape, "outputs"), inner = get(shape, "inner");
    const Type type = Named<Element>::kType;
    return {{outputs * inner, type, false, 0}, {inner, type, false, 0}, {outputs, type, false, 0},
            {outputs, type, true, 0}};
  }
  static typename Body::Params params(const Shape& shape, char* const* to) {
    return {reinterpret_cast<const Element*>(to[0]), reinterpret_cast<const Element*>(to[1]),
            reinterpret_cast<const Element*>(to[2]), reinterpret_cast<Element*>(to[3]),
            static_cast<int>(get(shape, "outputs")), static_cast<int>(get(shape, "inner"))};
  }
  static long long units(const Shape& shape) { return ceil_of(get(shape, "outputs"), kRows); }
  static std::string text(const Shape& shape) {
    return "SkinnyGemmProblem(batch=1, " + listed(shape, ", ") + ", " + dtype_text(Named<Element>::kType) +
           ", bias=True)";
  }
  static double flop(const Shape& shape) { return 2.0 * get(shape, "outputs") * get(shape, "inner"); }
};

template <int kRows = 1, int kSlots = 0>
struct EmbeddingSide : MemorySide {
  typedef typename InSlots<nitro::Embedding<float, 4, 4, kRows, NITRO_WHOLE>, kSlots>::Body Body;
  typedef EmbeddingSide<8> Lean;
  typedef Lean ByBlock;
  static constexpr bool kCanBeStaged = kAsync;
  template <bool kMany, int kStages>
  using StagedAs = EmbeddingSide<8, kStages>;
  static std::string name() { return memory_name<float>("embedding", 4, NITRO_WHOLE ? "e" : "", kRows, 1, kSlots); }
  static Shape shape() { return {{"tokens", 8 * 77}, {"columns", 512}, {"vocabulary", 49408}, {"sequence", 77}}; }
  static const char* scaled() { return "tokens"; }
  static void check(const Shape& shape) { need_whole(name(), "columns", get(shape, "columns"), 4, 512, true); }
  static std::vector<Array> arrays(const Shape& shape) {
    const long long tokens = get(shape, "tokens"), columns = get(shape, "columns");
    const long long vocabulary = get(shape, "vocabulary");
    return {{tokens, kIds, false, static_cast<int>(vocabulary)},
            {vocabulary * columns, kFloat, false, 0},
            {get(shape, "sequence") * columns, kFloat, false, 0},
            {tokens * columns, kFloat, true, 0}};
  }
  static typename Body::Params params(const Shape& shape, char* const* to) {
    return {reinterpret_cast<const int*>(to[0]),        reinterpret_cast<const float*>(to[1]),
            reinterpret_cast<const float*>(to[2]),      reinterpret_cast<float*>(to[3]),
            static_cast<int>(get(shape, "tokens")),     static_cast<int>(get(shape, "columns")),
            static_cast<int>(get(shape, "vocabulary")), static_cast<int>(get(shape, "sequence"))};
  }
  static long long units(const Shape& shape) { return ceil_of(get(shape, "tokens"), kRows); }
  static std::string text(const Shape& shape) {
    return "EmbeddingProblem(" + listed(shape, ", ") + ", " + dtype_text(kFloat) + ")";
  }
  static double flop(const Shape& shape) { return static_cast<double>(get(shape, "tokens")) * get(shape, "columns"); }
};

template <int kRows = 1, int kSlots = 0>
struct ResidualGeluSide : MemorySide {
  typedef nitro::Elementwise<nitro::ResidualGelu, float, 4, 4, kRows, NITRO_WHOLE> Plain;
  typedef typename InSlots<Plain, kSlots>::Body Body;
  typedef ResidualGeluSide<8> Lean;
  typedef Lean ByBlock;
  static constexpr bool kCanBeStaged = kAsync;
  template <bool kMany, int kStages>
  using StagedAs = ResidualGeluSide<8, kStages>;
  static std::string name() {
    return memory_name<float>("residual_gelu", 4, NITRO_WHOLE ? "e" : "", kRows, 1, kSlots);
  }
  static Shape shape() { return {{"count", 8 * 77 * 2048}}; }
  static const char* scaled() { return "count"; }
  static void check(const Shape& shape) { need_whole(name(), "elements", get(shape, "count"), 4, 512); }
  static std::vector<Array> arrays(const Shape& shape) {
    const long long count = get(shape, "count");
    return {{count, kFloat, false, 0}, {count, kFloat, false, 0}, {count, kFloat, true, 0}};
  }
  static typename Body::Params params(const Shape& shape, char* const* to) {
    return {reinterpret_cast<const float*>(to[0]), reinterpret_cast<const float*>(to[1]),
            reinterpret_cast<float*>(to[2]), get(shape, "count")};
  }
  static long long units(const Shape& shape) { return ceil_of(get(shape, "count"), 32 * 4 * 4 * kRows); }
  static std::string text(const Shape& shape) {
    return "ElementwiseProblem(operation='residual_gelu', " + listed(shape, ", ") + ", " + dtype_text(kFloat) + ")";
  }
  static double flop(const Shape& shape) { return 6.0 * get(shape, "count"); }
};

template <class Side>
double streamed_bytes(const Shape& shape) {
  double sum = 0;
  for (const Array& array : Side::arrays(shape)) sum += static_cast<double>(array.bytes());
  return sum;
}
// Of a table only the rows of the tokens move, and of the positions each once.
template <>
double streamed_bytes<EmbeddingSide<>>(const Shape& shape) {
  const double row = 4.0 * get(shape, "columns"), tokens = static_cast<double>(get(shape, "tokens"));
  return 2 * tokens * row + 4 * tokens + std::min(static_cast<double>(get(shape, "sequence")), tokens) * row;
}

inline std::string copies_name(int stages) { return kAsync ? "a" + number(stages) : "s2"; }

struct ComputeSide {
  static constexpr bool kCompute = true;
  static constexpr int kThreads = 256;  // tiles are 128x64 in fp32 and 128x128 in fp16
  static constexpr bool kCanBeStaged = false;
  static const char* scaled() { return nullptr; }
};

template <int kTileN = 64>
struct GemmSide : ComputeSide {
  static constexpr int kStages = !kAsync ? 2 : kTileN == 64 ? 4 : 3;
  static constexpr int kBlocks = kAsync && kTileN == 64 ? 3 : 2;
  static constexpr int kSums = 128 * kTileN / kThreads;
  typedef nitro::SimtGemm<128, kTileN, 256, kStages, kAsync, 4> Body;
  static std::string name() { return "gemm_f32_128x" + number(kTileN) + "_t256_" + copies_name(kStages) + "_w4"; }
  static Shape shape() { return {{"rows", 8192}, {"outputs", 2048}, {"depth", 1024}, {"bias", 0}, {"relu", 0}}; }
  static void check(const Shape& shape) {
    need_width(name(), "rows", get(shape, "rows"), 4);
    need_width(name(), "outputs", get(shape, "outputs"), 4);
  }
  static std::vector<Array> arrays(const Shape& shape) {
    const long long rows = get(shape, "rows"), outputs = get(shape, "outputs"), depth = get(shape, "depth");
    std::vector<Array> found = {{depth * rows, kFloat, false, 0}, {depth * outputs, kFloat, false, 0}};
    if (get(shape, "bias")) found.push_back({outputs, kFloat, false, 0});
    found.push_back({rows * outputs, kFloat, true, 0});
    return found;
  }
  static typename Body::Params params(const Shape& shape, char* const* to) {
    const int bias = get(shape, "bias") ? 1 : 0;
    return {reinterpret_cast<const float*>(to[0]),
            reinterpret_cast<const float*>(to[1]),
            bias ? reinterpret_cast<const float*>(to[2]) : nullptr,
            reinterpret_cast<float*>(to[2 + bias]),
            static_cast<int>(get(shape, "rows")),
            static_cast<int>(get(shape, "outputs")),
            static_cast<int>(get(shape, "depth")),
            static_cast<int>(get(shape, "relu"))};
  }
  static long long units(const Shape& shape) {
    return ceil_of(get(shape, "rows"), 128) * ceil_of(get(shape, "outputs"), kTileN);
  }
  static std::string text(const Shape& shape) {
    return "GemmProblem(" + listed(shape, ", ") + ", " + dtype_text(kFloat) + ")";
  }
  static std::string kernel_class() { return "gemm float32"; }
  static double flop(const Shape& shape) {
    return 2.0 * get(shape, "rows") * get(shape, "outputs") * get(shape, "depth");
  }
};

// Another tile for a side, which is faster where an SM has the registers for it, and writes the same bits; mostly none.
template <class Side>
struct LargerTile {
  typedef void Tile;
};
#if NITRO_SM >= 80
template <>
struct LargerTile<GemmSide<64>> {
  typedef GemmSide<128> Tile;
};
#endif

// The tiles of a convolution by its element type.
template <typename Element, int kFilter>
struct ConvolutionTile;
template <int kFilter>
struct ConvolutionTile<float, kFilter> {
  static constexpr int kStages = kAsync ? 3 : 2;
  static constexpr int kBlocks = 2;
  static constexpr int kTileN = 64;
  typedef nitro::SimtConvolution<kFilter, 128, 64, 256, kStages, kAsync, 4> Body;
  static std::string shape_name() { return "128x64_t256_"; }
};
// Slabs of 64 channels where two blocks of them fit into the shared memory of an SM.
constexpr bool kDeep = NITRO_SM == 90 || NITRO_SM == 100 || NITRO_SM == 101;
template <int kFilter>
struct ConvolutionTile<nitro::half_t, kFilter> {
  static constexpr int kStages = kAsync ? 3 : 2;
  static constexpr int kBlocks = kAsync ? 2 : 1;
  static constexpr int kTileN = 128;
  typedef nitro::TensorConvolution<kFilter, 128, 128, 64, 32, kDeep ? 64 : 32, kStages, kAsync, kAsync, 8, false> Body;
  static std::string shape_name() {
    return std::string("128x128_") + (kAsync ? "mma" : "wmma") + "64x32x" + (kDeep ? "64" : "32") + "_";
  }
};

template <typename Element, int kFilter>
struct ConvolutionSide : ComputeSide {
  typedef ConvolutionSide Lean;
  typedef ConvolutionSide ByBlock;
  typedef ConvolutionTile<Element, kFilter> Tile;
  typedef typename Tile::Body Body;
  static constexpr int kBlocks = Tile::kBlocks;
  static constexpr int kSums = 128 * Tile::kTileN / kThreads;
  static constexpr int kWidth = Named<Element>::kWidth;
  static std::string name() {
    return "conv" + number(kFilter) + "_" + Named<Element>::text() + "_" + Tile::shape_name() +
           copies_name(Tile::kStages) + "_w" + number(kWidth);
  }
  static Shape shape(int images, int side, int channels, int outputs, int bias, int relu) {
    return {{"images", images},     {"height", side},   {"width", side}, {"channels", channels},
            {"outputs", outputs},   {"stride", 1},      {"padding", kFilter == 3 ? 1 : 0},
            {"bias", bias},         {"relu", relu}};
  }
  static long long out(const Shape& shape, const char* extent) {
    const long long inside = get(shape, extent) + 2 * get(shape, "padding") - kFilter;
    return inside < 0 ? 0 : inside / get(shape, "stride") + 1;
  }
  static long long rows(const Shape& shape) {
    return get(shape, "images") * out(shape, "height") * out(shape, "width");
  }
  static void check(const Shape& shape) {
    need_width(name(), "channels", get(shape, "channels"), kWidth);
    need(get(shape, "padding") <= (kFilter == 3 ? 1 : 0),
         "a padding of " + number(get(shape, "padding")) + " around a " + number(kFilter) + "x" + number(kFilter) +
             " filter is not built; pad the images.");
    need(rows(shape) > 0, "the images are smaller than the filter; give larger ones.");
    need(rows(shape) <= 2147483647ll && kFilter * get(shape, "width") * get(shape, "channels") <= 2147483647ll,
         "the images have more pixels than the bodies count; give fewer.");
  }
  static std::vector<Array> arrays(const Shape& shape) {
    const Type type = Named<Element>::kType;
    const long long channels = get(shape, "channels"), outputs = get(shape, "outputs");
    std::vector<Array> found = {
        {get(shape, "images") * get(shape, "height") * get(shape, "width") * channels, type, false, 0},
        {outputs * kFilter * kFilter * channels, type, false, 0}};
    if (get(shape, "bias")) found.push_back({outputs, type, false, 0});
    found.push_back({rows(shape) * outputs, type, true, 0});
    return found;
  }
  static typename Body::Params params(const Shape& shape, char* const* to) {
    const int bias = get(shape, "bias") ? 1 : 0;
    return {reinterpret_cast<const Element*>(to[0]),
            reinterpret_cast<const Element*>(to[1]),
            bias ? reinterpret_cast<const Element*>(to[2]) : nullptr,
            reinterpret_cast<Element*>(to[2 + bias]),
            static_cast<int>(rows(shape)),
            static_cast<int>(get(shape, "outputs")),
            static_cast<int>(get(shape, "channels")),
            static_cast<int>(get(shape, "height")),
            static_cast<int>(get(shape, "width")),
            static_cast<int>(out(shape, "height")),
            static_cast<int>(out(shape, "width")),
            static_cast<int>(get(shape, "stride")),
            static_cast<int>(get(shape, "padding")),
            static_cast<int>(get(shape, "relu"))};
  }
  static long long units(const Shape& shape) {
    return ceil_of(rows(shape), 128) * ceil_of(get(shape, "outputs"), Tile::kTileN);
  }
  static std::string text(const Shape& shape) {
    Shape whole = shape;
    whole.insert(whole.begin() + 5, {"filter_size", kFilter});
    return "ConvolutionProblem(" + listed(whole, ", ") + ", " + dtype_text(Named<Element>::kType) + ")";
  }
  static std::string kernel_class() {
    return "convolution_" + number(kFilter) + "x" + number(kFilter) +
           (Named<Element>::kType == kHalf ? " float16" : " float32");
  }
  static double flop(const Shape& shape) {
    return 2.0 * rows(shape) * get(shape, "outputs") * kFilter * kFilter * get(shape, "channels");
  }
};

// ---- measuring ------------------------------------------------------------------------------------------------------

// More local memory than this, which is spilled registers, never paid for a fused kernel.
static const size_t kMostSpilledBytes = 160;

struct Rung {
  int samples;
  int repeats;
  int keep;
};
// RUNGS of tuner.py; and of study.py the repeats of a judging sample and what counts as a tie.
static const std::vector<Rung> kRungs = {{2, 2, 8}, {4, 2, 3}, {9, 3, 1}};
static const int kJudgingRepeats = 3;
static const double kTie = 0.02;

static const std::vector<std::string> kAlone = {"first", "second"};
static const std::vector<std::string> kSimple = {"sequential", "streams", "graph"};
static const std::vector<std::string> kUnfused = {"sequential", "streams", "graph", "elastic"};
static const std::vector<std::string> kFused = {"intra_block", "inter_block_static", "inter_block_ticket",
                                                "intra_thread"};
static bool is_in(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}
static std::vector<std::string> ours() {
  std::vector<std::string> all = kUnfused;
  all.insert(all.end(), kFused.begin(), kFused.end());
  return all;
}

struct Options {
  std::vector<std::string> pairs;
  std::vector<std::string> families;
  Shape sizes;
  int samples = 21;
  double balance = 0;
  int device = 0;
  std::string json;
  bool list = false;
};

struct Way {
  std::string name;
  std::string family;
  std::function<void(int)> submit;
  int launches;
};

static double percentile(std::vector<double> values, double part) {
  std::sort(values.begin(), values.end());
  const double at = part * static_cast<double>(values.size() - 1);
  const size_t below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (values[above] - values[below]) * (at - static_cast<double>(below));
}
static double median(const std::vector<double>& values) { return percentile(values, 0.5); }
static double rounded(double value, double unit) { return nearbyint(value / unit) * unit; }

struct Timing {
  std::string name;
  std::string family;
  std::vector<double> samples_us;

  double median_us() const { return median(samples_us); }
};

// What the rule of cases.py knew of a pair, and what it decided.
struct Decision {
  double us[2];
  double over_ridge[2];
  bool co_resident;
  double predicted_gain;
  bool accepted;
};

struct Ranked {
  std::string name;
  std::string family;
  int rung;
  double median_us;
};

typedef std::map<std::string, double> Clocks;

struct Result {
  std::string name, problems[2], kernel_class;
  double ratio = 0;
  Decision decision;
  std::vector<Timing> tuning, judging;
  std::string choice;
  bool right = true;
  std::vector<Ranked> table;
  int dropped = 0;
  std::vector<std::string> failures;
  std::vector<std::pair<std::string, Clocks>> clocks;
  double seconds = 0;

  // The judging samples of the way that won some families on tuning samples; null if none ran.
  const Timing* winner(const std::vector<std::string>& families) const {
    const Timing* best = nullptr;
    for (const Timing& one : tuning)
      if (is_in(families, one.family) && (!best || one.median_us() < best->median_us())) best = &one;
    for (const Timing& one : judging)
      if (best && one.name == best->name) return &one;
    return nullptr;
  }
};

struct BuiltPair {
  std::string name, bodies[2];
  Shape first, second;
  bool scales;  // whether --balance can make its second half longer or shorter
  std::function<Result(Device&, const Options&, const Shape&, const Shape&)> run;
};

static double predicted_us(double first, double second) {
  const double p = 1.8;
  return pow(pow(first, p) + pow(second, p), 1 / p);
}

// `is_accepted` of cases.py.
static bool is_accepted(const Decision& known) {
  const double intense = std::max(known.over_ridge[0], known.over_ridge[1]);
  const double modest = std::min(known.over_ridge[0], known.over_ridge[1]);
  const double shorter = std::min(known.us[0], known.us[1]), longer = std::max(known.us[0], known.us[1]);
  return intense >= 0.75 && modest <= 0.25 && known.co_resident && shorter >= 0.35 * longer &&
         known.predicted_gain >= 1.15;
}

static void check_sizes(const Shape& shape) {
  for (const auto& one : shape) {
    const bool flag = one.first == "bias" || one.first == "relu";
    const long long least = flag || one.first == "padding" ? 0 : 1;
    const long long most = flag ? 1 : one.first == "count" ? 1ll << 40 : 2147483647ll;
    need(one.second >= least && one.second <= most, one.first + " is " + number(one.second) + ", but it goes from " +
                                                        number(least) + " to " + number(most) + "; choose another.");
  }
}

// Rotating sets of the arrays of a pair.
class Inputs {
 public:
  int count = 0;
  std::vector<Array> arrays[2];
  std::vector<std::vector<char*>> sets[2];  // by role, set, array
  std::vector<char*> reference[2];          // of each array that is an output, what the body alone wrote

  ~Inputs() {
    for (char* one : held_) cudaFree(one);
  }

  void allocate(Device& device, const std::vector<Array>& first, const std::vector<Array>& second) {
    arrays[0] = first;
    arrays[1] = second;
    long long footprint = 0, outputs = 0;
    for (const auto& side : arrays)
      for (const Array& array : side) {
        footprint += array.bytes();
        if (array.output) outputs += array.bytes();
      }
    size_t available = 0, total = 0;
    CHECK(cudaMemGetInfo(&available, &total));
    const long long usable = static_cast<long long>(available * 0.8) - outputs;
    const long long wanted = std::max(3ll, ceil_of(2 * device.l2_bytes, footprint) + 1);
    count = static_cast<int>(std::min({wanted, usable / footprint, 64ll}));
    if (count < 1)
      throw Failure(kToolFailed, "a set of inputs takes " + number((footprint + outputs) >> 20) + " MiB, and " +
                                     device.name + " has " + number(static_cast<long long>(available >> 20)) +
                                     " MiB left; choose smaller shapes.");
    for (int role = 0; role < 2; role++) {
      for (int set = 0; set < count; set++) {
        sets[role].push_back({});
        for (const Array& array : arrays[role]) {
          sets[role].back().push_back(block(array.bytes()));
          if (!array.output) fill(device, array, sets[role].back().back(), role * 100 + set);
        }
      }
      for (const Array& array : arrays[role]) reference[role].push_back(array.output ? block(array.bytes()) : nullptr);
    }
    wrong_ = reinterpret_cast<unsigned int*>(block(sizeof(unsigned int)));
    device.synchronize();
  }

  void poison(Device& device) {
    for (int role = 0; role < 2; role++)
      for (size_t i = 0; i < arrays[role].size(); i++)
        if (arrays[role][i].output)
          CHECK(cudaMemsetAsync(sets[role][0][i], 0xff, arrays[role][i].bytes(), device.main_stream));
    device.synchronize();
  }

  // Keeps what the first set holds as what is right.
  void keep(Device& device, int role) {
    for (size_t i = 0; i < arrays[role].size(); i++)
      if (arrays[role][i].output)
        CHECK(cudaMemcpy(reference[role][i], sets[role][0][i], arrays[role][i].bytes(), cudaMemcpyDeviceToDevice));
    device.synchronize();
  }

  // How many elements of a role's outputs are not those that were kept, or were never written.
  unsigned int wrong(Device& device, int role, bool against_kept) {
    CHECK(cudaMemset(wrong_, 0, sizeof(unsigned int)));
    device.synchronize();
    for (size_t i = 0; i < arrays[role].size(); i++) {
      const Array& array = arrays[role][i];
      if (!array.output) continue;
      char* left = sets[role][0][i];
      char* right = against_kept ? reference[role][i] : nullptr;
      if (array.type == kHalf)
        make_work(entry(count_wrong_kernel<unsigned short>), helper_grid(array.elements), kHelperThreads, 0,
                  reinterpret_cast<const unsigned short*>(left), reinterpret_cast<const unsigned short*>(right),
                  array.elements, wrong_)
            .submit(device.main_stream);
      else
        make_work(entry(count_wrong_kernel<unsigned int>), helper_grid(array.elements), kHelperThreads, 0,
                  reinterpret_cast<const unsigned int*>(left), reinterpret_cast<const unsigned int*>(right),
                  array.elements, wrong_)
            .submit(device.main_stream);
    }
    device.synchronize();
    unsigned int found = 0;
    CHECK(cudaMemcpy(&found, wrong_, sizeof(found), cudaMemcpyDeviceToHost));
    return found;
  }

  char* block(long long bytes) {
    void* made = nullptr;
    CHECK(cudaMalloc(&made, static_cast<size_t>(std::max(bytes, 1ll))));
    held_.push_back(static_cast<char*>(made));
    return held_.back();
  }

 private:
  std::vector<char*> held_;
  unsigned int* wrong_ = nullptr;

  void fill(Device& device, const Array& array, char* to, unsigned int seed) {
    const int grid = helper_grid(array.elements);
    if (array.type == kIds)
      make_work(entry(fill_ids_kernel), grid, kHelperThreads, 0, reinterpret_cast<int*>(to), array.elements, seed,
                array.limit)
          .submit(device.main_stream);
    else if (array.type == kHalf)
      make_work(entry(fill_kernel<nitro::half_t>), grid, kHelperThreads, 0, reinterpret_cast<nitro::half_t*>(to),
                array.elements, seed)
          .submit(device.main_stream);
    else
      make_work(entry(fill_kernel<float>), grid, kHelperThreads, 0, reinterpret_cast<float*>(to), array.elements, seed)
          .submit(device.main_stream);
  }
};

// All ways to run one pair. A kernel's launches are made once for each set of inputs.
template <class First, class Second>
class Bench {
  typedef typename LargerTile<First>::Tile OtherTile;

 public:
  Bench(Device& device, const Options& options, const Shape& first, const Shape& second)
      : device_(device), options_(options), shapes_{first, second} {
    inputs_.allocate(device, First::arrays(first), Second::arrays(second));
    first_alone_ = alone<First>(0);
    second_alone_ = alone<Second>(1);
    MoreTiles<OtherTile>::prepare(*this);
  }
  ~Bench() {
    for (auto& one : graphs_) cudaGraphExecDestroy(one);
  }

  // Times of the two bodies alone, with the better tile, for balancing.
  void alone_us(double* first, double* second) {
    std::vector<Way> ways = {alone_way<Second>(1, second_alone_), alone_way<First>(0, first_alone_)};
    MoreTiles<OtherTile>::add_alone(*this, ways);
    for (const Way& way : ways) way.submit(0);
    device_.synchronize();
    const auto samples = sample(ways, 4, 2);
    *second = *std::min_element(samples[0].begin(), samples[0].end());
    *first = *std::min_element(samples[1].begin(), samples[1].end());
    for (size_t i = 2; i < ways.size(); i++)
      *first = std::min(*first, *std::min_element(samples[i].begin(), samples[i].end()));
  }

  Result run(const std::string& pair) {
    const auto begin = std::chrono::steady_clock::now();
    Result result;
    result.name = pair;
    result.problems[0] = First::text(shapes_[0]);
    result.problems[1] = Second::text(shapes_[1]);
    result.kernel_class = First::kernel_class();
    result.ratio = options_.balance;
    result.clocks.emplace_back("before tuning", clocks_mhz(device_));
    keep_what_is_right();
    std::vector<Way> ways;
    for (Way& way : all_ways())
      if (is_right(way)) ways.push_back(way);
    check_counters();
    const std::vector<Way> winners = tune(ways, result);
    result.clocks.emplace_back("before judging", clocks_mhz(device_));
    const auto samples = sample(winners, options_.samples, kJudgingRepeats);
    check_counters();
    result.clocks.emplace_back("after judging", clocks_mhz(device_));
    for (size_t i = 0; i < winners.size(); i++) result.judging.push_back(timing(winners[i], samples[i]));
    decide(result);
    result.right = right_;
    result.dropped = dropped_;
    result.failures = failures_;
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return result;
  }

 private:
  Device& device_;
  const Options& options_;
  Shape shapes_[2];
  Inputs inputs_;
  std::vector<Work> first_alone_, second_alone_, larger_alone_;
  std::vector<cudaGraphExec_t> graphs_;
  std::vector<std::pair<std::string, unsigned int*>> counters_;
  std::vector<std::string> failures_;
  int dropped_ = 0;
  bool co_resident_ = false;
  bool right_ = true;

  static Timing timing(const Way& way, const std::vector<double>& samples) {
    Timing found = {way.name, way.family, {}};
    for (const double one : samples) found.samples_us.push_back(rounded(one, 0.001));
    return found;
  }

  // Timings of each way, taken in turn, forwards and backwards.
  std::vector<std::vector<double>> sample(const std::vector<Way>& ways, int samples, int repeats) {
    std::vector<std::vector<double>> taken(ways.size());
    for (int round = 0; round < samples; round++)
      for (size_t i = 0; i < ways.size(); i++) {
        const size_t one = round % 2 == 0 ? i : ways.size() - 1 - i;
        taken[one].push_back(time_us(ways[one], round * repeats, repeats));
      }
    return taken;
  }

  // The winner of each family by successive halving, the fastest first.
  std::vector<Way> tune(const std::vector<Way>& entries, Result& result) {
    struct Entrant {
      const Way* way;
      int rung;
      double median_us;
      std::vector<double> samples;
    };
    std::vector<Entrant> entrants;
    std::vector<std::string> families;
    for (const Way& way : entries) {
      entrants.push_back({&way, -1, 0, {}});
      if (!is_in(families, way.family)) families.push_back(way.family);
    }
    std::vector<size_t> left(entrants.size());
    for (size_t i = 0; i < left.size(); i++) left[i] = i;
    for (size_t rung = 0; rung < kRungs.size(); rung++) {
      std::vector<Way> running;
      for (const size_t i : left) running.push_back(*entrants[i].way);
      const auto samples = sample(running, kRungs[rung].samples, kRungs[rung].repeats);
      for (size_t n = 0; n < left.size(); n++)
        entrants[left[n]] = {entrants[left[n]].way, static_cast<int>(rung), median(samples[n]), samples[n]};
      std::stable_sort(left.begin(), left.end(),
                       [&](size_t one, size_t other) { return entrants[one].median_us < entrants[other].median_us; });
      std::vector<size_t> kept;
      for (const std::string& family : families) {
        int room = kRungs[rung].keep;
        for (const size_t i : left)
          if (entrants[i].way->family == family && room-- > 0) kept.push_back(i);
      }
      left = kept;
    }
    std::stable_sort(entrants.begin(), entrants.end(), [](const Entrant& one, const Entrant& other) {
      return one.rung != other.rung ? one.rung > other.rung : one.median_us < other.median_us;
    });
    std::vector<Way> winners;
    families.clear();
    for (const Entrant& one : entrants) {
      result.table.push_back({one.way->name, one.way->family, one.rung, one.median_us});
      if (is_in(families, one.way->family)) continue;
      families.push_back(one.way->family);
      winners.push_back(*one.way);
      result.tuning.push_back(timing(*one.way, one.samples));
      if (result.choice.empty() && is_in(ours(), one.way->family)) result.choice = one.way->name;
    }
    return winners;
  }

  // Decides by the rule, from tuning samples of the bodies alone and from resources. The ridges are those of cases.py.
  void decide(Result& result) {
    const double flop[2] = {First::flop(shapes_[0]), Second::flop(shapes_[1])};
    const double bytes[2] = {streamed_bytes<First>(shapes_[0]), streamed_bytes<Second>(shapes_[1])};
    Decision& known = result.decision;
    for (int role = 0; role < 2; role++) {
      const double ridge = (inputs_.arrays[role].back().type == kHalf ? 300e12 : 46e12) / 4e12;
      known.over_ridge[role] = flop[role] / bytes[role] / ridge;
      for (const Timing& one : result.tuning)
        if (one.family == kAlone[role]) known.us[role] = one.median_us();
    }
    known.co_resident = co_resident_;
    known.predicted_gain = (known.us[0] + known.us[1]) / predicted_us(known.us[0], known.us[1]);
    known.accepted = is_accepted(known);
  }

  template <class Side>
  typename Side::Body::Params params(int role, int set) {
    return Side::params(shapes_[role], inputs_.sets[role][set].data());
  }
  template <class Side>
  Range range(int role) {
    return {0, static_cast<int>(Side::units(shapes_[role]))};
  }
  template <class Side>
  int blocks(int role, int threads) {
    const int units = range<Side>(role).count;
    return Side::kCompute ? units : static_cast<int>(ceil_of(units, threads / 32));
  }

  // A counter buffer of its own for every kernel: launches leave it at zero.
  Counters* counters(const std::string& name) {
    const size_t bytes = sizeof(Counters) + sizeof(unsigned int) * (device_.sm_ids - 1);
    unsigned int* words = reinterpret_cast<unsigned int*>(inputs_.block(bytes));
    CHECK(cudaMemset(words, 0, bytes));
    counters_.emplace_back(name, words);
    return reinterpret_cast<Counters*>(words);
  }
  void check_counters() {
    device_.synchronize();
    for (const auto& one : counters_) {
      unsigned int words[4];
      CHECK(cudaMemcpy(words, one.second, sizeof(words), cudaMemcpyDeviceToHost));
      if (words[0] || words[1] || words[2] || words[3])
        throw Failure(kToolFailed, one.first + ": the work counters were disturbed, so its results are not to be " +
                                       "trusted; run it again, with nothing else on the GPU.");
    }
  }

  // How many blocks fit on an SM; 0 with a note where the kernel cannot be launched here.
  int resident(const std::string& name, const void* kernel, int threads, int shared_bytes) {
    if (shared_bytes > device_.shared_bytes_per_block) {
      failures_.push_back(name + ": needs " + number(shared_bytes) + " bytes of shared memory a block, " +
                          device_.name + " has " + number(device_.shared_bytes_per_block) + ".");
      return 0;
    }
    if (shared_bytes > 48 * 1024)
      CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
    int found = 0;
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&found, kernel, threads, shared_bytes));
    if (found == 0) failures_.push_back(name + ": no block of it fits on an SM of " + device_.name + ".");
    return found;
  }

  template <class Side>
  std::vector<Work> alone(int role) {
    constexpr int kShared = SharedOf<Side, Side::kThreads>::kBytes;
    const void* kernel = entry(alone_kernel<typename Side::Body, Side::kThreads, Side::kBlocks>);
    if (!resident(Side::name(), kernel, Side::kThreads, kShared))
      throw Failure(kToolFailed, failures_.back().substr(0, failures_.back().size() - 1) + "; choose another pair.");
    std::vector<Work> works;
    for (int set = 0; set < inputs_.count; set++)
      works.push_back(make_work(kernel, blocks<Side>(role, Side::kThreads), Side::kThreads, kShared,
                                params<Side>(role, set), range<Side>(role)));
    return works;
  }

  void put(const std::vector<Work>& works, int index, cudaStream_t stream) {
    works[index % inputs_.count].submit(stream);
  }

  template <class One, class Two>
  static std::string both() {
    return ": " + One::name() + " + " + Two::name();
  }

  Way way(const std::string& name, const std::string& family, const std::vector<Work>& works) {
    return {name, family, [this, works](int i) { put(works, i, device_.main_stream); }, 1};
  }
  template <class Side>
  Way alone_way(int role, const std::vector<Work>& works) {
    return way(kAlone[role] + ": " + Side::name(), kAlone[role], works);
  }

  // Submits to two streams that end together. The GPU meets both when everything has been submitted, and would take
  // them in an order that depends on its queues. So, unless both shall start at once, the stream of the later half
  // waits for the other one to be at its half. (Branches of a graph have no order.)
  void fork(cudaStream_t main, cudaStream_t one, cudaStream_t two, const std::vector<Work>& first,
            const std::vector<Work>& second, bool second_first, bool at_once, int index) {
    const cudaStream_t early = second_first ? two : one, late = second_first ? one : two;
    device_.join(early, main);
    device_.join(late, at_once ? main : early);
    if (second_first) put(second, index, two);
    put(first, index, one);
    if (!second_first) put(second, index, two);
    device_.join(main, one);
    device_.join(main, two);
  }

  Way beside(const std::string& name, const char* family, const std::vector<Work>& first,
             const std::vector<Work>& second, bool second_first, bool at_once, bool urgent) {
    return {name, family,
            [this, first, second, second_first, at_once, urgent](int i) {
              fork(device_.main_stream, device_.streams[0], urgent ? device_.urgent : device_.streams[1], first, second,
                   second_first, at_once, i);
            },
            6};
  }

  bool wanted(const std::string& family) const {
    return options_.families.empty() || is_in(options_.families, family);
  }

  std::vector<Way> all_ways() {
    std::vector<Way> ways = {alone_way<First>(0, first_alone_), alone_way<Second>(1, second_alone_)};
    MoreTiles<OtherTile>::add_alone(*this, ways);
    add_persistent<First>(ways, 0, {1, 2, 3, 4});
    MoreTiles<OtherTile>::add_persistent(*this, ways);
    // Few blocks of it are to keep the memory busy: as it is alone, it would have little on its way in them.
    add_persistent<Lean>(ways, 1, {1, 2, 3, 4, 6});
    IfStaged<Second::kCanBeStaged>::add_persistent(*this, ways);
    add_simple<First>(ways, first_alone_);
    MoreTiles<OtherTile>::add_simple(*this, ways);
    add_fused(ways);
    MoreTiles<OtherTile>::add_fused(*this, ways);
    return ways;
  }

  // What a programmer does without touching kernels, with a tile of the first side.
  template <class One>
  void add_simple(std::vector<Way>& ways, const std::vector<Work>& ones) {
    const std::string names = both<One, Second>();
    if (wanted("sequential"))
      ways.push_back({"sequential" + names, "sequential",
                      [this, &ones](int i) {
                        put(ones, i, device_.main_stream);
                        put(second_alone_, i, device_.main_stream);
                      },
                      2});
    if (wanted("streams")) {
      const char* family = "streams";
      ways.push_back(beside("streams (at once)" + names, family, ones, second_alone_, false, true, false));
      ways.push_back(beside("streams (first, second)" + names, family, ones, second_alone_, false, false, false));
      ways.push_back(beside("streams (second, first)" + names, family, ones, second_alone_, true, false, false));
      ways.push_back(beside("streams (second urgent)" + names, family, ones, second_alone_, false, false, true));
    }
    if (wanted("graph")) {
      add_graph(ways, "graph (first, second)" + names, ones, false);
      add_graph(ways, "graph (second, first)" + names, ones, true);
    }
  }

  void add_graph(std::vector<Way>& ways, const std::string& name, const std::vector<Work>& ones, bool second_first) {
#if CUDART_VERSION >= 10010
    std::vector<cudaGraphExec_t> made;
    for (int set = 0; set < inputs_.count; set++) {
      cudaGraph_t graph;
      cudaGraphExec_t executable;
      CHECK(cudaStreamBeginCapture(device_.main_stream, cudaStreamCaptureModeRelaxed));
      fork(device_.main_stream, device_.streams[0], device_.streams[1], ones, second_alone_, second_first, false, set);
      CHECK(cudaStreamEndCapture(device_.main_stream, &graph));
#if CUDART_VERSION >= 12000
      CHECK(cudaGraphInstantiate(&executable, graph, 0));
#else
      CHECK(cudaGraphInstantiate(&executable, graph, nullptr, nullptr, 0));
#endif
      CHECK(cudaGraphDestroy(graph));
      graphs_.push_back(executable);
      made.push_back(executable);
    }
    ways.push_back({name, "graph",
                    [this, made](int i) { CHECK(cudaGraphLaunch(made[i % made.size()], device_.main_stream)); }, 1});
#else
    failures_.push_back(name + ": this CUDA has no capture of streams into graphs.");
    (void)ways;
    (void)ones;
    (void)second_first;
#endif
  }

  // A body persistent with few blocks an SM: alone, and submitted first beside the other as it is.
  template <class Side>
  void add_persistent(std::vector<Way>& ways, int role, const std::vector<int>& caps) {
    constexpr int kBytes = rounded_up(SharedOf<Side, Side::kThreads>::kBytes, 16);
    constexpr int kShared = kBytes + (Side::kCompute ? 8 : 0);
    constexpr int kBlocks = Side::kThreads <= 256 ? smaller(Side::kBlocks, 2) : larger(1, Side::kBlocks - 1);
    const std::string side = kAlone[role];
    const void* kernel = entry(persistent_kernel<typename Side::Body, Side::kThreads, kBlocks, kBytes>);
    const int fit = resident(side + " persistent", kernel, Side::kThreads, kShared);
    if (!fit) return;
    Counters* mine = counters(side + " persistent");
    for (const int cap : caps) {
      if (cap > fit) break;
      const int grid = std::min(device_.sms * cap, blocks<Side>(role, Side::kThreads));
      std::vector<Work> works;
      for (int set = 0; set < inputs_.count; set++)
        works.push_back(
            make_work(kernel, grid, Side::kThreads, kShared, params<Side>(role, set), range<Side>(role), mine));
      const std::string how = " " + side + " x" + number(cap);
      ways.push_back(way(side + how + ": " + Side::name(), side, works));
      for (const bool at_once : {false, true}) {
        if (!wanted("elastic")) break;
        const std::string name = std::string("elastic (") +
                                 (at_once ? "at once" : role ? "second, first" : "first, second") + ")" + how;
        if (role) {
          ways.push_back(beside(name + both<First, Side>(), "elastic", first_alone_, works, true, at_once, false));
          MoreTiles<OtherTile>::template add_elastic<Side>(*this, ways, name, works, at_once);
        } else {
          ways.push_back(beside(name + both<Side, Second>(), "elastic", works, second_alone_, false, at_once, false));
        }
      }
    }
  }

  // Adds a fused kernel: once as it is, or with several numbers of blocks an SM where its grid is capped.
  template <class One, class Two, class... Extra>
  void add_kernel(std::vector<Way>& ways, const std::string& name, const char* family, const void* kernel, int threads,
                  int shared_bytes, int grid, bool capped, const Extra&... extra) {
    const int fit = resident(name, kernel, threads, shared_bytes);
    cudaFuncAttributes attributes;
    CHECK(cudaFuncGetAttributes(&attributes, kernel));
    if (!fit || attributes.localSizeBytes > kMostSpilledBytes) {
      dropped_++;
      return;
    }
    if (attributes.localSizeBytes == 0) co_resident_ = true;
    for (int cap = 1; cap <= (capped ? std::min(fit, 6) : 1); cap++) {
      std::vector<Work> works;
      for (int set = 0; set < inputs_.count; set++)
        works.push_back(make_work(kernel, capped ? std::min(device_.sms * cap, grid) : grid, threads, shared_bytes,
                                  params<One>(0, set), range<One>(0), params<Two>(1, set), range<Two>(1), extra...));
      ways.push_back(way(name + (capped ? " x" + number(cap) : "") + both<One, Two>(), family, works));
    }
  }

  typedef typename Second::Lean Lean;
  typedef typename Second::ByBlock ByBlock;
  typedef typename First::Body FirstBody;
  typedef typename ByBlock::Body ByBlockBody;
  // Where a block runs one body at a time, a memory body fills the block of its partner.
  static constexpr int kOne = First::kCompute || !Second::kCompute ? First::kThreads : Second::kThreads;
  static constexpr int kTwo = Second::kCompute || !First::kCompute ? Second::kThreads : First::kThreads;
  static constexpr int kWhole = larger(kOne, kTwo);
  static constexpr int kEither = larger(SharedOf<First, kOne>::kBytes, SharedOf<ByBlock, kTwo>::kBytes);
  static constexpr int kMadeFor = First::kCompute && Second::kCompute ? smaller(First::kBlocks, Second::kBlocks)
                                  : First::kCompute                   ? First::kBlocks
                                  : Second::kCompute                  ? Second::kBlocks
                                                                      : 1;

  template <bool kDrain>
  void add_ticket(std::vector<Way>& ways) {
    const std::string name = kDrain ? "inter_block_ticket_drain" : "inter_block_ticket";
    constexpr int kBytes = rounded_up(kEither, 16);
    constexpr int kBlocks = kDrain ? larger(1, kMadeFor - 1) : kMadeFor;
    add_kernel<First, ByBlock>(
        ways, name, "inter_block_ticket",
        entry(inter_block_ticket_kernel<FirstBody, ByBlockBody, kOne, kTwo, kWhole, kBlocks, kDrain, kBytes>), kWhole,
        kBytes + 8, blocks<First>(0, kOne) + blocks<ByBlock>(1, kTwo), kDrain, counters(name), device_.sm_ids);
  }

  // `kBlocks` blocks that must fit on an SM, 0 for no such wish.
  template <class One, class Two, int kSecond, int kBlocks, bool kDrain>
  void add_intra_block_kernel(std::vector<Way>& ways) {
    const std::string name = "intra_block_" + number(kSecond) + (kDrain ? "_drain" : "") +
                             (kBlocks ? "_m" + number(kBlocks) : "");
    constexpr int kSecondShared = rounded_up(SharedOf<One, One::kThreads>::kBytes, 128);
    constexpr int kBytes = rounded_up(kSecondShared + SharedOf<Two, kSecond>::kBytes, 16);
    const int firsts = blocks<One>(0, One::kThreads), seconds = blocks<Two>(1, kSecond);
    Counters* mine = kDrain ? counters(name) : nullptr;
    add_kernel<One, Two>(ways, name, "intra_block",
                         entry(intra_block_kernel<typename One::Body, typename Two::Body, One::kThreads, kSecond,
                                                  kSecondShared, kDrain, kBytes, larger(kBlocks, 1)>),
                         One::kThreads + kSecond, kBytes + (kDrain ? 16 : 0), kDrain ? firsts + seconds : firsts,
                         kDrain, mine);
  }
  template <class One, class Two, int kSecond, int kBlocks = 0>
  void add_intra_block(std::vector<Way>& ways) {
    add_intra_block_kernel<One, Two, kSecond, kBlocks, false>(ways);
    add_intra_block_kernel<One, Two, kSecond, kBlocks, true>(ways);
  }

  // Whether so many blocks leave each thread the registers that the sums of a side need; `_has_registers` of
  // ways.py.
  template <class One>
  static constexpr bool has_registers(int threads, int blocks = 1) {
    return threads <= 1024 && smaller(smaller(255, kRegistersOfBlock / threads), 65536 / (threads * blocks)) >=
                                  larger(One::kSums, Second::kSums) + 40;
  }
  // As many threads of a memory body as leave them, up to 384.
  template <class One>
  static constexpr int most_threads() {
    return has_registers<One>(One::kThreads + 384) ? 384 : has_registers<One>(One::kThreads + 256) ? 256 : 128;
  }
  template <class One>
  static constexpr int threads_beside() {
    return has_registers<One>(One::kThreads + Second::kThreadsBeside) ? Second::kThreadsBeside : 256;
  }
  // Of warps whose pieces are on their way by themselves two do, if that leaves room for a second block.
  template <class One>
  static constexpr bool two_blocks() {
    return has_registers<One>(One::kThreads + 64, 2);
  }
  // The shared memory that so many blocks of a tile leave each of them.
  template <class One>
  static constexpr int room(int blocks) {
    return kSharedBytesOfSm / larger(blocks, 1) - kReservedSharedBytes -
           rounded_up(SharedOf<One, One::kThreads>::kBytes, 128) - 16;
  }

  // A compute body has the threads that it has. A memory body is many warps of few registers, or few with much on its
  // way.
  template <bool kSecondIsCompute, int kAny = 0>
  struct IntraBlocks {
    static void add(Bench& bench, std::vector<Way>& ways) {
      bench.template add_intra_block<First, Second, Second::kThreads>(ways);
    }
  };
  template <int kAny>
  struct IntraBlocks<false, kAny> {
    static void add(Bench& bench, std::vector<Way>& ways) {
      bench.template add_intra_block<First, Second, most_threads<First>()>(ways);
      bench.template add_intra_block<First, Lean, 128>(ways);
      bench.template add_intra_block<First, Lean, threads_beside<First>()>(ways);
      IfStaged<First::kCompute && Second::kCanBeStaged>::add_small(bench, ways);
      IfStaged<First::kCompute && Second::kCanBeStaged>::template add_large<First>(bench, ways);
    }
  };

  template <bool kPossible, int kAny = 0>
  struct IfStaged {
    static void add_persistent(Bench&, std::vector<Way>&) {}
    static void add_small(Bench&, std::vector<Way>&) {}
    template <class One>
    static void add_large(Bench&, std::vector<Way>&) {}
  };
  template <int kAny>
  struct IfStaged<true, kAny> {
    static void add_persistent(Bench& bench, std::vector<Way>& ways) {
      typedef typename StagedForm<Second, Second::kThreads, kSharedBytesOfSm - kReservedSharedBytes>::Form Form;
      bench.template add_persistent<Form>(ways, 1, {1, 2, 3, 4, 6});
    }
    static void add_small(Bench& bench, std::vector<Way>& ways) {
      constexpr int kFew = two_blocks<First>() ? 64 : 128;
      constexpr int kBlocks = two_blocks<First>() ? 2 : 0;
      constexpr int kRegisters = 65536 / ((First::kThreads + kFew) * larger(kBlocks, 1));
      typedef typename StagedForm<Second, kFew, room<First>(kBlocks), kRegisters>::Form Form;
      bench.template add_intra_block<First, Form, kFew, kBlocks>(ways);
    }
    template <class One>
    static void add_large(Bench& bench, std::vector<Way>& ways) {
      constexpr int kMany = threads_beside<One>();
      bench.template add_intra_block<One, typename StagedForm<Second, kMany, room<One>(1)>::Form, kMany>(ways);
    }
  };

  // What runs with the other tile of the first side, if there is one.
  template <class One, int kAny = 0>
  struct MoreTiles {
    static void prepare(Bench& bench) { bench.larger_alone_ = bench.template alone<One>(0); }
    static void add_alone(Bench& bench, std::vector<Way>& ways) {
      ways.push_back(bench.template alone_way<One>(0, bench.larger_alone_));
    }
    static void add_persistent(Bench& bench, std::vector<Way>& ways) {
      bench.template add_persistent<One>(ways, 0, {1, 2, 3, 4});
    }
    static void add_simple(Bench& bench, std::vector<Way>& ways) {
      bench.template add_simple<One>(ways, bench.larger_alone_);
    }
    template <class Two>
    static void add_elastic(Bench& bench, std::vector<Way>& ways, const std::string& name,
                            const std::vector<Work>& works, bool at_once) {
      ways.push_back(
          bench.beside(name + both<One, Two>(), "elastic", bench.larger_alone_, works, true, at_once, false));
    }
    static void add_fused(Bench& bench, std::vector<Way>& ways) {
      if (!bench.wanted("intra_block")) return;
      bench.template add_intra_block<One, Lean, threads_beside<One>()>(ways);
      IfStaged<Second::kCanBeStaged>::template add_large<One>(bench, ways);
    }
  };
  template <int kAny>
  struct MoreTiles<void, kAny> {
    static void prepare(Bench&) {}
    static void add_alone(Bench&, std::vector<Way>&) {}
    static void add_persistent(Bench&, std::vector<Way>&) {}
    static void add_simple(Bench&, std::vector<Way>&) {}
    template <class Two>
    static void add_elastic(Bench&, std::vector<Way>&, const std::string&, const std::vector<Work>&, bool) {}
    static void add_fused(Bench&, std::vector<Way>&) {}
  };

  // Nothing fits between the slabs of a memory body, units of a compute body fit nowhere, and short rows need shared
  // memory of their own. Where a block has few registers, a thread has none for many rows beside its sums.
  typedef typename std::conditional<kRegistersOfBlock == 65536, Lean, Second>::type BetweenSlabs;
  template <bool kPossible, int kAny = 0>
  struct IntraThread {
    static void add(Bench&, std::vector<Way>&) {}
  };
  template <int kAny>
  struct IntraThread<true, kAny> {
    static void add(Bench& bench, std::vector<Way>& ways) {
      bench.template add_kernel<First, BetweenSlabs>(
          ways, "intra_thread", "intra_thread",
          entry(intra_thread_kernel<FirstBody, typename BetweenSlabs::Body, First::kThreads>), First::kThreads,
          SharedOf<First, First::kThreads>::kBytes, bench.template blocks<First>(0, First::kThreads), false);
    }
  };

  void add_fused(std::vector<Way>& ways) {
    if (wanted("intra_block")) IntraBlocks<Second::kCompute>::add(*this, ways);
    if (wanted("inter_block_static"))
      add_kernel<First, ByBlock>(
          ways, "inter_block_static_spread", "inter_block_static",
          entry(inter_block_static_kernel<FirstBody, ByBlockBody, kOne, kTwo, kWhole, kMadeFor>), kWhole, kEither,
          blocks<First>(0, kOne) + blocks<ByBlock>(1, kTwo), false, device_.sms, static_cast<int>(nitro::kSpread));
    if (wanted("inter_block_ticket")) {
      add_ticket<false>(ways);
      add_ticket<true>(ways);
    }
    if (wanted("intra_thread"))
      IntraThread<First::kCompute && !Second::kCompute && SharedOf<Second, 32>::kBytes == 0>::add(*this, ways);
  }

  void keep_what_is_right() {
    inputs_.poison(device_);
    put(first_alone_, 0, device_.main_stream);
    put(second_alone_, 0, device_.main_stream);
    device_.synchronize();
    for (int role = 0; role < 2; role++) {
      inputs_.keep(device_, role);
      const unsigned int unwritten = inputs_.wrong(device_, role, false);
      if (unwritten)
        throw Failure(kCheckFailed, (role ? Second::name() : First::name()) + " left " + number(unwritten) +
                                        " elements unwritten or NaN, alone; the GPU or driver is at fault.");
    }
  }

  bool is_right(Way& way) {
    inputs_.poison(device_);
    way.submit(0);
    device_.synchronize();
    bool right = true;
    for (int role = 0; role < 2; role++) {
      if (way.family == kAlone[1 - role]) continue;
      const unsigned int wrong = inputs_.wrong(device_, role, true);
      if (!wrong) continue;
      failures_.push_back(way.name + ": " + number(wrong) + " elements of " + (role ? "second" : "first") +
                          " differ from those of the body alone, so it was not timed.");
      right = right_ = false;
    }
    return right;
  }

  double time_us(const Way& way, int index, int repeats) {
    // Submitting takes some microseconds a launch, on a small CPU tens.
    const unsigned int microseconds = static_cast<unsigned int>(20 * way.launches * repeats + 50);
    make_work(entry(delay_kernel), 1, 1, 0, microseconds).submit(device_.main_stream);
    CHECK(cudaEventRecord(device_.start, device_.main_stream));
    for (int repeat = 0; repeat < repeats; repeat++) way.submit(index + repeat);
    CHECK(cudaEventRecord(device_.end, device_.main_stream));
    CHECK(cudaEventSynchronize(device_.end));
    float milliseconds = 0;
    CHECK(cudaEventElapsedTime(&milliseconds, device_.start, device_.end));
    return milliseconds * 1e3 / repeats;
  }
};

// ---- pairs ----------------------------------------------------------------------------------------------------------

template <class Side>
void scale(Shape& shape, double factor) {
  const char* key = Side::scaled();
  if (!key) return;
  const long long step = std::string(key) == "count" ? 1024 : 8;
  at(shape, key) = std::max(step, static_cast<long long>(at(shape, key) * factor / step + 0.5) * step);
}

template <class First, class Second>
BuiltPair pair_of(const char* name, const Shape& first, const Shape& second) {
  BuiltPair pair;
  pair.name = name;
  pair.bodies[0] = First::name();
  pair.bodies[1] = Second::name();
  pair.first = first;
  pair.second = second;
  pair.scales = Second::scaled() != nullptr;
#ifndef NITRO_LIST_ONLY  // for a quick look at --list
  const std::string title = name;
  pair.run = [title](Device& device, const Options& options, const Shape& one, const Shape& other) {
    Shape two = other;
    const auto check_both = [&] {
      check_sizes(one);
      check_sizes(two);
      First::check(one);
      Second::check(two);
      need(First::units(one) <= 2147483647ll && Second::units(two) <= 2147483647ll,
           "a shape has more units of work than the bodies count; choose a smaller one.");
    };
    check_both();
    need(options.balance <= 0 || Second::scaled(),
         Second::name() + ": only memory-bound problems are scaled; leave --balance out.");
    // A small problem says little about a large one, so twice.
    for (int round = 0; round < 2 && options.balance > 0; round++) {
      double first_us = 0, second_us = 0;
      Bench<First, Second>(device, options, one, two).alone_us(&first_us, &second_us);
      scale<Second>(two, options.balance * first_us / std::max(second_us, 1e-3));
      check_both();
    }
    return Bench<First, Second>(device, options, one, two).run(title);
  };
#endif
  return pair;
}

// The pairs of pairs.py: ResNet-50 at 224 pixels and CLIP's text tower, batch 8.
static std::vector<BuiltPair> built_pairs() {
  typedef nitro::half_t half;
  typedef LayerNormSide<float> Norm;
  typedef SkinnyGemmSide<float> Gemv;
  typedef SoftmaxSide<float> Softmax;
  typedef EmbeddingSide<> Lookup;
  typedef ResidualGeluSide<> Gelu;
  typedef GemmSide<> Gemm;
  typedef ConvolutionSide<float, 3> Conv3;
  typedef ConvolutionSide<float, 1> Conv1;
  const Shape image = Conv3::shape(8, 28, 128, 128, 1, 1), plain = Conv3::shape(8, 28, 128, 128, 0, 0);
  std::vector<BuiltPair> pairs;
#if NITRO_PAIRS & 1
  pairs.push_back(pair_of<Gemm, Norm>("gemm+layer_norm", Gemm::shape(), Norm::shape()));
#endif
#if NITRO_PAIRS & 2
  pairs.push_back(pair_of<Conv3, Norm>("conv3x3+layer_norm", image, Norm::shape()));
#endif
#if NITRO_PAIRS & 4
  pairs.push_back(pair_of<Conv1, Norm>("conv1x1+layer_norm", Conv1::shape(8, 28, 512, 128, 1, 1), Norm::shape()));
#endif
#if NITRO_PAIRS & 8
  pairs.push_back(pair_of<Conv3, Gemv>("conv3x3+gemv", Conv3::shape(1, 28, 128, 128, 1, 1), Gemv::shape()));
#endif
#if NITRO_PAIRS & 16
  pairs.push_back(pair_of<Gemm, Gemv>("gemm+gemv", Gemm::shape(), Gemv::shape()));
#endif
#if NITRO_PAIRS & 32
  pairs.push_back(pair_of<Conv1, Lookup>("conv1x1+embedding", Conv1::shape(8, 14, 1024, 256, 1, 1),
                                         Lookup::shape()));
#endif
#if NITRO_PAIRS & 64
  pairs.push_back(pair_of<Conv3, Softmax>("conv3x3+softmax", Conv3::shape(8, 14, 256, 256, 1, 1),
                                          Softmax::shape()));
#endif
#if NITRO_PAIRS & 128
  pairs.push_back(pair_of<Conv3, Gelu>("conv3x3+residual_gelu", image, Gelu::shape()));
#endif
#if (NITRO_PAIRS & 256) && NITRO_SM >= 70
  pairs.push_back(pair_of<ConvolutionSide<half, 3>, LayerNormSide<half>>("conv3x3+layer_norm fp16", image,
                                                                        LayerNormSide<half>::shape()));
#endif
#if (NITRO_PAIRS & 512) && NITRO_SM >= 70
  Shape linear = ConvolutionSide<half, 1>::shape(1, 1, 768, 3072, 1, 0);
  at(linear, "height") = 8 * 197;
  pairs.push_back(pair_of<ConvolutionSide<half, 1>, SkinnyGemmSide<half>>("linear+gemv fp16", linear,
                                                                         SkinnyGemmSide<half>::shape()));
#endif
  // Nothing complements the other here, so fusing must not be chosen.
#if NITRO_PAIRS & 1024
  pairs.push_back(pair_of<Conv3, Conv1>("conv3x3+conv1x1 (control)", plain, Conv1::shape(8, 28, 128, 512, 0, 0)));
#endif
#if NITRO_PAIRS & 2048
  pairs.push_back(pair_of<Norm, Gelu>("layer_norm+residual_gelu (control)", Norm::shape(), Gelu::shape()));
#endif
  (void)image;
  (void)plain;
  return pairs;
}

// ---- output ---------------------------------------------------------------------------------------------------------

// JSON, a value after the other; commas and quotes are put where they belong.
class Json {
 public:
  std::string text;

  Json& open(char bracket) { return begin(), text += bracket, fresh_ = true, *this; }
  Json& close(char bracket) { return text += bracket, fresh_ = false, *this; }
  Json& key(const std::string& name) { return value(name), text += ": ", fresh_ = true, *this; }
  Json& value(const std::string& word) {
    begin();
    text += '"';
    for (const char letter : word) {
      char escaped[8];
      snprintf(escaped, sizeof(escaped), static_cast<unsigned char>(letter) < 32 ? "\\u%04x" : "%c", letter);
      text += letter == '"' || letter == '\\' ? std::string("\\") + letter : std::string(escaped);
    }
    text += '"';
    return *this;
  }
  Json& value(double real) {
    begin();
    char digits[40];
    snprintf(digits, sizeof(digits), "%.17g", real);
    text += digits;
    return *this;
  }
  Json& value(long long whole) { return begin(), text += number(whole), *this; }
  Json& flag(bool holds) { return begin(), text += holds ? "true" : "false", *this; }
  Json& null() { return begin(), text += "null", *this; }

 private:
  bool fresh_ = true;
  void begin() {
    if (!fresh_) text += ", ";
    fresh_ = false;
  }
};

static void put_clocks(Json& json, const Clocks& clocks) {
  json.open('{');
  for (const auto& one : clocks) json.key(one.first).value(one.second);
  json.close('}');
}
static void put_timings(Json& json, const char* key, const std::vector<Timing>& timings) {
  json.key(key).open('[');
  for (const Timing& one : timings) {
    json.open('{').key("name").value(one.name).key("family").value(one.family);
    json.key("median_us").value(one.median_us());
    json.key("first_quartile_us").value(percentile(one.samples_us, 0.25));
    json.key("third_quartile_us").value(percentile(one.samples_us, 0.75)).key("samples_us").open('[');
    for (const double sample : one.samples_us) json.value(sample);
    json.close(']').close('}');
  }
  json.close(']');
}

// `CaseResult` of study_results.py.
static void put_result(Json& json, const Result& result) {
  json.open('{').key("name").value(result.name).key("problems").open('[');
  json.value(result.problems[0]).value(result.problems[1]).close(']');
  json.key("kernel_class").value(result.kernel_class).key("ratio");
  result.ratio > 0 ? json.value(result.ratio) : json.null();
  const std::string control = "(control)";
  const bool is_control = result.name.size() > control.size() &&
                          result.name.compare(result.name.size() - control.size(), control.size(), control) == 0;
  const Decision& known = result.decision;
  json.key("is_control").flag(is_control).key("decision").open('{');
  json.key("first_us").value(known.us[0]).key("second_us").value(known.us[1]);
  json.key("first_over_ridge").value(known.over_ridge[0]).key("second_over_ridge").value(known.over_ridge[1]);
  json.key("is_co_resident").flag(known.co_resident).key("predicted_gain").value(known.predicted_gain);
  json.key("accepted").flag(known.accepted).close('}');
  put_timings(json, "tuning", result.tuning);
  put_timings(json, "judging", result.judging);
  json.key("choice").value(result.choice).key("same_bits");
  result.winner(kFused) || !result.right ? json.flag(result.right) : json.null();
  json.key("library_differences").open('{').close('}').key("table").open('[');
  for (const Ranked& one : result.table) {
    json.open('[').value(one.name).value(one.family).value(static_cast<long long>(one.rung));
    json.value(rounded(one.median_us, 0.01)).close(']');
  }
  json.close(']').key("dropped").value(static_cast<long long>(result.dropped)).key("failures").open('[');
  for (const std::string& one : result.failures) json.value(one);
  json.close(']').key("regret").null().key("clocks_mhz").open('{');
  for (const auto& one : result.clocks) put_clocks(json.key(one.first), one.second);
  json.close('}').key("seconds").value(rounded(result.seconds, 0.01));
  json.key("eaten_bytes_per_s").null().close('}');
}

static void put_rung(Json& json, const Rung& rung) {
  json.open('{').key("samples").value(static_cast<long long>(rung.samples));
  json.key("repeats").value(static_cast<long long>(rung.repeats));
  json.key("keep").value(static_cast<long long>(rung.keep)).close('}');
}

// The document of study_store.py, without the parts that follow from its cases: `summary` and `rows`.
static std::string as_json(const Device& device, const Options& options, const std::vector<Result>& results) {
  Json json;
  json.open('{').key("format").value(1ll).key("identity").open('{').key("device").open('{');
  json.key("name").value(device.name);
  json.key("sm").value(static_cast<long long>(device.sm)).key("sms").value(static_cast<long long>(device.sms));
  json.key("sm_ids").value(static_cast<long long>(device.sm_ids)).key("l2_bytes").value(device.l2_bytes);
  json.key("memory_bytes").value(device.memory_bytes).key("shared_bytes_per_block");
  json.value(static_cast<long long>(device.shared_bytes_per_block)).key("driver").value(number(device.driver));
  json.close('}').key("nvrtc");
  json.value("nvcc " + number(CUDART_VERSION / 1000) + "." + number(CUDART_VERSION % 1000 / 10));
  json.key("library").null().key("device_source").null().close('}').key("protocol").open('{');
  json.key("budget").null().key("tuning").open('[');
  for (const Rung& rung : kRungs) put_rung(json, rung);
  put_rung(json.close(']').key("judging"), {options.samples, kJudgingRepeats, 0});
  json.key("exhaustive").null().key("tie").value(kTie).close('}').key("cases").open('[');
  for (const Result& one : results) put_result(json, one);
  return json.close(']').close('}').text + "\n";
}

static double time_of(const Timing* timing) { return timing ? timing->median_us() : 0; }
static double over(const Timing* one, const Timing* other) { return one && other ? time_of(one) / time_of(other) : 0; }

static std::string cell(double value, int width, int digits) {
  char text[40];
  if (value > 0)
    snprintf(text, sizeof(text), " %*.*f", width, digits, value);
  else
    snprintf(text, sizeof(text), " %*s", width, "-");
  return text;
}

static void print_table(const std::vector<Result>& results) {
  size_t width = 4;
  for (const Result& one : results) width = std::max(width, one.name.size());
  printf("%-*s %5s %8s %8s %8s %8s %8s %5s %7s %8s  rule    fastest\n", static_cast<int>(width), "pair", "ratio",
         "first", "second", "simple", "elastic", "fused", "bound", "/simple", "/elastic");
  for (const Result& one : results) {
    const Timing *first = one.winner({"first"}), *second = one.winner({"second"}), *fused = one.winner(kFused);
    const Timing *simple = one.winner(kSimple), *elastic = one.winner({"elastic"}), *unfused = one.winner(kUnfused);
    const Timing* fastest = one.winner(ours());
    std::string line = cell(one.decision.us[1] / one.decision.us[0], 5, 2);
    for (const Timing* timing : {first, second, simple, elastic, fused}) line += cell(time_of(timing), 8, 1);
    line += cell(over(one.winner({"sequential"}), time_of(first) > time_of(second) ? first : second), 5, 2);
    line += cell(over(simple, fused), 7, 3) + cell(over(unfused, fused), 8, 3);
    const std::string name = fastest ? fastest->name.substr(0, fastest->name.find(": ")) : "-";
    printf("%-*s%s  %s  %s\n", static_cast<int>(width), one.name.c_str(), line.c_str(),
           one.decision.accepted ? "accept" : "reject", name.c_str());
    for (const std::string& failure : one.failures) printf("  %s\n", failure.c_str());
  }
}

// ---- the command line -----------------------------------------------------------------------------------------------

static const char kHelp[] =
    "Time pairs of layers on the GPU: in turn, in streams, as graphs, elastic, and fused.\n\n"
    "usage: bench [options]\n"
    "  --list           print the pairs that are built in, with their bodies and sizes, and end\n"
    "  --pair NAME      pair of layers; may be given several times (default: all)\n"
    "  --set SIZE=N     another size, as first.rows=4096 or second.columns=256; may be given several times\n"
    "  --strategy NAME  only these ways: sequential, streams, graph, elastic, intra_block, inter_block_static,\n"
    "                   inter_block_ticket, intra_thread; may be given several times (default: all)\n"
    "  --samples N      judging samples of a way (default: 21, at least 3)\n"
    "  --balance RATIO  scale the memory-bound layer until it takes RATIO times as long as the other\n"
    "  --device N       which GPU (default: 0)\n"
    "  --json FILE      write JSON to FILE; `-` prints it in the place of the table\n"
    "  --help           print this, and end\n\n"
    "Exit codes: 0 done, 1 a way gave wrong results, 2 wrong usage, 5 the GPU, its driver or a file failed.\n";

static long long whole_number(const std::string& option, const std::string& text, long long least, long long most) {
  char* end = nullptr;
  const long long value = strtoll(text.c_str(), &end, 10);
  need(!text.empty() && !*end && value >= least && value <= most,
       option + ": '" + text + "' is no whole number from " + number(least) + " to " + number(most) + ".");
  return value;
}

static Options options_of(int count, char** words) {
  static const std::vector<std::string> kKnown = {"--pair",    "--set",    "--strategy", "--samples",
                                                  "--balance", "--device", "--json"};
  Options options;
  for (int i = 1; i < count; i++) {
    const std::string option = words[i];
    if (option == "--help") {
      fputs(kHelp, stdout);
      exit(kPassed);
    }
    if (option == "--list") {
      options.list = true;
      continue;
    }
    need(is_in(kKnown, option), "there is no option '" + option + "'; --help lists them.");
    need(i + 1 < count, option + " needs a value; --help says which.");
    const std::string value = words[++i];
    if (option == "--pair") options.pairs.push_back(value);
    if (option == "--samples") options.samples = static_cast<int>(whole_number(option, value, 3, 100000));
    if (option == "--device") options.device = static_cast<int>(whole_number(option, value, 0, 1000));
    if (option == "--json") options.json = value;
    if (option == "--set") {
      const size_t equals = value.find('=');
      need(equals != std::string::npos && (!value.compare(0, 6, "first.") || !value.compare(0, 7, "second.")),
           "'" + value + "' sets no size; write it as first.rows=4096 or second.columns=512.");
      options.sizes.emplace_back(value.substr(0, equals),
                                 whole_number(value.substr(0, equals), value.substr(equals + 1), 0, 1ll << 40));
    }
    if (option == "--strategy") {
      std::string known;
      for (const std::string& one : ours()) known += (known.empty() ? "" : ", ") + one;
      need(is_in(ours(), value), "there is no strategy '" + value + "'; there are " + known + ".");
      options.families.push_back(value);
    }
    if (option == "--balance") {
      char* end = nullptr;
      options.balance = strtod(value.c_str(), &end);
      need(!value.empty() && !*end && options.balance > 0 && options.balance < 1e6,
           "--balance: '" + value + "' is no ratio over 0; write it as 0.9.");
    }
  }
  return options;
}

// A shape with the sizes that --set gives for its role.
static Shape changed(const BuiltPair& pair, const std::string& role, Shape shape, const Shape& changes) {
  for (const auto& change : changes) {
    if (change.first.compare(0, role.size() + 1, role + ".")) continue;
    const std::string key = change.first.substr(role.size() + 1);
    std::string known;
    bool found = false;
    for (auto& one : shape) {
      known += (known.empty() ? "" : ", ") + one.first;
      if (one.first != key) continue;
      one.second = change.second;
      found = true;
    }
    need(found, pair.name + ": " + role + " has no size '" + key + "'; it has " + known + ".");
  }
  return shape;
}

static std::vector<BuiltPair> chosen_pairs(const Options& options) {
  const std::vector<BuiltPair> built = built_pairs();
  std::vector<BuiltPair> chosen;
  std::string known;
  for (const BuiltPair& one : built) {
    known += (known.empty() ? "" : ", ") + one.name;
    if (options.pairs.empty() || is_in(options.pairs, one.name)) {
      chosen.push_back(one);
      chosen.back().first = changed(one, "first", one.first, options.sizes);
      chosen.back().second = changed(one, "second", one.second, options.sizes);
    }
  }
  for (const std::string& name : options.pairs) {
    bool found = false;
    for (const BuiltPair& one : chosen) found = found || one.name == name;
    need(found, "there is no pair '" + name + "' in this program; there are " + known + ".");
  }
  return chosen;
}

static void write_file(const std::string& path, const std::string& text) {
  FILE* file = fopen(path.c_str(), "w");
  const bool written = file && fwrite(text.data(), 1, text.size(), file) == text.size();
  if (!file || fclose(file) || !written)
    throw Failure(kToolFailed, path + ": cannot be written; choose another place.");
}

static int run(const Options& options) {
  const std::vector<BuiltPair> pairs = chosen_pairs(options);
  if (options.list) {
    for (const BuiltPair& one : pairs)
      printf("%s\n  first:  %s %s\n  second: %s %s\n", one.name.c_str(), one.bodies[0].c_str(),
             listed(one.first, ",").c_str(), one.bodies[1].c_str(), listed(one.second, ",").c_str());
    return kPassed;
  }
  Device device = open_device(options.device);
  std::vector<Result> results;
  bool right = true;
  for (const BuiltPair& one : pairs) {
    // Nobody asked for this one by name.
    if (options.balance > 0 && options.pairs.empty() && !one.scales) {
      fprintf(stderr, "%s is left out: only memory-bound problems are scaled\n", one.name.c_str());
      continue;
    }
    fprintf(stderr, "%s ...\n", one.name.c_str());
    results.push_back(one.run(device, options, one.first, one.second));
    right = right && results.back().right;
  }
  const std::string json = as_json(device, options, results);
  if (options.json == "-") {
    fputs(json.c_str(), stdout);
  } else {
    if (!options.json.empty()) write_file(options.json, json);
    print_table(results);
  }
  return right ? kPassed : kCheckFailed;
}

int main(int count, char** words) {
  try {
    return run(options_of(count, words));
  } catch (const Failure& failure) {
    fprintf(stderr, "bench: %s\n", failure.what());
    return failure.code;
  } catch (const std::bad_alloc&) {
    fprintf(stderr, "bench: this machine has no memory left; choose smaller shapes.\n");
    return kToolFailed;
  }
}
