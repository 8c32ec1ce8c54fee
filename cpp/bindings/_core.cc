// The Python module: checks arrays, drops the GIL, calls the core. No logic of its own.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "contract/mark_file.h"
#include "embed/embedder.h"

namespace py = pybind11;

namespace {

using birthmark::Embedder;
using birthmark::Isa;
using birthmark::kOrbits;
using birthmark::kStatistics;
using birthmark::kTones;
using birthmark::MarkFile;
using birthmark::MarkFileStatus;
using birthmark::Source;
using birthmark::Workspace;
using Bytes = py::array_t<std::uint8_t>;

[[noreturn]] void Raise(const char* error, const std::string& message) {
  const py::object type = py::module_::import("birthmark.errors").attr(error);
  PyErr_SetString(type.ptr(), message.c_str());
  throw py::error_already_set();
}

// An argument that must be an array; pybind's own message would print what it is instead.
py::array CheckedArray(const py::object& object, const char* what) {
  if (!py::isinstance<py::array>(object)) {
    Raise("InvalidArray", std::string(what) + " must be a numpy array, not " +
                              py::str(py::type::of(object).attr("__name__")).cast<std::string>());
  }
  return py::reinterpret_borrow<py::array>(object);
}

// An argument that must be bytes; its content is a secret that no message may show.
std::string CheckedBytes(const py::object& object, const char* error, const char* what) {
  if (!py::isinstance<py::bytes>(object)) {
    Raise(error, std::string(what) + " must be bytes, not " +
                     py::str(py::type::of(object).attr("__name__")).cast<std::string>());
  }
  return py::reinterpret_borrow<py::bytes>(object);
}

std::string ShapeOf(const py::array& a) { return py::str(a.attr("shape")).cast<std::string>(); }

bool InnerRowsAreContiguous(const py::array& a, int first_axis, py::ssize_t bytes) {
  for (int axis = static_cast<int>(a.ndim()) - 1; axis >= first_axis; --axis) {
    if (a.shape(axis) > 1 && a.strides(axis) != bytes) return false;
    bytes *= a.shape(axis);
  }
  return true;
}

int CheckedSide(py::ssize_t side) {
  constexpr py::ssize_t kMost = 1 << 20;
  if (side < 1 || side > kMost) {
    Raise("InvalidArray",
          "a side of " + std::to_string(side) + " pixels: 1 to 1048576 are allowed");
  }
  return static_cast<int>(side);
}

// Checks one picture of a batch: float32 [3, h, w] planes or uint8 [h, w, 3] pixels. Rows must be
// contiguous; anything else about the strides is free. `axis` is where the picture's axes begin.
Source CheckedSource(const py::array& a, int axis) {
  Source source;
  if (py::isinstance<py::array_t<float>>(a)) {
    if (a.shape(axis) != 3) {
      Raise("InvalidArray", "float32 pictures are [3, h, w] or [n, 3, h, w], not " + ShapeOf(a));
    }
    source.height = CheckedSide(a.shape(axis + 1));
    source.width = CheckedSide(a.shape(axis + 2));
    if (!InnerRowsAreContiguous(a, axis + 2, sizeof(float))) {
      Raise("InvalidArray", "each row must be contiguous in memory; use numpy.ascontiguousarray");
    }
    if (!a.attr("flags").attr("aligned").cast<bool>()) {
      Raise("InvalidArray", "the picture is not aligned in memory; use numpy.ascontiguousarray");
    }
    source.row_stride = a.strides(axis + 1) / static_cast<py::ssize_t>(sizeof(float));
    const char* data = static_cast<const char*>(a.data());
    for (int c = 0; c < 3; ++c) {
      source.planes[c] = reinterpret_cast<const float*>(data + c * a.strides(axis));
    }
    return source;
  }
  if (py::isinstance<py::array_t<std::uint8_t>>(a)) {
    if (a.shape(axis + 2) != 3) {
      Raise("InvalidArray", "uint8 pictures are [h, w, 3] or [n, h, w, 3], not " + ShapeOf(a));
    }
    source.height = CheckedSide(a.shape(axis));
    source.width = CheckedSide(a.shape(axis + 1));
    if (!InnerRowsAreContiguous(a, axis + 1, 1)) {
      Raise("InvalidArray", "each row must be contiguous in memory; use numpy.ascontiguousarray");
    }
    source.row_stride = a.strides(axis);
    source.pixels = static_cast<const std::uint8_t*>(a.data());
    return source;
  }
  Raise("InvalidArray",
        "a picture is float32 or uint8, not " + py::str(py::dtype(a.dtype())).cast<std::string>());
}

// Moves to the next picture of a batch.
void Advance(Source& source, py::ssize_t bytes) {
  if (source.pixels != nullptr) {
    source.pixels += bytes;
    return;
  }
  for (const float*& plane : source.planes) {
    plane = reinterpret_cast<const float*>(reinterpret_cast<const char*>(plane) + bytes);
  }
}

Isa CheckedIsa(const std::optional<std::string>& kernel) {
  if (!kernel) return birthmark::BestIsa();
  const std::optional<Isa> isa = birthmark::IsaFromName(*kernel);
  if (!isa) Raise("InvalidArray", "no kernel is called '" + *kernel + "'");
  if (!birthmark::IsaIsUsable(*isa)) {
    Raise("InvalidArray", "this machine cannot run the kernel '" + *kernel + "'");
  }
  return *isa;
}

MarkFile CheckedMark(const py::object& data) {
  const std::string bytes = CheckedBytes(data, "InvalidMarkFile", "a mark");
  MarkFile mark;
  const MarkFileStatus status = birthmark::ParseMarkFile(
      {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, mark);
  if (status != MarkFileStatus::kOk) Raise("InvalidMarkFile", birthmark::Describe(status));
  return mark;
}

// True when the two byte ranges share a byte.
bool Overlap(const py::array& a, const py::array& b) {
  return py::module_::import("numpy").attr("may_share_memory")(a, b).cast<bool>();
}

// Checks `out` for pictures of the given shape, [h, w, 3] with or without a batch axis in front.
py::array CheckedOut(const py::object& given, const py::array& x, py::ssize_t pictures,
                     const Source& source) {
  const py::array out = CheckedArray(given, "out");
  const py::ssize_t axis = out.ndim() - 3;
  const bool fits = py::isinstance<Bytes>(out) && (axis == 1 || (axis == 0 && pictures == 1)) &&
                    (axis == 0 || out.shape(0) == pictures) && out.shape(axis) == source.height &&
                    out.shape(axis + 1) == source.width && out.shape(axis + 2) == 3;
  if (!fits) {
    Raise("InvalidArray",
          "out must be uint8 [" + (pictures > 1 ? std::to_string(pictures) + ", " : std::string()) +
              std::to_string(source.height) + ", " + std::to_string(source.width) + ", 3]");
  }
  if (!out.writeable()) Raise("InvalidArray", "out is read-only");
  if (!InnerRowsAreContiguous(out, static_cast<int>(axis) + 1, 1)) {
    Raise("InvalidArray", "each row of out must be contiguous in memory");
  }
  if (Overlap(x, out)) Raise("InvalidArray", "out shares memory with the input");
  return out;
}

py::array Embed(Embedder& embedder, const py::object& picture, const py::object& given) {
  const py::array x = CheckedArray(picture, "a picture");
  if (x.ndim() != 3 && x.ndim() != 4) {
    Raise("InvalidArray", "a picture has 3 axes and a batch 4, not " + ShapeOf(x));
  }
  const int axis = static_cast<int>(x.ndim()) - 3;
  const py::ssize_t pictures = axis == 1 ? x.shape(0) : 1;
  if (pictures < 1) Raise("InvalidArray", "the batch is empty");
  Source source = CheckedSource(x, axis);
  py::array out;
  if (!given.is_none()) {
    out = CheckedOut(given, x, pictures, source);
  } else if (pictures > 1) {
    out = Bytes({pictures, py::ssize_t{source.height}, py::ssize_t{source.width}, py::ssize_t{3}});
  } else {
    out = Bytes({source.height, source.width, 3});
  }
  std::uint8_t* const first = static_cast<std::uint8_t*>(out.mutable_data());
  const py::ssize_t row_bytes = out.strides(out.ndim() - 3);
  const py::ssize_t picture_bytes = pictures > 1 ? out.strides(0) : 0;
  const py::ssize_t source_bytes = pictures > 1 ? x.strides(0) : 0;
  bool finite = true;
  {
    py::gil_scoped_release release;
    for (py::ssize_t i = 0; i < pictures; ++i) {
      if (i > 0) Advance(source, source_bytes);
      finite = embedder.Embed(source, first + i * picture_bytes, row_bytes) && finite;
    }
  }
  if (!finite) Raise("InvalidArray", "the picture holds a value that is not finite (NaN or Inf)");
  return out;
}

Source CheckedPicture(const py::array& x) {
  if (x.ndim() != 3) Raise("InvalidArray", "a picture has 3 axes, not " + ShapeOf(x));
  return CheckedSource(x, 0);
}

py::array_t<std::int64_t> Statistics(const py::object& picture,
                                     const std::optional<std::string>& kernel) {
  const py::array x = CheckedArray(picture, "a picture");
  const Source source = CheckedPicture(x);
  const birthmark::Kernel& run = *birthmark::KernelFor(CheckedIsa(kernel));
  py::array_t<std::int64_t> sums({kTones, kStatistics});
  std::int64_t* const data = sums.mutable_data();
  std::memset(data, 0, sizeof(std::int64_t) * kTones * kStatistics);
  bool finite = false;
  {
    py::gil_scoped_release release;
    const auto work = std::make_unique<Workspace>();
    finite = run.statistics({source, 0, source.height, data}, *work);
  }
  if (!finite) Raise("InvalidArray", "the picture holds a value that is not finite (NaN or Inf)");
  return sums;
}

py::tuple Fields(const py::object& picture, const std::optional<std::string>& kernel) {
  const py::array x = CheckedArray(picture, "a picture");
  const Source source = CheckedPicture(x);
  const birthmark::Kernel& run = *birthmark::KernelFor(CheckedIsa(kernel));
  py::array_t<std::int16_t> texture({source.height, source.width});
  py::array_t<std::uint8_t> tone({source.height, source.width});
  py::array_t<std::int16_t> orbits({kOrbits, source.height, source.width});
  const birthmark::FieldsJob job = {source, texture.mutable_data(), tone.mutable_data(),
                                    orbits.mutable_data()};
  bool finite = false;
  {
    py::gil_scoped_release release;
    const auto work = std::make_unique<Workspace>();
    finite = run.fields(job, *work);
  }
  if (!finite) Raise("InvalidArray", "the picture holds a value that is not finite (NaN or Inf)");
  return py::make_tuple(texture, tone, orbits);
}

using Gains = py::array_t<std::int16_t, py::array::c_style | py::array::forcecast>;

py::bytes WriteMark(const py::object& id, const py::object& given) {
  const std::string name = CheckedBytes(id, "InvalidMarkFile", "a mark id");
  const py::array gains = CheckedArray(given, "the gains");
  MarkFile mark;
  if (name.size() != mark.id.size()) Raise("InvalidMarkFile", "a mark id has 16 bytes");
  if (!py::isinstance<py::array_t<std::int16_t>>(gains) || gains.ndim() != 2 ||
      gains.shape(0) != kOrbits || gains.shape(1) != kTones) {
    Raise("InvalidMarkFile", "gains are int16 [orbits, tones]");
  }
  std::memcpy(mark.id.data(), name.data(), name.size());
  std::memcpy(mark.gains, Gains(gains).data(), sizeof(mark.gains));
  if (!birthmark::GainsAreBounded(mark.gains)) {
    Raise("InvalidMarkFile", birthmark::Describe(MarkFileStatus::kGainsOutOfBounds));
  }
  const std::vector<std::uint8_t> bytes = birthmark::WriteMarkFile(mark);
  return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

py::tuple ReadMark(const py::object& data) {
  const MarkFile mark = CheckedMark(data);
  Gains gains({kOrbits, kTones});
  std::memcpy(gains.mutable_data(), mark.gains, sizeof(mark.gains));
  return py::make_tuple(py::bytes(reinterpret_cast<const char*>(mark.id.data()), mark.id.size()),
                        gains);
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "Native core of birthmark.";
  m.attr("CONTRACT_VERSION") = birthmark::kContractVersion;
  m.attr("TAP_SUM_MAX") = birthmark::kTapSumMax;
  m.attr("TONES") = kTones;
  m.attr("ORBITS") = kOrbits;

  m.def(
      "available_kernels",
      [] {
        std::vector<std::string> names;
        for (Isa isa : birthmark::kAllIsas) {
          if (birthmark::IsaIsUsable(isa)) names.emplace_back(birthmark::IsaName(isa));
        }
        return names;
      },
      "Names of the kernels that this machine can run, plainest first.");
  m.def(
      "orbits",
      [] {
        std::vector<std::pair<int, int>> orbits;
        for (const birthmark::Orbit& orbit : birthmark::kOrbitTable.at) {
          orbits.emplace_back(orbit.i, orbit.j);
        }
        return orbits;
      },
      "The orbits (i, j) in the order of the gains; tap distances are doubled.");

  py::class_<Embedder>(m, "Embedder")
      .def(py::init([](const py::object& mark, const std::optional<std::string>& kernel) {
             std::optional<MarkFile> parsed;
             if (!mark.is_none()) parsed = CheckedMark(mark);
             return std::make_unique<Embedder>(parsed, CheckedIsa(kernel));
           }),
           py::arg("mark"), py::arg("kernel") = std::nullopt)
      .def("embed", &Embed, py::arg("x"), py::arg("out") = py::none())
      .def_property_readonly(
          "kernel", [](const Embedder& e) { return std::string(birthmark::IsaName(e.isa())); });

  m.def("statistics", &Statistics, py::arg("picture"), py::arg("kernel") = std::nullopt,
        "int64 [tones, orbits + 1]: sums over the picture (contract, step 13).");
  m.def("fields", &Fields, py::arg("picture"), py::arg("kernel") = std::nullopt,
        "(texture int16 [h, w], tone uint8 [h, w], orbit sums int16 [orbits, h, w]).");
  m.def("write_mark", &WriteMark, py::arg("id"), py::arg("gains"), "Bytes of a mark file.");
  m.def("read_mark", &ReadMark, py::arg("data"), "(id, gains int16 [orbits, tones]).");
}
