// The Python module: checks arrays, drops the GIL, calls the core. No logic of its own.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/formats.h"
#include "bindings/stream.h"
#include "contract/mark_file.h"
#include "embed/embedder.h"

namespace py = pybind11;

namespace birthmark::python {
namespace {

Isa CheckedIsa(const std::optional<std::string>& kernel) {
  if (!kernel) return BestIsa();
  const std::optional<Isa> isa = IsaFromName(*kernel);
  if (!isa) Raise("InvalidArray", "no kernel is called '" + *kernel + "'");
  if (!IsaIsUsable(*isa)) {
    Raise("InvalidArray", "this machine cannot run the kernel '" + *kernel + "'");
  }
  return *isa;
}

MarkFile CheckedMark(const py::object& data) {
  const std::string bytes = CheckedBytes(data, "InvalidMarkFile", "a mark");
  MarkFile mark;
  const MarkFileStatus status =
      ParseMarkFile({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, mark);
  if (status != MarkFileStatus::kOk) Raise("InvalidMarkFile", Describe(status));
  return mark;
}

// Runs work(0) to work(count - 1) on up to `threads` threads, this one among them.
template <class Work>
void Share(py::ssize_t count, int threads, const Work& work) {
  std::atomic<py::ssize_t> next = 0;
  const auto take = [&] {
    for (py::ssize_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::thread> helpers;
  for (py::ssize_t i = 1; i < std::min<py::ssize_t>(threads, count); ++i) {
    try {
      helpers.emplace_back(take);
    } catch (const std::exception&) {
      break;  // no thread or no memory for one is to be had: those that are there do all of it
    }
  }
  take();
  for (std::thread& helper : helpers) helper.join();
}

void CheckThreads(int threads) {
  if (threads < 1 || threads > 1024) {
    Raise("InvalidArray", "threads must be 1 to 1024, not " + std::to_string(threads));
  }
}

// So many stripes as there are threads, none of them so thin that its halo is most of its work.
int StripesFor(py::ssize_t threads, int rows) {
  return static_cast<int>(std::clamp<py::ssize_t>(threads, 1, std::max(rows / 32, 1)));
}

// The rows of a window in `stripes` parts; all but the last hold an even number.
Window Stripe(const Window& window, int index, int stripes) {
  const std::int64_t pairs = (window.last_row - window.first_row + 1) / 2;
  const auto row = [&](int i) {
    const std::int64_t at = window.first_row + 2 * (pairs * i / stripes);
    return static_cast<int>(std::min<std::int64_t>(at, window.last_row));
  };
  return {row(index), row(index + 1), window.first_column, window.last_column};
}

using Limits = std::array<std::optional<py::ssize_t>, 4>;  // of rows and of columns

// As a slice would be understood; anything that is not inside becomes an empty window.
Window WindowOf(const std::optional<Limits>& limits, const Source& source) {
  if (!limits) return {0, source.height, 0, source.width};
  const auto at = [](std::optional<py::ssize_t> limit, int otherwise) {
    return limit && (*limit < 0 || *limit > kMostSide)
               ? -1
               : static_cast<int>(limit.value_or(otherwise));
  };
  return {at((*limits)[0], 0), at((*limits)[1], source.height), at((*limits)[2], 0),
          at((*limits)[3], source.width)};
}

py::object Embed(Embedder& embedder, const py::object& x, const py::object& given, int threads,
                 const std::optional<Limits>& limits, const std::optional<InputFormat>& input,
                 const std::optional<OutputFormat>& output_format) {
  const OutputFormat& format = output_format ? *output_format : kPlainOutput;
  CheckThreads(threads);
  const View view = ViewOf(x, "a picture");
  const Pictures pictures = PicturesOf(view, input ? *input : kPlainInput);
  const Source& source = pictures.source;
  const Window window = WindowOf(limits, source);
  // Before memory is asked for. What else there is to say of a window, CheckJob says.
  if (window.first_row < 0 || window.first_row >= window.last_row ||
      window.last_row > source.height || window.first_column < 0 ||
      window.first_column >= window.last_column || window.last_column > source.width) {
    RaiseUnlessOk(Status::kWindow);
  }
  const auto shapes = ShapesOf(format, window.last_row - window.first_row,
                               window.last_column - window.first_column);
  const Output output = given.is_none()
                            ? NewOutput(shapes, format.element, pictures.count)
                            : GivenOutput(given, shapes, format.element, pictures.count, view);
  const Target target = TargetOf(format, output.views);
  RaiseUnlessOk(CheckJob({source, target, window, nullptr}));

  const int stripes = StripesFor((threads + pictures.count - 1) / pictures.count,
                                 window.last_row - window.first_row);
  std::atomic<Status> status = Status::kOk;
  const auto work = [&](py::ssize_t i) {
    const py::ssize_t picture = i / stripes;
    const Window stripe = Stripe(window, static_cast<int>(i % stripes), stripes);
    Source one = source;
    for (auto& channel : one.channel) {
      if (channel.data != nullptr) channel.data += picture * pictures.stride;
    }
    Target to = Below(target, stripe.first_row - window.first_row);
    for (int p = 0; p < kChannels; ++p) {
      if (to.plane[p].data != nullptr) {
        to.plane[p].data += picture * output.StrideOfPlane(format.colours, p);
      }
    }
    const Status found = embedder.Embed(one, to, stripe);
    if (found != Status::kOk) status = found;
  };
  {
    py::gil_scoped_release release;
    if (threads == 1) {
      for (py::ssize_t i = 0; i < pictures.count; ++i) work(i);
    } else {
      Share(pictures.count * stripes, threads, work);
    }
  }
  RaiseUnlessOk(status);
  return output.result;
}

py::tuple NumbersOf(std::uintptr_t address, std::ptrdiff_t row_stride,
                    std::ptrdiff_t column_stride) {
  return py::make_tuple(address, row_stride, column_stride);
}

// Checks what another device is to do, and says it as plain numbers. The elements and colours are
// those of embed/job.h.
py::dict LayOut(const py::object& x, const py::object& out, const std::optional<InputFormat>& input,
                const std::optional<OutputFormat>& output_format) {
  const OutputFormat& format = output_format ? *output_format : kPlainOutput;
  const View view = ViewOf(x, "a picture");
  const Pictures pictures = PicturesOf(view, input ? *input : kPlainInput);
  const Source& source = pictures.source;
  const Output output = GivenOutput(out, ShapesOf(format, source.height, source.width),
                                    format.element, pictures.count, view);
  const Target target = TargetOf(format, output.views);
  const Window whole = {0, source.height, 0, source.width};
  RaiseUnlessOk(CheckJob({source, target, whole, nullptr}));

  py::list source_planes, target_planes, target_strides;
  for (int p = 0; p < kChannels; ++p) {
    const auto& from = source.channel[p];
    const auto& to = target.plane[p];
    source_planes.append(NumbersOf(reinterpret_cast<std::uintptr_t>(from.data), from.row_stride,
                                   from.column_stride));
    target_planes.append(
        NumbersOf(reinterpret_cast<std::uintptr_t>(to.data), to.row_stride, to.column_stride));
    target_strides.append(output.StrideOfPlane(format.colours, p));
  }
  using py::operator""_a;
  return py::dict(
      "pictures"_a = pictures.count,
      "source"_a =
          py::dict("planes"_a = source_planes, "picture_stride"_a = pictures.stride,
                   "element"_a = static_cast<int>(source.element), "quantum"_a = source.quantum,
                   "zero_point"_a = source.zero_point, "scale"_a = std::to_array(source.scale),
                   "offset"_a = std::to_array(source.offset), "width"_a = source.width,
                   "height"_a = source.height),
      "target"_a = py::dict("planes"_a = target_planes, "picture_strides"_a = target_strides,
                            "colours"_a = static_cast<int>(target.colours),
                            "element"_a = static_cast<int>(target.element),
                            "scale"_a = std::to_array(target.scale),
                            "offset"_a = std::to_array(target.offset), "bt709"_a = format.bt709,
                            "limited"_a = format.limited));
}

// One picture, for the statistics and the fields of it.
struct OnePicture {
  View view;
  Source source;
};
OnePicture PictureOf(const py::object& x) {
  OnePicture one;
  one.view = ViewOf(x, "a picture");
  if (one.view.axes() != 3) {
    Raise("InvalidArray", "a picture has 3 axes, not " + Join(one.view.shape));
  }
  one.source = PicturesOf(one.view, kPlainInput).source;
  RaiseUnlessOk(CheckSource(one.source));
  return one;
}

py::array_t<std::int64_t> Statistics(const py::object& picture,
                                     const std::optional<std::string>& kernel, int threads) {
  CheckThreads(threads);
  const OnePicture one = PictureOf(picture);
  Embedder measure(std::nullopt, CheckedIsa(kernel));
  py::array_t<std::int64_t> sums({kParts, kTones, kStatistics});
  std::int64_t* const data = sums.mutable_data();
  std::memset(data, 0, sizeof(std::int64_t) * kAllStatistics);
  const int stripes = StripesFor(threads, one.source.height);
  std::atomic<Status> status = Status::kOk;
  std::mutex adding;
  const auto work = [&](py::ssize_t i) {
    const Window whole = {0, one.source.height, 0, one.source.width};
    const Window stripe = Stripe(whole, static_cast<int>(i), stripes);
    std::int64_t own[kAllStatistics] = {};
    const Status found = measure.AddStatistics(one.source, stripe.first_row, stripe.last_row, own);
    if (found != Status::kOk) status = found;
    const std::lock_guard<std::mutex> lock(adding);
    for (int s = 0; s < kAllStatistics; ++s) data[s] += own[s];
  };
  {
    py::gil_scoped_release release;
    Share(stripes, threads, work);
  }
  RaiseUnlessOk(status);
  return sums;
}

py::tuple Fields(const py::object& picture, const std::optional<std::string>& kernel) {
  const OnePicture one = PictureOf(picture);
  const Source& source = one.source;
  const Kernel& run = *KernelFor(CheckedIsa(kernel));
  py::array_t<std::int16_t> texture({source.height, source.width});
  py::array_t<std::uint8_t> tone({source.height, source.width});
  py::array_t<std::int16_t> orbits({kOrbits, source.height, source.width});
  py::array_t<std::int16_t> tint({kTintFields - 1, source.height, source.width});
  const FieldsJob job = {source, texture.mutable_data(), tone.mutable_data(), orbits.mutable_data(),
                         tint.mutable_data()};
  bool finite = false;
  {
    py::gil_scoped_release release;
    const WorkspacePointer work = NewWorkspace();
    if (work == nullptr) throw std::bad_alloc();
    finite = run.fields(job, *work);
  }
  if (!finite) RaiseUnlessOk(Status::kNotFinite);
  return py::make_tuple(texture, tone, orbits, tint);
}

using Gains = py::array_t<std::int16_t, py::array::c_style | py::array::forcecast>;

py::bytes WriteMark(const py::object& id, const py::object& given) {
  const std::string name = CheckedBytes(id, "InvalidMarkFile", "a mark id");
  const py::array gains = CheckedArray(given, "the gains");
  MarkFile mark;
  if (name.size() != mark.id.size()) Raise("InvalidMarkFile", "a mark id has 16 bytes");
  if (!py::isinstance<py::array_t<std::int16_t>>(gains) || gains.ndim() != 2 ||
      gains.shape(0) != kGainRows || gains.shape(1) != kTones) {
    Raise("InvalidMarkFile", "gains are int16 [gain rows, tones]");
  }
  std::memcpy(mark.id.data(), name.data(), name.size());
  std::memcpy(mark.gains, Gains(gains).data(), sizeof(mark.gains));
  if (!GainsAreBounded(mark.gains)) {
    Raise("InvalidMarkFile", Describe(MarkFileStatus::kGainsOutOfBounds));
  }
  const auto bytes = WriteMarkFile(mark);
  return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

py::tuple ReadMark(const py::object& data) {
  const MarkFile mark = CheckedMark(data);
  Gains gains({kGainRows, kTones});
  std::memcpy(gains.mutable_data(), mark.gains, sizeof(mark.gains));
  return py::make_tuple(py::bytes(reinterpret_cast<const char*>(mark.id.data()), mark.id.size()),
                        gains);
}

void Define(py::module_& m) {
  m.doc() = "Native core of birthmark.";
  m.attr("CONTRACT_VERSION") = kContractVersion;
  m.attr("TAP_SUM_MAX") = kTapSumMax;
  m.attr("PARTS") = kParts;
  m.attr("TONES") = kTones;
  m.attr("ORBITS") = kOrbits;
  m.attr("GAIN_ROWS") = kGainRows;
  m.attr("TINT_FIELDS") = kTintFields;
  m.attr("TINT_GAIN_MAX") = kTintGainMax;
  m.attr("TINT_MAX_LEVELS") = kTintMaxQ6 / 64.0;
  m.attr("HALO") = kHalo;

  m.def(
      "available_kernels",
      [] {
        std::vector<std::string> names;
        for (Isa isa : kAllIsas) {
          if (IsaIsUsable(isa)) names.emplace_back(IsaName(isa));
        }
        return names;
      },
      "Names of the kernels that this machine can run, plainest first.");
  m.def(
      "orbits",
      [] {
        std::vector<std::pair<int, int>> orbits;
        for (const Orbit& orbit : kOrbitTable.at) {
          orbits.emplace_back(orbit.i, orbit.j);
        }
        return orbits;
      },
      "The orbits (i, j) in the order of the gains; tap distances are doubled.");

  py::class_<InputFormat>(m, "InputFormat")
      .def(py::init([](std::optional<bool> channels_first, bool reversed, const Numbers& scale,
                       const Numbers& offset, std::optional<float> quantum, int zero_point) {
             return InputFormat{channels_first, reversed, scale, offset, quantum, zero_point};
           }),
           py::kw_only(), py::arg("channels_first"), py::arg("reversed"), py::arg("scale"),
           py::arg("offset"), py::arg("quantum"), py::arg("zero_point"));
  py::class_<OutputFormat>(m, "OutputFormat")
      .def(py::init([](const std::string& kind, bool planes, const std::string& dtype,
                       const Numbers& scale, const Numbers& offset, bool bt709, bool limited) {
             const bool grey = kind == "grey";
             const bool paired = kind == "nv12" || kind == "p010";
             const bool yuv = paired || kind == "i420";
             return OutputFormat{grey  ? Colours::kGrey
                                 : yuv ? Colours::kYuv
                                       : Colours::kRgb,
                                 grey || yuv ? 1 : static_cast<int>(kind.size()),
                                 paired   ? Layout::kPairedColours
                                 : planes ? Layout::kPlanes
                                          : Layout::kPixels,
                                 kind[0] == 'b',
                                 kind == "p010"       ? Element::kUint10
                                 : dtype == "float32" ? Element::kFloat32
                                                      : Element::kUint8,
                                 scale,
                                 offset,
                                 bt709,
                                 limited};
           }),
           py::kw_only(), py::arg("kind"), py::arg("planes"), py::arg("dtype"), py::arg("scale"),
           py::arg("offset"), py::arg("bt709"), py::arg("limited"));

  py::class_<Embedder>(m, "Embedder")
      .def(py::init([](const py::object& mark, const std::optional<std::string>& kernel) {
             std::optional<MarkFile> parsed;
             if (!mark.is_none()) parsed = CheckedMark(mark);
             return std::make_unique<Embedder>(parsed, CheckedIsa(kernel));
           }),
           py::arg("mark"), py::arg("kernel") = std::nullopt)
      .def("embed", &Embed, py::arg("x"), py::arg("out") = py::none(), py::arg("threads") = 1,
           py::arg("window") = std::nullopt, py::arg("input") = std::nullopt,
           py::arg("output") = std::nullopt)
      .def_property_readonly("kernel",
                             [](const Embedder& e) { return std::string(IsaName(e.isa())); });

  py::class_<View>(m, "View").def(
      py::init([](std::uintptr_t address, const std::vector<py::ssize_t>& shape,
                  const std::vector<py::ssize_t>& strides, const std::string& dtype,
                  bool writeable) {
        const std::optional<Element> element = ElementNamed(dtype);
        if (!element) RaiseElement("an array", dtype);
        if (shape.size() != strides.size()) {
          Raise("InvalidArray", "an array has as many strides as axes");
        }
        return View{reinterpret_cast<std::uint8_t*>(address),
                    *element,
                    shape,
                    strides,
                    writeable,
                    py::none()};
      }),
      py::kw_only(), py::arg("address"), py::arg("shape"), py::arg("strides"), py::arg("dtype"),
      py::arg("writeable"));
  m.def("lay_out", &LayOut, py::arg("x"), py::arg("out"), py::arg("input") = std::nullopt,
        py::arg("output") = std::nullopt,
        "What another device is asked to do, checked, as plain numbers. Nothing is read.");

  py::class_<Stream>(m, "RowStream")
      .def(py::init<const Embedder&, py::ssize_t, const std::optional<InputFormat>&,
                    const std::optional<OutputFormat>&>(),
           py::arg("embedder"), py::arg("width"), py::arg("input") = std::nullopt,
           py::arg("output") = std::nullopt)
      .def("push", &Stream::Push, py::arg("rows"))
      .def("finish", &Stream::Finish);

  m.def("statistics", &Statistics, py::arg("picture"), py::arg("kernel") = std::nullopt,
        py::arg("threads") = 1,
        "int64 [2, tones, orbits + 1]: sums over the picture (contract, step 20).");
  m.def("fields", &Fields, py::arg("picture"), py::arg("kernel") = std::nullopt,
        "(texture int16 [h, w], tone uint8 [h, w], orbit sums int16 [orbits, h, w], and blueness, "
        "redness and roughness int16 [3, h, w]).");
  m.def("write_mark", &WriteMark, py::arg("id"), py::arg("gains"), "Bytes of a mark file.");
  m.def("read_mark", &ReadMark, py::arg("data"), "(id, gains int16 [gain rows, tones]).");
}

}  // namespace
}  // namespace birthmark::python

PYBIND11_MODULE(_core, m) { birthmark::python::Define(m); }
