// The Python module: checks arrays, drops the GIL, calls the core. No logic of its own.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "contract/mark_file.h"
#include "embed/embedder.h"
#include "embed/row_stream.h"

namespace py = pybind11;

namespace {

using birthmark::Colours;
using birthmark::Element;
using birthmark::Embedder;
using birthmark::Isa;
using birthmark::kChannels;
using birthmark::kOrbits;
using birthmark::kStatistics;
using birthmark::kTones;
using birthmark::MarkFile;
using birthmark::MarkFileStatus;
using birthmark::RowStream;
using birthmark::Source;
using birthmark::Status;
using birthmark::Target;
using birthmark::TargetPlane;
using birthmark::Window;

[[noreturn]] void Raise(const char* error, const std::string& message) {
  const py::object type = py::module_::import("birthmark.errors").attr(error);
  PyErr_SetString(type.ptr(), message.c_str());
  throw py::error_already_set();
}

void RaiseUnlessOk(Status status) {
  if (status == Status::kOk) return;
  if (status == Status::kNoMemory) throw std::bad_alloc();
  Raise("InvalidArray", birthmark::Describe(status));
}

std::string NameOfType(const py::handle& object) {
  return py::str(py::type::handle_of(object).attr("__name__")).cast<std::string>();
}

// An argument that must be an array; pybind's own message would print what it is instead.
py::array CheckedArray(const py::object& object, const char* what) {
  if (!py::isinstance<py::array>(object)) {
    Raise("InvalidArray", std::string(what) + " must be a numpy array, not " + NameOfType(object));
  }
  return py::reinterpret_borrow<py::array>(object);
}

// An argument that must be bytes; its content is a secret that no message may show.
std::string CheckedBytes(const py::object& object, const char* error, const char* what) {
  if (!py::isinstance<py::bytes>(object)) {
    Raise(error, std::string(what) + " must be bytes, not " + NameOfType(object));
  }
  return py::reinterpret_borrow<py::bytes>(object);
}

// --- Arrays and tensors --------------------------------------------------------------------------

// Somebody's memory, as numpy or DLPack describe it. Strides are bytes.
struct View {
  std::uint8_t* data = nullptr;
  Element element = Element::kUint8;
  std::vector<py::ssize_t> shape, strides;
  bool writeable = false;
  py::object owner;  // keeps the memory

  int axes() const { return static_cast<int>(shape.size()); }
};

// In memory, by the DLPack protocol (its names, its order, its types).
struct DlTensor {
  void* data;
  std::int32_t device_type, device_id, ndim;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  std::int64_t *shape, *strides;  // strides in elements; null: as C has them
  std::uint64_t byte_offset;
};

std::string Join(const std::vector<py::ssize_t>& shape) {
  std::string text;
  for (py::ssize_t side : shape) text += (text.empty() ? "" : ", ") + std::to_string(side);
  return "[" + text + "]";
}

std::optional<Element> ElementOf(const py::dtype& dtype) {
  const char order = dtype.byteorder();
  if (order != '=' && order != '|') return std::nullopt;
  switch (dtype.kind()) {
    case 'f':
      if (dtype.itemsize() == 4) return Element::kFloat32;
      if (dtype.itemsize() == 2) return Element::kFloat16;
      break;
    case 'u':
      if (dtype.itemsize() == 1) return Element::kUint8;
      if (dtype.itemsize() == 2) return Element::kUint10;
      break;
    case 'i':
      if (dtype.itemsize() == 1) return Element::kInt8;
      break;
    case 'V':  // what the package ml_dtypes defines
      if (dtype.itemsize() == 2 && py::str(dtype.attr("name")).cast<std::string>() == "bfloat16") {
        return Element::kBfloat16;
      }
      break;
  }
  return std::nullopt;
}

std::optional<Element> ElementOf(const DlTensor& tensor) {
  constexpr int kInt = 0, kUint = 1, kFloat = 2, kBfloat = 4;
  if (tensor.lanes != 1) return std::nullopt;
  const auto is = [&](int code, int bits) { return tensor.code == code && tensor.bits == bits; };
  if (is(kFloat, 32)) return Element::kFloat32;
  if (is(kFloat, 16)) return Element::kFloat16;
  if (is(kBfloat, 16)) return Element::kBfloat16;
  if (is(kUint, 8)) return Element::kUint8;
  if (is(kUint, 16)) return Element::kUint10;
  if (is(kInt, 8)) return Element::kInt8;
  return std::nullopt;
}

[[noreturn]] void RaiseElement(const std::string& what, const std::string& found) {
  Raise("InvalidArray",
        what + " holds float32, float16, bfloat16, uint8 or int8 values, not " + found);
}

View ViewOfArray(const py::array& array, const std::string& what) {
  View view;
  const std::optional<Element> element = ElementOf(array.dtype());
  if (!element) RaiseElement(what, py::str(array.dtype()).cast<std::string>());
  view.element = *element;
  view.data = const_cast<std::uint8_t*>(static_cast<const std::uint8_t*>(array.data()));
  view.shape.assign(array.shape(), array.shape() + array.ndim());
  view.strides.assign(array.strides(), array.strides() + array.ndim());
  view.writeable = array.writeable();
  view.owner = array;
  return view;
}

// What a method of a foreign object says; its own exceptions become one line of ours.
template <class... Args>
py::object Ask(const py::object& object, const char* method, const std::string& what) {
  try {
    return object.attr(method)();
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;
    std::string line = py::str(error.value()).cast<std::string>();
    Raise("InvalidArray", what + " cannot be read as a tensor: " + line.substr(0, line.find('\n')));
  }
}

View ViewOfTensor(const py::object& object, const std::string& what) {
  constexpr int kCpu = 1, kCudaHost = 3, kRocmHost = 11, kManaged = 13;
  const py::tuple device = Ask(object, "__dlpack_device__", what);
  const int kind = device[0].cast<int>();
  if (kind != kCpu && kind != kCudaHost && kind != kRocmHost && kind != kManaged) {
    Raise("InvalidArray", what + " is in the memory of another device; move it to the processor's");
  }
  View view;
  // Not taken out of its capsule, which therefore frees it in the end.
  view.owner = Ask(object, "__dlpack__", what);
  const void* const pointer = PyCapsule_GetPointer(view.owner.ptr(), "dltensor");
  if (pointer == nullptr) throw py::error_already_set();
  const DlTensor& tensor = *static_cast<const DlTensor*>(pointer);
  const std::optional<Element> element = ElementOf(tensor);
  if (!element) {
    RaiseElement(what, "DLPack type " + std::to_string(tensor.code) + " of " +
                           std::to_string(tensor.bits) + " bits");
  }
  view.element = *element;
  view.data = static_cast<std::uint8_t*>(tensor.data) + tensor.byte_offset;
  view.shape.assign(tensor.shape, tensor.shape + tensor.ndim);
  view.strides.resize(view.shape.size());
  const py::ssize_t bytes = tensor.bits / 8;
  py::ssize_t packed = bytes;
  for (int axis = view.axes() - 1; axis >= 0; --axis) {
    const auto at = static_cast<std::size_t>(axis);
    view.strides[at] = tensor.strides != nullptr ? tensor.strides[at] * bytes : packed;
    packed *= view.shape[at];
  }
  view.writeable = true;
  return view;
}

std::optional<Element> ElementNamed(const std::string& name) {
  if (name == "float32") return Element::kFloat32;
  if (name == "float16") return Element::kFloat16;
  if (name == "bfloat16") return Element::kBfloat16;
  if (name == "uint8") return Element::kUint8;
  if (name == "uint16") return Element::kUint10;
  if (name == "int8") return Element::kInt8;
  return std::nullopt;
}

View ViewOf(const py::object& object, const std::string& what) {
  if (py::isinstance<View>(object)) return object.cast<View>();
  if (py::isinstance<py::array>(object)) {
    return ViewOfArray(py::reinterpret_borrow<py::array>(object), what);
  }
  if (py::hasattr(object, "__dlpack__") && py::hasattr(object, "__dlpack_device__")) {
    return ViewOfTensor(object, what);
  }
  Raise("InvalidArray",
        what + " must be a numpy array or a DLPack tensor, not " + NameOfType(object));
}

int CheckedSide(py::ssize_t side) {
  if (side < 1 || side > birthmark::kMostSide) {
    Raise("InvalidArray",
          "a side of " + std::to_string(side) + " pixels: 1 to 1048576 are allowed");
  }
  return static_cast<int>(side);
}

// The first byte of a view and the one behind its last.
std::pair<std::uintptr_t, std::uintptr_t> ExtentOf(const View& view) {
  std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(view.data), end = begin + 1;
  for (std::size_t axis = 0; axis < view.shape.size(); ++axis) {
    const std::uintptr_t reach =
        static_cast<std::uintptr_t>(view.strides[axis]) *
        static_cast<std::uintptr_t>(std::max<py::ssize_t>(view.shape[axis] - 1, 0));
    (view.strides[axis] < 0 ? begin : end) += reach;
  }
  return {begin, end + 3};  // the widest value has four bytes
}

bool Overlap(const View& a, const View& b) {
  const auto [a_begin, a_end] = ExtentOf(a);
  const auto [b_begin, b_end] = ExtentOf(b);
  return a_begin < b_end - 3 && b_begin < a_end - 3;
}

// --- Formats -------------------------------------------------------------------------------------

using Numbers = std::array<float, kChannels>;

// How the values of an input are to be understood.
struct InputFormat {
  std::optional<bool> channels_first;  // by default for all but uint8
  bool reversed;                       // blue, green, red
  Numbers scale, offset;
  std::optional<float> quantum;  // of 8-bit values
  int zero_point;
};
const InputFormat kPlainInput = {std::nullopt, false, {1, 1, 1, 1}, {}, std::nullopt, 0};

enum class Layout { kPixels, kPlanes, kPairedColours };

// What is to be published.
struct OutputFormat {
  Colours colours;
  int channels;  // of kRgb
  Layout layout;
  bool reversed;
  Element element;
  Numbers scale, offset;
  bool bt709, limited;
};
const OutputFormat kPlainOutput = {Colours::kRgb, 3,  Layout::kPixels, false, Element::kUint8,
                                   {1, 1, 1, 1},  {}, false,           true};

// The pictures of an input: the first of them, how many, and how far apart.
struct Pictures {
  Source source;
  py::ssize_t count = 1, stride = 0;
};

Pictures PicturesOf(const View& view, const InputFormat& format) {
  if (view.element == Element::kUint10) RaiseElement("a picture", "uint16");
  if (view.element == Element::kInt8 && !format.quantum) {
    Raise("InvalidArray", "int8 values need a quantisation: Input(quantisation=(scale, zero))");
  }
  const int axes = view.axes();
  if (axes < 2 || axes > 4) {
    Raise("InvalidArray",
          "a picture has 3 axes (a grey one may have 2), a batch 4, not " + Join(view.shape));
  }
  const bool first =
      format.channels_first.value_or(view.element != Element::kUint8 || format.quantum.has_value());
  const std::size_t axis = axes == 4 ? 1 : 0;
  const std::size_t y = axes > 2 && first ? axis + 1 : axis, x = y + 1;
  const std::size_t c = first ? axis : axis + 2;
  const py::ssize_t channels = axes == 2 ? 1 : view.shape[c];
  const py::ssize_t channel_stride = axes == 2 ? 0 : view.strides[c];
  if (channels != 1 && channels != 3 && channels != 4) {
    Raise("InvalidArray", std::string("a picture has 1, 3 or 4 channels, on the ") +
                              (first ? "first axis ([3, h, w]" : "last axis ([h, w, 3]") +
                              "; Input(layout=...) says so), not " + Join(view.shape));
  }
  Pictures pictures;
  Source& source = pictures.source;
  source.height = CheckedSide(view.shape[y]);
  source.width = CheckedSide(view.shape[x]);
  source.element = view.element;
  if (format.quantum) source.quantum = *format.quantum;
  source.zero_point = format.zero_point;
  for (int i = 0; i < (channels == 4 ? 4 : 3); ++i) {
    const int place = channels == 1 ? 0 : i == 3 || !format.reversed ? i : 2 - i;
    source.channel[i] = {view.data + place * channel_stride, view.strides[y], view.strides[x]};
    source.scale[i] = format.scale[static_cast<std::size_t>(channels == 1 ? 0 : i)];
    source.offset[i] = format.offset[static_cast<std::size_t>(channels == 1 ? 0 : i)];
  }
  if (axes == 4) {
    pictures.count = view.shape[0];
    pictures.stride = view.strides[0];
    if (pictures.count < 1) Raise("InvalidArray", "the batch is empty");
  }
  return pictures;
}

// The shapes of what is published for one picture.
std::vector<std::vector<py::ssize_t>> ShapesOf(const OutputFormat& format, py::ssize_t height,
                                               py::ssize_t width) {
  const py::ssize_t half_height = (height + 1) / 2, half_width = (width + 1) / 2;
  switch (format.colours) {
    case Colours::kGrey:
      return {{height, width}};
    case Colours::kYuv:
      if (format.layout == Layout::kPairedColours) {
        return {{height, width}, {half_height, half_width, 2}};
      }
      return {{height, width}, {half_height, half_width}, {half_height, half_width}};
    case Colours::kRgb:
      break;
  }
  if (format.layout == Layout::kPlanes) return {{format.channels, height, width}};
  return {{height, width, format.channels}};
}

// The planes of what is published for one picture, where `axis` axes of a batch come first.
Target TargetOf(const OutputFormat& format, const std::vector<View>& views) {
  Target target;
  target.colours = format.colours;
  target.element = format.element;
  std::copy(format.scale.begin(), format.scale.end(), target.scale);
  std::copy(format.offset.begin(), format.offset.end(), target.offset);
  target.yuv = birthmark::kYuvWeights[format.bt709 ? 1 : 0][format.limited ? 1 : 0];
  const View& first = views[0];
  const std::size_t axes = first.shape.size();
  switch (format.colours) {
    case Colours::kGrey:
      target.plane[0] = {first.data, first.strides[axes - 2], first.strides[axes - 1]};
      break;
    case Colours::kYuv: {
      target.plane[0] = {first.data, first.strides[axes - 2], first.strides[axes - 1]};
      const bool paired = format.layout == Layout::kPairedColours;
      for (int i = 1; i <= 2; ++i) {
        const View& view = views[static_cast<std::size_t>(paired ? 1 : i)];
        const std::size_t y = view.shape.size() - (paired ? 3 : 2);
        target.plane[i] = {view.data, view.strides[y], view.strides[y + 1]};
        if (paired && i == 2) target.plane[i].data += view.strides[y + 2];
      }
      break;
    }
    case Colours::kRgb: {
      const bool planes = format.layout == Layout::kPlanes;
      const std::size_t y = axes - (planes ? 2 : 3), c = planes ? axes - 3 : axes - 1;
      for (int i = 0; i < format.channels; ++i) {
        const int place = i == 3 || !format.reversed ? i : 2 - i;
        target.plane[i] = {first.data + place * first.strides[c], first.strides[y],
                           first.strides[y + 1]};
      }
      break;
    }
  }
  return target;
}

py::dtype DtypeOf(Element element) {
  switch (element) {
    case Element::kFloat32:
      return py::dtype::of<float>();
    case Element::kUint10:
      return py::dtype::of<std::uint16_t>();
    default:
      return py::dtype::of<std::uint8_t>();
  }
}

// What a call publishes into: the caller's own, or new memory.
struct Output {
  py::object result;  // what the call returns
  std::vector<View> views;
  std::vector<py::ssize_t> strides;  // from picture to picture

  py::ssize_t StrideOfPlane(Colours colours, int plane) const {
    return strides[colours == Colours::kYuv
                       ? std::min(static_cast<std::size_t>(plane), strides.size() - 1)
                       : 0];
  }
};

// New arrays in one piece of memory, one picture behind the other.
Output NewOutput(const std::vector<std::vector<py::ssize_t>>& shapes, Element element,
                 py::ssize_t pictures) {
  const py::dtype dtype = DtypeOf(element);
  py::ssize_t values = 0;
  std::vector<py::ssize_t> begins;
  for (const auto& shape : shapes) {
    begins.push_back(values);
    py::ssize_t product = 1;
    for (py::ssize_t side : shape) product *= side;
    values += product;
  }
  Output output;
  const py::array all(dtype, std::vector<py::ssize_t>{pictures * values});
  py::list arrays;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    std::vector<py::ssize_t> shape = shapes[i], strides(shape.size());
    py::ssize_t stride = dtype.itemsize();
    for (std::size_t axis = shape.size(); axis-- > 0; stride *= shape[axis]) strides[axis] = stride;
    if (pictures > 1) {
      shape.insert(shape.begin(), pictures);
      strides.insert(strides.begin(), values * dtype.itemsize());
    }
    std::uint8_t* const data =
        static_cast<std::uint8_t*>(const_cast<void*>(all.data())) + begins[i] * dtype.itemsize();
    const py::array array =
        shapes.size() == 1 ? py::array(dtype, shape) : py::array(dtype, shape, strides, data, all);
    arrays.append(array);
    output.views.push_back(ViewOfArray(array, "the output"));
    output.strides.push_back(pictures > 1 ? output.views.back().strides[0] : 0);
  }
  output.result = shapes.size() == 1 ? py::object(arrays[0]) : py::object(py::tuple(arrays));
  return output;
}

Output GivenOutput(const py::object& given, const std::vector<std::vector<py::ssize_t>>& shapes,
                   Element element, py::ssize_t pictures, const View& input) {
  std::vector<py::object> parts;
  if (shapes.size() == 1) {
    parts.push_back(given);
  } else {
    if (!py::isinstance<py::tuple>(given) && !py::isinstance<py::list>(given)) {
      Raise("InvalidArray", "out must be a tuple of " + std::to_string(shapes.size()) +
                                " planes, not " + NameOfType(given));
    }
    for (const py::handle part : given) parts.push_back(py::reinterpret_borrow<py::object>(part));
  }
  Output output;
  output.result = given;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    std::vector<py::ssize_t> batch = shapes[i];
    batch.insert(batch.begin(), pictures);
    if (parts.size() == shapes.size()) output.views.push_back(ViewOf(parts[i], "out"));
    if (parts.size() != shapes.size() || output.views[i].element != element ||
        (output.views[i].shape != batch && (pictures > 1 || output.views[i].shape != shapes[i]))) {
      Raise("InvalidArray", "out must be " + py::str(DtypeOf(element)).cast<std::string>() + " " +
                                Join(pictures > 1 ? batch : shapes[i]));
    }
    const View& view = output.views[i];
    if (!view.writeable) Raise("InvalidArray", "out is read-only");
    if (Overlap(input, view)) RaiseUnlessOk(Status::kOverlap);
    output.strides.push_back(pictures > 1 ? view.strides[0] : 0);
    if (pictures > 1) {
      View one = view;
      one.shape[0] = 1;
      const auto [begin, end] = ExtentOf(one);
      if (static_cast<std::uintptr_t>(std::abs(view.strides[0])) < end - begin - 3) {
        RaiseUnlessOk(Status::kSelfOverlap);
      }
    }
  }
  return output;
}

// --- Work ----------------------------------------------------------------------------------------

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
    } catch (const std::system_error&) {
      break;  // no more threads are to be had: those that are there do all of it
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

// A target further down: `rows` rows of the first plane.
Target Below(Target target, std::ptrdiff_t rows) {
  for (int p = 0; p < kChannels; ++p) {
    if (target.plane[p].data == nullptr) continue;
    const bool halved = target.colours == Colours::kYuv && p > 0;
    target.plane[p].data += (halved ? rows / 2 : rows) * target.plane[p].row_stride;
  }
  return target;
}

using Limits = std::array<std::optional<py::ssize_t>, 4>;  // of rows and of columns

// As a slice would be understood; anything that is not inside becomes an empty window.
Window WindowOf(const std::optional<Limits>& limits, const Source& source) {
  if (!limits) return {0, source.height, 0, source.width};
  const auto at = [](std::optional<py::ssize_t> limit, int otherwise) {
    return limit && (*limit < 0 || *limit > birthmark::kMostSide)
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
  if (window.first_row < 0 || window.first_row >= window.last_row || window.first_column < 0 ||
      window.first_column >= window.last_column) {
    RaiseUnlessOk(Status::kWindow);
  }
  const auto shapes = ShapesOf(format, window.last_row - window.first_row,
                               window.last_column - window.first_column);
  const Output output = given.is_none()
                            ? NewOutput(shapes, format.element, pictures.count)
                            : GivenOutput(given, shapes, format.element, pictures.count, view);
  const Target target = TargetOf(format, output.views);
  RaiseUnlessOk(birthmark::CheckJob({source, target, window, nullptr}));

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
  RaiseUnlessOk(birthmark::CheckJob({source, target, whole, nullptr}));

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
  RaiseUnlessOk(birthmark::CheckSource(one.source));
  return one;
}

py::array_t<std::int64_t> Statistics(const py::object& picture,
                                     const std::optional<std::string>& kernel, int threads) {
  CheckThreads(threads);
  const OnePicture one = PictureOf(picture);
  Embedder measure(std::nullopt, CheckedIsa(kernel));
  py::array_t<std::int64_t> sums({kTones, kStatistics});
  std::int64_t* const data = sums.mutable_data();
  std::memset(data, 0, sizeof(std::int64_t) * kTones * kStatistics);
  const int stripes = StripesFor(threads, one.source.height);
  std::atomic<Status> status = Status::kOk;
  std::mutex adding;
  const auto work = [&](py::ssize_t i) {
    const Window whole = {0, one.source.height, 0, one.source.width};
    const Window stripe = Stripe(whole, static_cast<int>(i), stripes);
    std::int64_t own[kTones * kStatistics] = {};
    const Status found = measure.AddStatistics(one.source, stripe.first_row, stripe.last_row, own);
    if (found != Status::kOk) status = found;
    const std::lock_guard<std::mutex> lock(adding);
    for (int s = 0; s < kTones * kStatistics; ++s) data[s] += own[s];
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
  const birthmark::Kernel& run = *birthmark::KernelFor(CheckedIsa(kernel));
  py::array_t<std::int16_t> texture({source.height, source.width});
  py::array_t<std::uint8_t> tone({source.height, source.width});
  py::array_t<std::int16_t> orbits({kOrbits, source.height, source.width});
  py::array_t<std::int16_t> tint({birthmark::kTintFields - 1, source.height, source.width});
  const birthmark::FieldsJob job = {source, texture.mutable_data(), tone.mutable_data(),
                                    orbits.mutable_data(), tint.mutable_data()};
  bool finite = false;
  {
    py::gil_scoped_release release;
    const birthmark::WorkspacePointer work = birthmark::NewWorkspace();
    if (work == nullptr) throw std::bad_alloc();
    finite = run.fields(job, *work);
  }
  if (!finite) RaiseUnlessOk(Status::kNotFinite);
  return py::make_tuple(texture, tone, orbits, tint);
}

// --- Streams -------------------------------------------------------------------------------------

// A stream and its formats. The lock is for callers who forget that it is for one thread.
class Stream {
 public:
  Stream(const Embedder& embedder, py::ssize_t width, const std::optional<InputFormat>& input,
         const std::optional<OutputFormat>& output)
      : input_(input.value_or(kPlainInput)),
        output_(output.value_or(kPlainOutput)),
        width_(CheckedSide(width)),
        rows_(embedder, width_, output_.channels == 4) {
    RaiseUnlessOk(rows_.status());
  }

  // Takes the rows and returns those that have become ready.
  py::object Push(const py::object& x) {
    const View view = ViewOf(x, "a block of rows");
    const Pictures pictures = PicturesOf(view, input_);
    if (pictures.count != 1 || pictures.source.width != width_) {
      Raise("InvalidArray", "a block of rows has " + std::to_string(width_) +
                                " columns and is no batch, not " + Join(view.shape));
    }
    RaiseUnlessOk(birthmark::CheckSource(pictures.source));
    return Run(pictures.source);
  }

  // Returns the rows that waited for others below them.
  py::object Finish() {
    Source nothing;
    nothing.height = 0;
    return Run(nothing);
  }

 private:
  py::object Run(const Source& source) {
    const bool end = source.height == 0;
    std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) Raise("InvalidArray", "the stream is at work in another thread");
    if (ended_) RaiseUnlessOk(Status::kStreamEnded);
    const py::ssize_t total =
        end ? waiting_ : std::max<py::ssize_t>(waiting_ + source.height - birthmark::kHalo, 0) & ~1;
    const Output output = NewOutput(ShapesOf(output_, total, width_), output_.element, 1);
    Status status = Status::kOk;
    {
      py::gil_scoped_release release;
      status = Advance(source, end, TargetOf(output_, output.views), total);
    }
    waiting_ += source.height - total;
    if (status != Status::kOk || end) {
      ended_ = true;
    }
    RaiseUnlessOk(status);
    return output.result;
  }

  Status Advance(const Source& source, bool end, const Target& target, py::ssize_t total) {
    py::ssize_t pushed = 0, pulled = 0;
    Status status = Status::kOk;
    while (status == Status::kOk && (pushed < source.height || pulled < total)) {
      Source some = source;
      some.height = std::min(source.height - static_cast<int>(pushed), rows_.room());
      for (auto& channel : some.channel) {
        if (channel.data != nullptr) channel.data += pushed * channel.row_stride;
      }
      if (some.height > 0) status = rows_.Push(some);
      pushed += some.height;
      if (end) rows_.End();
      if (status == Status::kOk && rows_.ready() > 0) {
        const int count = rows_.ready();
        status = rows_.Pull(Below(target, pulled), count);
        pulled += count;
      }
    }
    return status;
  }

  InputFormat input_;
  OutputFormat output_;
  int width_;
  RowStream rows_;
  py::ssize_t waiting_ = 0;
  bool ended_ = false;
  std::mutex mutex_;
};

// --- Mark files ----------------------------------------------------------------------------------

using Gains = py::array_t<std::int16_t, py::array::c_style | py::array::forcecast>;

py::bytes WriteMark(const py::object& id, const py::object& given) {
  const std::string name = CheckedBytes(id, "InvalidMarkFile", "a mark id");
  const py::array gains = CheckedArray(given, "the gains");
  MarkFile mark;
  if (name.size() != mark.id.size()) Raise("InvalidMarkFile", "a mark id has 16 bytes");
  if (!py::isinstance<py::array_t<std::int16_t>>(gains) || gains.ndim() != 2 ||
      gains.shape(0) != birthmark::kGainRows || gains.shape(1) != kTones) {
    Raise("InvalidMarkFile", "gains are int16 [gain rows, tones]");
  }
  std::memcpy(mark.id.data(), name.data(), name.size());
  std::memcpy(mark.gains, Gains(gains).data(), sizeof(mark.gains));
  if (!birthmark::GainsAreBounded(mark.gains)) {
    Raise("InvalidMarkFile", birthmark::Describe(MarkFileStatus::kGainsOutOfBounds));
  }
  const auto bytes = birthmark::WriteMarkFile(mark);
  return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

py::tuple ReadMark(const py::object& data) {
  const MarkFile mark = CheckedMark(data);
  Gains gains({birthmark::kGainRows, kTones});
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
  m.attr("GAIN_ROWS") = birthmark::kGainRows;
  m.attr("TINT_FIELDS") = birthmark::kTintFields;
  m.attr("TINT_GAIN_MAX") = birthmark::kTintGainMax;
  m.attr("TINT_MAX_LEVELS") = birthmark::kTintMaxQ6 / 64.0;
  m.attr("HALO") = birthmark::kHalo;

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
      .def_property_readonly(
          "kernel", [](const Embedder& e) { return std::string(birthmark::IsaName(e.isa())); });

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
        "int64 [tones, orbits + 1]: sums over the picture (contract, step 19).");
  m.def("fields", &Fields, py::arg("picture"), py::arg("kernel") = std::nullopt,
        "(texture int16 [h, w], tone uint8 [h, w], orbit sums int16 [orbits, h, w], and blueness, "
        "redness and roughness int16 [3, h, w]).");
  m.def("write_mark", &WriteMark, py::arg("id"), py::arg("gains"), "Bytes of a mark file.");
  m.def("read_mark", &ReadMark, py::arg("data"), "(id, gains int16 [gain rows, tones]).");
}
