// The emulator that stands in for a card: the mistakes that it must catch.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>

#include "emulator.h"
#include "tests/cpp/check.h"

namespace {

using cuda_emulator::Order;

// Each thread passes its number to the next one, with or without a barrier in between.
unsigned NeighbourSum(Order order, bool waits) {
  unsigned total = 0;
  cuda_emulator::Launch(1, 8, order, [&] {
    __shared__ unsigned passed[8];
    passed[threadIdx.x] = threadIdx.x;
    if (waits) __syncthreads();
    total = 3 * total + passed[(threadIdx.x + 1) % 8];
  });
  return total;
}

// Whether `run` ends a process of its own in another way than by returning.
bool Dies(const std::function<void()>& run) {
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    run();
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void OneThreadLeavesEarly() {
  if (threadIdx.x < 7) __syncthreads();
}
void HalfWaitElsewhere() {
  if (threadIdx.x < 4) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
#if defined(__SANITIZE_ADDRESS__)
void WritesBeyondSharedMemory() {
  __shared__ int small[8];
  volatile unsigned beyond = 8;
  if (++small[beyond] == 0) std::puts("wrapped around");
}
#endif

}  // namespace

int main() {
  CHECK(NeighbourSum(Order::kForwards, true) == NeighbourSum(Order::kForwards, true));
  CHECK(NeighbourSum(Order::kForwards, true) != NeighbourSum(Order::kForwards, false));
  CHECK(!Dies([] { NeighbourSum(Order::kBackwards, true); }));
  CHECK(Dies([] { cuda_emulator::Launch(1, 8, Order::kForwards, OneThreadLeavesEarly); }));
  CHECK(Dies([] { cuda_emulator::Launch(1, 8, Order::kForwards, HalfWaitElsewhere); }));
#if defined(__SANITIZE_ADDRESS__)
  CHECK(Dies([] { cuda_emulator::Launch(1, 8, Order::kForwards, WritesBeyondSharedMemory); }));
#endif
  std::puts("cuda_emulator: ok");
  return 0;
}
