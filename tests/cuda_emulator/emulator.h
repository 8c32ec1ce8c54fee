// Runs a CUDA kernel on the processor, unmodified: enough of the language for cpp/cuda, and no
// more.
//
// The threads of a block are fibers on one stack each. They run one after another from barrier to
// barrier, in an order that the caller chooses, so that code that lacks a barrier computes
// something else in some order. Blocks run one after another as well. What this finds: barriers
// that not all threads reach, shared memory that is read before it was written (it is filled with
// garbage before each block), wrong bytes; and under the address sanitizer each access outside an
// array. What it cannot find: races between blocks, anything of the memory model, and what a warp
// does.
//
// __shared__ arrays are static, in a section of their own (-fsanitize-sections=cuda_shared lets the
// sanitizer watch them all the same).
#ifndef BIRTHMARK_CUDA_EMULATOR_EMULATOR_H_
#define BIRTHMARK_CUDA_EMULATOR_EMULATOR_H_

#include <ucontext.h>

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <source_location>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ inline
#define __shared__ static __attribute__((section("cuda_shared")))
#define __grid_constant__
#define __launch_bounds__(...)

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

using std::abs;
using std::max;
using std::min;

// --- Arithmetic: what each instruction is defined to give. ---------------------------------------
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
// Of two floats of like sign, where the sum of their doubles is exact.
inline float __fadd_rz(float a, float b) {
  const double sum = double{a} + double{b};
  const float nearest = static_cast<float>(sum);
  return std::abs(double{nearest}) > std::abs(sum) ? std::nextafter(nearest, 0.0f) : nearest;
}
inline float __saturatef(float a) { return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f; }
inline unsigned __float_as_uint(float a) {
  unsigned bits;
  std::memcpy(&bits, &a, sizeof(bits));
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float a;
  std::memcpy(&a, &bits, sizeof(a));
  return a;
}
inline unsigned __dp2a_lo(unsigned a, unsigned b, unsigned c) {
  return c + (a & 0xffffU) * (b & 0xffU) + (a >> 16) * (b >> 8 & 0xffU);
}
inline unsigned __dp2a_hi(unsigned a, unsigned b, unsigned c) { return __dp2a_lo(a, b >> 16, c); }
template <class T>
void __stcs(T* p, T value) {
  *p = value;
}

namespace cuda_emulator {

// The order in which the threads of a block run between two barriers.
enum class Order { kForwards, kBackwards, kShuffled };

class Block {
 public:
  Block(unsigned threads, std::function<void()> kernel)
      : kernel_(std::move(kernel)), threads_(threads) {
    for (Thread& thread : threads_) thread.stack = std::make_unique<char[]>(kStackBytes);
  }

  // Runs block `index` of the grid. Ends the program if its threads wait at different barriers.
  void Run(unsigned index, Order order) {
    FillSharedWithGarbage();
    blockIdx = {index, 0, 0};
    blockDim = {static_cast<unsigned>(threads_.size()), 1, 1};
    Block* const before = current_;
    current_ = this;
    for (Thread& thread : threads_) Prepare(thread);
    std::vector<unsigned> turns(threads_.size());
    for (unsigned i = 0; i < turns.size(); ++i) turns[i] = i;
    if (order == Order::kBackwards) std::reverse(turns.begin(), turns.end());
    while (true) {
      if (order == Order::kShuffled) {
        for (std::size_t i = turns.size() - 1; i > 0; --i) std::swap(turns[i], turns[Random() % i]);
      }
      for (unsigned turn : turns) Resume(turn);
      const unsigned barrier = threads_[0].barrier;
      for (const Thread& thread : threads_) {
        if (thread.barrier != barrier) {
          std::fprintf(stderr, "emulator: block %u: threads wait at different barriers\n", index);
          std::abort();
        }
      }
      if (barrier == kEnd) break;
    }
    current_ = before;
  }

  // Leaves the running thread at a barrier, which is told apart by its line.
  static void Wait(unsigned barrier) {
    Block& block = *current_;
    Thread& thread = block.threads_[block.running_];
    thread.barrier = barrier;
    block.SwitchToScheduler(thread, false);
  }

 private:
  static constexpr std::size_t kStackBytes = std::size_t{256} << 10;
  static constexpr unsigned kEnd = 0;

  struct Thread {
    std::unique_ptr<char[]> stack;
    ucontext_t context;
    unsigned barrier;
    void* fake_stack;
  };

  static void Begin() {
    Block& block = *current_;
    block.ArrivedInFiber(nullptr);
    block.kernel_();
    Thread& thread = block.threads_[block.running_];
    thread.barrier = kEnd;
    block.SwitchToScheduler(thread, true);
  }

  void Prepare(Thread& thread) {
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStackBytes;
    thread.context.uc_link = nullptr;
    thread.fake_stack = nullptr;
    makecontext(&thread.context, &Block::Begin, 0);
  }

  void Resume(unsigned index) {
    running_ = index;
    threadIdx = {index, 0, 0};
    Thread& thread = threads_[index];
#if defined(__SANITIZE_ADDRESS__)
    void* own = nullptr;
    __sanitizer_start_switch_fiber(&own, thread.stack.get(), kStackBytes);
#endif
    swapcontext(&scheduler_, &thread.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(own, nullptr, nullptr);
#endif
  }

  void SwitchToScheduler(Thread& thread, [[maybe_unused]] bool for_good) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(for_good ? nullptr : &thread.fake_stack, scheduler_stack_,
                                   scheduler_stack_bytes_);
#endif
    swapcontext(&thread.context, &scheduler_);
    ArrivedInFiber(thread.fake_stack);
  }

  void ArrivedInFiber([[maybe_unused]] void* fake_stack) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack, &scheduler_stack_, &scheduler_stack_bytes_);
#endif
  }

  static void FillSharedWithGarbage();

  unsigned Random() {
    random_ = random_ * 1664525 + 1013904223;
    return random_ >> 8;
  }

  static inline Block* current_ = nullptr;

  std::function<void()> kernel_;
  std::vector<Thread> threads_;
  ucontext_t scheduler_;
  const void* scheduler_stack_ = nullptr;
  std::size_t scheduler_stack_bytes_ = 0;
  unsigned running_ = 0;
  unsigned random_ = 1;
};

extern "C" {
// The linker's names for both ends of the section.
extern unsigned char __start_cuda_shared[];
extern unsigned char __stop_cuda_shared[];
}

// Not watched by the sanitizer: it also writes between the arrays.
__attribute__((no_sanitize("address"))) inline void Block::FillSharedWithGarbage() {
  for (volatile unsigned char* p = __start_cuda_shared; p < __stop_cuda_shared; ++p) *p = 0xa5;
}

// kernel<<<blocks, threads>>>(), where `kernel` is a call of the kernel with its arguments.
inline void Launch(unsigned blocks, unsigned threads, Order order, std::function<void()> kernel) {
  Block block(threads, std::move(kernel));
  gridDim = {blocks, 1, 1};
  for (unsigned i = 0; i < blocks; ++i) block.Run(i, order);
}

}  // namespace cuda_emulator

inline void __syncthreads(std::source_location place = std::source_location::current()) {
  cuda_emulator::Block::Wait(place.line());
}

#endif  // BIRTHMARK_CUDA_EMULATOR_EMULATOR_H_
