// The Python module of the CUDA kernel: plain numbers in, errors out. The arrays that they come
// from are checked before, by birthmark/cuda.py and _core. Loading it needs no driver.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <tuple>

#include "bindings/raise.h"
#include "contract/mark_file.h"
#include "cuda/launch.h"

namespace py = pybind11;

namespace {

using birthmark::kChannels;
using birthmark::MarkFile;
using birthmark::MarkFileStatus;
using birthmark::Source;
using birthmark::Target;
using birthmark::cuda::Failure;
using birthmark::cuda::Job;
using birthmark::python::Raise;

void Check(Failure failure) {
  if (failure != nullptr) Raise("CudaFailed", failure);
}

int DeviceCount() {
  int devices = 0;
  const Failure failure = birthmark::cuda::CountDevices(devices);
  if (failure != nullptr) Raise("CudaUnavailable", failure);
  return devices;
}

int DeviceOf(std::uintptr_t address) {
  int device = -1;
  Check(birthmark::cuda::DeviceOf(reinterpret_cast<const void*>(address), device));
  return device;
}

class Embedder {
 public:
  explicit Embedder(const std::string& bytes) {
    const MarkFileStatus status = birthmark::ParseMarkFile(
        {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, mark_);
    if (status != MarkFileStatus::kOk) Raise("InvalidMarkFile", birthmark::Describe(status));
    DeviceCount();
    Check(birthmark::cuda::AllocateFlag(not_finite_));
  }
  ~Embedder() { birthmark::cuda::FreeFlag(not_finite_); }
  Embedder(const Embedder&) = delete;
  Embedder& operator=(const Embedder&) = delete;

  // What _core.lay_out says of the arrays, and where to do it.
  void Launch(const py::dict& layout, int device, std::uintptr_t stream) {
    Job job = {};
    ReadSource(layout["source"], job);
    ReadTarget(layout["target"], job);
    job.not_finite = not_finite_;
    birthmark::cuda::SetGains(mark_.gains, job);
    const auto pictures = layout["pictures"].cast<std::int64_t>();
    Check(birthmark::cuda::Launch(pictures, device, stream, job));
  }

  // Waits for the stream; false when a value was not finite since the last time.
  bool Finish(int device, std::uintptr_t stream) {
    Failure failure = nullptr;
    {
      py::gil_scoped_release release;
      failure = birthmark::cuda::Synchronize(device, stream);
    }
    Check(failure);
    const bool finite = *not_finite_ == 0;
    *not_finite_ = 0;
    return finite;
  }

 private:
  using Plane = std::tuple<std::uintptr_t, std::ptrdiff_t, std::ptrdiff_t>;
  using Numbers = std::array<float, kChannels>;

  static void ReadSource(const py::dict& said, Job& job) {
    Source& source = job.source;
    const auto planes = said["planes"].cast<std::array<Plane, kChannels>>();
    const auto scale = said["scale"].cast<Numbers>(), offset = said["offset"].cast<Numbers>();
    for (std::size_t c = 0; c < kChannels; ++c) {
      const auto [address, row, column] = planes[c];
      source.channel[c] = {reinterpret_cast<const std::uint8_t*>(address), row, column};
      source.scale[c] = scale[c];
      source.offset[c] = offset[c];
    }
    source.element = static_cast<birthmark::Element>(said["element"].cast<int>());
    source.quantum = said["quantum"].cast<float>();
    source.zero_point = said["zero_point"].cast<int>();
    source.width = said["width"].cast<int>();
    source.height = said["height"].cast<int>();
    job.picture_stride = said["picture_stride"].cast<std::ptrdiff_t>();
  }

  static void ReadTarget(const py::dict& said, Job& job) {
    Target& target = job.target;
    const auto planes = said["planes"].cast<std::array<Plane, kChannels>>();
    const auto scale = said["scale"].cast<Numbers>(), offset = said["offset"].cast<Numbers>();
    const auto apart = said["picture_strides"].cast<std::array<std::ptrdiff_t, kChannels>>();
    for (std::size_t p = 0; p < kChannels; ++p) {
      const auto [address, row, column] = planes[p];
      target.plane[p] = {reinterpret_cast<std::uint8_t*>(address), row, column};
      target.scale[p] = scale[p];
      target.offset[p] = offset[p];
      job.out_picture_stride[p] = apart[p];
    }
    target.colours = static_cast<birthmark::Colours>(said["colours"].cast<int>());
    target.element = static_cast<birthmark::Element>(said["element"].cast<int>());
    target.yuv =
        birthmark::kYuvWeights[said["bt709"].cast<bool>() ? 1 : 0][said["limited"].cast<bool>()];
  }

  MarkFile mark_;
  int* not_finite_ = nullptr;
};

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "The CUDA kernel of birthmark.";
  m.def("device_count", &DeviceCount, "How many cards there are. Raises CudaUnavailable.");
  m.def("device_of", &DeviceOf, py::arg("address"),
        "The card that an address belongs to, or -1. Raises CudaFailed.");
  m.def(
      "wait_for",
      [](int device, std::uintptr_t before, std::uintptr_t stream) {
        Check(birthmark::cuda::WaitFor(device, before, stream));
      },
      py::arg("device"), py::arg("before"), py::arg("stream"),
      "Let `stream` wait for what is on `before` now. Raises CudaFailed.");

  py::class_<Embedder>(m, "Embedder")
      .def(py::init<const std::string&>(), py::arg("mark"))
      .def("launch", &Embedder::Launch, py::arg("layout"), py::arg("device"), py::arg("stream"))
      .def("finish", &Embedder::Finish, py::arg("device"), py::arg("stream"));
}
