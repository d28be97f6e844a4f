// The part of the CUDA runtime that csrc/bench.cu calls, on a CPU, so that a C++ compiler builds and runs all of the
// program where no nvcc and no GPU is. Kernels run in the emulation (csrc/emulation.h), at once; what is timed, between
// the delay kernel of one thread and the wait for an event, is only counted, and times follow from numbers of blocks.
//
// The environment plays a device: FAKE_DEVICES (how many), FAKE_SM, FAKE_FREE_BYTES, FAKE_LAZY_ABOVE (launches
// of more threads a block than that do nothing), and FAKE_LOG, a file that gets a line for every launch:
// blocks, threads and bytes of shared memory.
#ifndef NITRO_TESTS_CUDA_RUNTIME_H
#define NITRO_TESTS_CUDA_RUNTIME_H

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#define CUDART_VERSION 13000

enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorNoDevice = 100, cudaErrorUnknown = 999 };
enum cudaMemcpyKind { cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed };

struct dim3 {
  unsigned x;
  explicit dim3(unsigned x_) : x(x_) {}
};
struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount, l2CacheSize;
  size_t sharedMemPerBlock, sharedMemPerBlockOptin;
};
struct cudaFuncAttributes {
  size_t localSizeBytes;
};
struct FakeStream {
  std::vector<std::function<void()>>* captured;
};
struct FakeEvent {
  double time;
};
typedef std::vector<std::function<void()>> FakeGraph;
typedef FakeStream* cudaStream_t;
typedef FakeEvent* cudaEvent_t;
typedef FakeGraph* cudaGraph_t;
typedef FakeGraph* cudaGraphExec_t;

namespace fake_cuda {

struct Kernel {
  std::function<void(void**)> call;
  size_t parameters;
};
struct State {
  std::map<const void*, Kernel> kernels;
  std::set<const void*> opted_in;  // to more than 48 KiB of shared memory
  FakeGraph* capturing = nullptr;
  bool timing = false;
  double now_ms = 0;
  std::string problem;
};
inline State& state() {
  static State it;
  return it;
}
inline long long setting(const char* name, long long otherwise) {
  const char* text = getenv(name);
  return text ? atoll(text) : otherwise;
}
inline int sms() { return 3; }

inline Kernel*& running() {
  static Kernel* it = nullptr;
  return it;
}
inline void run_current(void** arguments) { running()->call(arguments); }

template <class... Parameters, size_t... kAt>
void call(void (*kernel)(Parameters...), void** arguments, std::index_sequence<kAt...>) {
  kernel(*static_cast<Parameters*>(arguments[kAt])...);
}
template <class... Parameters>
void remember(void (*kernel)(Parameters...)) {
  const auto unpack = [kernel](void** arguments) {
    call(kernel, arguments, std::index_sequence_for<Parameters...>());
  };
  state().kernels[reinterpret_cast<const void*>(kernel)] = {unpack, sizeof...(Parameters)};
}

// Does work now, or when the graph that is being captured is launched.
inline void do_or_note(std::function<void()> work) {
  if (state().capturing)
    state().capturing->push_back(std::move(work));
  else
    work();
}

}  // namespace fake_cuda

#define NITRO_REGISTER_KERNEL(kernel) fake_cuda::remember(kernel)

inline const char* cudaGetErrorString(cudaError_t status) {
  if (status == cudaErrorMemoryAllocation) return "out of memory";
  if (status == cudaErrorNoDevice) return "no CUDA-capable device is detected";
  return fake_cuda::state().problem.c_str();
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = static_cast<int>(fake_cuda::setting("FAKE_DEVICES", 1));
  return *count < 0 ? cudaErrorNoDevice : cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  const long long sm = fake_cuda::setting("FAKE_SM", NITRO_EMULATION / 10);
  snprintf(properties->name, sizeof(properties->name), "a \"CPU\"");
  properties->major = static_cast<int>(sm / 10);
  properties->minor = static_cast<int>(sm % 10);
  properties->multiProcessorCount = fake_cuda::sms();
  properties->l2CacheSize = 1 << 20;
  properties->sharedMemPerBlock = 48 << 10;
  properties->sharedMemPerBlockOptin = 163 << 10;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetPCIBusId(char*, int, int) { return cudaErrorUnknown; }
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = 10020, cudaSuccess; }
inline cudaError_t cudaDeviceGetStreamPriorityRange(int* lowest, int* highest) {
  *lowest = 0;
  *highest = -5;
  return cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  *total = 1 << 30;
  *available = static_cast<size_t>(fake_cuda::setting("FAKE_FREE_BYTES", 1 << 30));
  return cudaSuccess;
}
inline cudaError_t cudaMalloc(void** made, size_t bytes) {
  return posix_memalign(made, 256, bytes) ? cudaErrorMemoryAllocation : cudaSuccess;
}
template <class Value>
cudaError_t cudaMalloc(Value** made, size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(made), bytes);
}
inline cudaError_t cudaFree(void* held) { return free(held), cudaSuccess; }
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  return memcpy(to, from, bytes), cudaSuccess;
}
inline cudaError_t cudaMemset(void* to, int byte, size_t bytes) { return memset(to, byte, bytes), cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* to, int byte, size_t bytes, cudaStream_t) {
  return cudaMemset(to, byte, bytes);
}
inline cudaError_t cudaStreamCreateWithPriority(cudaStream_t* made, unsigned, int) {
  return *made = new FakeStream(), cudaSuccess;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  return fake_cuda::state().capturing = new FakeGraph(), cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = fake_cuda::state().capturing;
  fake_cuda::state().capturing = nullptr;
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  return *made = new FakeGraph(*graph), cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return delete graph, cudaSuccess; }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  for (const auto& work : *graph) work();
  return cudaSuccess;
}
inline cudaError_t cudaEventCreate(cudaEvent_t* made) { return *made = new FakeEvent(), cudaSuccess; }
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* made, unsigned) { return cudaEventCreate(made); }
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  return event->time = fake_cuda::state().now_ms, cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return fake_cuda::state().timing = false, cudaSuccess; }
inline cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  return *ms = static_cast<float>(end->time - start->time), cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() {
  return fake_cuda::state().problem.empty() ? cudaSuccess : cudaErrorUnknown;
}
inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int) {
  return fake_cuda::state().opted_in.insert(kernel), cudaSuccess;
}
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  return attributes->localSizeBytes = 0, cudaSuccess;
}
inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) {
  return *blocks = 2, cudaSuccess;
}

inline cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** arguments, size_t shared_bytes,
                                    cudaStream_t) {
  fake_cuda::State& state = fake_cuda::state();
  if (!state.kernels.count(kernel) || grid.x < 1 || (shared_bytes > 48 << 10 && !state.opted_in.count(kernel)))
    return state.problem = "invalid argument", cudaErrorUnknown;
  const int blocks = static_cast<int>(grid.x), threads = static_cast<int>(block.x);
  if (const char* log = getenv("FAKE_LOG")) {
    FILE* file = fopen(log, "a");
    fprintf(file, "%d %d %d\n", blocks, threads, static_cast<int>(shared_bytes));
    fclose(file);
  }
  if (blocks == 1 && threads == 1) state.timing = true;
  const bool lazy = threads > fake_cuda::setting("FAKE_LAZY_ABOVE", 1024);
  fake_cuda::Kernel* known = &state.kernels[kernel];
  // CUDA copies arguments when a kernel is launched; here the program keeps them for as long as its graphs.
  std::vector<void*> held(arguments, arguments + known->parameters);
  fake_cuda::do_or_note([=]() mutable {
    fake_cuda::State& now = fake_cuda::state();
    char problem[256];
    fake_cuda::running() = known;
    if (!now.timing && !lazy &&
        nitro_emulation::run_grid(blocks, threads, static_cast<int>(shared_bytes), fake_cuda::sms(),
                                  fake_cuda::run_current, held.data(), problem, sizeof(problem)))
      now.problem = problem;
    now.now_ms += 0.001 * (blocks + 1);
  });
  return cudaSuccess;
}

#endif
