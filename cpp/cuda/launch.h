// The host's side of the CUDA kernel: what stands between the Python module and the driver. Built
// by the CUDA compiler, included by everybody else.
#ifndef BIRTHMARK_CUDA_LAUNCH_H_
#define BIRTHMARK_CUDA_LAUNCH_H_

#include <cstdint>

#include "cuda/job.h"

namespace birthmark::cuda {

// Everything below returns null, or what went wrong in one line (a string that lives for ever).
using Failure = const char*;

// Whether a driver and a card that can run the kernel are there; `devices` is the number of cards.
Failure CountDevices(int& devices);

// The card that an address belongs to; -1 when it is no memory of a card.
Failure DeviceOf(const void* address, int& device);

// A word that a kernel on any card can set and the host can read once the kernel's stream is done.
Failure AllocateFlag(int*& flag);
void FreeFlag(int* flag);

// Puts the work on `stream` of card `device` behind what is there, and does not wait. `job` needs
// everything but what is worked out here (job.h). `stream` is a cudaStream_t as CUDA's array
// interfaces count them: 1 the legacy default stream, 2 the thread's own.
Failure Launch(std::int64_t pictures, int device, std::uintptr_t stream, Job& job);

// Makes `stream` wait for what is on `before` now.
Failure WaitFor(int device, std::uintptr_t before, std::uintptr_t stream);

// Waits until `stream` is done, and says what failed on it.
Failure Synchronize(int device, std::uintptr_t stream);

}  // namespace birthmark::cuda

#endif  // BIRTHMARK_CUDA_LAUNCH_H_
