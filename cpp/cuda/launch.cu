#include <cuda_runtime_api.h>

#include <climits>

#include "cuda/embed_kernel.cuh"
#include "cuda/launch.h"

namespace birthmark::cuda {
namespace {

Failure Describe(cudaError_t error) {
  if (error == cudaSuccess) return nullptr;
  cudaGetLastError();  // or the next call would be told of it
  return cudaGetErrorString(error);
}

// Makes a card the current one, and gives the caller's back.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    error_ = cudaGetDevice(&before_);
    if (error_ == cudaSuccess) error_ = cudaSetDevice(device);
  }
  ~OnDevice() { cudaSetDevice(before_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  cudaError_t error() const { return error_; }

 private:
  int before_ = 0;
  cudaError_t error_;
};

cudaStream_t StreamOf(std::uintptr_t stream) { return reinterpret_cast<cudaStream_t>(stream); }

template <class Reader, class Writer>
cudaError_t LaunchKernel(std::int64_t pictures, int device, cudaStream_t stream, Job& job) {
  int processors = 0, blocks_each = 0;
  cudaError_t error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks_each, EmbedKernel<Reader, Writer>,
                                                        kThreads, 0);
  if (error != cudaSuccess) return error;
  const std::int64_t slots = std::int64_t{processors} * (blocks_each < 1 ? 1 : blocks_each);
  const std::int64_t blocks = CutIntoBlocks(pictures, slots, job);
  if (blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  Prepare<Reader, Writer>(job);
  EmbedKernel<Reader, Writer><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(job);
  return cudaGetLastError();
}

}  // namespace

Failure CountDevices(int& devices) {
  devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess) return Describe(error);
  if (devices == 0) return "there is no card";
  cudaFuncAttributes attributes;
  return Describe(cudaFuncGetAttributes(&attributes, EmbedKernel<AnyReader, AnyWriter>));
}

Failure DeviceOf(const void* address, int& device) {
  device = -1;
  cudaPointerAttributes attributes;
  const cudaError_t error = cudaPointerGetAttributes(&attributes, address);
  if (error == cudaErrorInvalidValue) {  // memory that CUDA never saw
    cudaGetLastError();
    return nullptr;
  }
  if (error != cudaSuccess) return Describe(error);
  if (attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged) {
    device = attributes.device;
  }
  return nullptr;
}

Failure AllocateFlag(int*& flag) {
  void* memory = nullptr;
  const cudaError_t error =
      cudaHostAlloc(&memory, sizeof(int), cudaHostAllocPortable | cudaHostAllocMapped);
  if (error != cudaSuccess) return Describe(error);
  flag = static_cast<int*>(memory);
  *flag = 0;
  return nullptr;
}

void FreeFlag(int* flag) { cudaFreeHost(flag); }

Failure Launch(std::int64_t pictures, int device, std::uintptr_t stream, Job& job) {
  const OnDevice on(device);
  if (on.error() != cudaSuccess) return Describe(on.error());
  return Describe(WithFormats(job, [&]<class Reader, class Writer>(Formats<Reader, Writer>) {
    return LaunchKernel<Reader, Writer>(pictures, device, StreamOf(stream), job);
  }));
}

Failure WaitFor(int device, std::uintptr_t before, std::uintptr_t stream) {
  const OnDevice on(device);
  if (on.error() != cudaSuccess) return Describe(on.error());
  cudaEvent_t event = nullptr;
  cudaError_t error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  if (error != cudaSuccess) return Describe(error);
  error = cudaEventRecord(event, StreamOf(before));
  if (error == cudaSuccess) error = cudaStreamWaitEvent(StreamOf(stream), event, 0);
  cudaEventDestroy(event);  // freed once it has happened
  return Describe(error);
}

Failure Synchronize(int device, std::uintptr_t stream) {
  const OnDevice on(device);
  if (on.error() != cudaSuccess) return Describe(on.error());
  return Describe(cudaStreamSynchronize(StreamOf(stream)));
}

}  // namespace birthmark::cuda
