// The Python module of the CUDA kernel: plain numbers in, errors out. birthmark/cuda.py checks the
// arrays that they come from. Loading it needs no driver.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>

#include "contract/mark_file.h"
#include "cuda/launch.h"

namespace py = pybind11;

namespace {

using birthmark::MarkFile;
using birthmark::MarkFileStatus;
using birthmark::cuda::Failure;
using birthmark::cuda::Format;
using birthmark::cuda::Job;

[[noreturn]] void Raise(const char* error, const std::string& message) {
  const py::object type = py::module_::import("birthmark.errors").attr(error);
  PyErr_SetString(type.ptr(), message.c_str());
  throw py::error_already_set();
}

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

  // All strides are in bytes.
  void Launch(Format format, const std::array<std::uintptr_t, 3>& planes, std::ptrdiff_t row_stride,
              std::ptrdiff_t picture_stride, std::uintptr_t out, std::ptrdiff_t out_row_stride,
              std::ptrdiff_t out_picture_stride, std::int64_t pictures, int height, int width,
              int device, std::uintptr_t stream) {
    Job job = {};
    for (std::size_t c = 0; c < 3; ++c) {
      job.planes[c] = reinterpret_cast<const unsigned char*>(planes[c]);
    }
    job.row_stride = row_stride;
    job.picture_stride = picture_stride;
    job.out = reinterpret_cast<unsigned char*>(out);
    job.out_row_stride = out_row_stride;
    job.out_picture_stride = out_picture_stride;
    job.width = width;
    job.height = height;
    job.not_finite = not_finite_;
    birthmark::cuda::SetGains(mark_.gains, job);
    Check(birthmark::cuda::Launch(format, pictures, device, stream, job));
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

  py::enum_<Format>(m, "Format")
      .value("PLANAR_FLOAT", Format::kPlanarFloat)
      .value("PLANAR_HALF", Format::kPlanarHalf)
      .value("RGB8", Format::kRgb8);
  py::class_<Embedder>(m, "Embedder")
      .def(py::init<const std::string&>(), py::arg("mark"))
      .def("launch", &Embedder::Launch, py::kw_only(), py::arg("format"), py::arg("planes"),
           py::arg("row_stride"), py::arg("picture_stride"), py::arg("out"),
           py::arg("out_row_stride"), py::arg("out_picture_stride"), py::arg("pictures"),
           py::arg("height"), py::arg("width"), py::arg("device"), py::arg("stream"))
      .def("finish", &Embedder::Finish, py::arg("device"), py::arg("stream"));
}
