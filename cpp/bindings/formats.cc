#include "bindings/formats.h"

#include <algorithm>
#include <new>
#include <string>
#include <utility>

namespace py = pybind11;

namespace birthmark::python {
namespace {

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

}  // namespace

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

Shapes ShapesOf(const OutputFormat& format, py::ssize_t height, py::ssize_t width) {
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

Target TargetOf(const OutputFormat& format, const std::vector<View>& views) {
  Target target;
  target.colours = format.colours;
  target.element = format.element;
  std::copy(format.scale.begin(), format.scale.end(), target.scale);
  std::copy(format.offset.begin(), format.offset.end(), target.offset);
  target.yuv = kYuvWeights[format.bt709 ? 1 : 0][format.limited ? 1 : 0];
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

Output NewOutput(const Shapes& shapes, Element element, py::ssize_t pictures) {
  const py::dtype dtype = DtypeOf(element);
  py::ssize_t values = 0;
  std::vector<py::ssize_t> begins;
  for (const auto& shape : shapes) {
    begins.push_back(values);
    py::ssize_t product = 1;
    for (py::ssize_t side : shape) product *= side;
    values += product;
  }
  py::ssize_t total = 0, bytes = 0;
  if (__builtin_mul_overflow(pictures, values, &total) ||
      __builtin_mul_overflow(total, dtype.itemsize(), &bytes)) {
    throw std::bad_alloc();
  }
  Output output;
  py::array all;  // what several planes lie in
  if (shapes.size() > 1) all = py::array(dtype, std::vector<py::ssize_t>{total});
  py::list arrays;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    std::vector<py::ssize_t> shape = shapes[i], strides(shape.size());
    py::ssize_t stride = dtype.itemsize();
    for (std::size_t axis = shape.size(); axis-- > 0; stride *= shape[axis]) strides[axis] = stride;
    if (pictures > 1) {
      shape.insert(shape.begin(), pictures);
      strides.insert(strides.begin(), values * dtype.itemsize());
    }
    const py::array array =
        shapes.size() == 1
            ? py::array(dtype, shape)
            : py::array(dtype, shape, strides,
                        static_cast<const std::uint8_t*>(all.data()) + begins[i] * dtype.itemsize(),
                        all);
    arrays.append(array);
    output.views.push_back(ViewOfArray(array, "the output"));
    output.strides.push_back(pictures > 1 ? output.views.back().strides[0] : 0);
  }
  output.result = shapes.size() == 1 ? py::object(arrays[0]) : py::object(py::tuple(arrays));
  return output;
}

namespace {

// Where the first picture of a batch lies.
Extent FirstOf(const View& batch) {
  View one = batch;
  one.shape[0] = 1;
  return ExtentOf(one);
}

// Whether no picture of a batch lies on a plane of another one. (Planes of one picture are looked
// at elsewhere.)
bool PicturesAreApart(const std::vector<View>& batches) {
  const auto step = [](const View& batch) {
    const std::uintptr_t stride = static_cast<std::uintptr_t>(batch.strides[0]);
    return batch.strides[0] < 0 ? 0 - stride : stride;
  };
  for (std::size_t i = 0; i < batches.size(); ++i) {
    const Extent own = FirstOf(batches[i]);
    if (step(batches[i]) < own.end - own.begin) return false;
    for (std::size_t j = 0; j < i; ++j) {
      if (!ExtentOf(batches[i]).Overlaps(ExtentOf(batches[j]))) continue;
      // Else one picture with all its planes has to lie behind the other.
      const Extent other = FirstOf(batches[j]);
      const std::uintptr_t span = std::max(own.end, other.end) - std::min(own.begin, other.begin);
      if (batches[i].strides[0] != batches[j].strides[0] || step(batches[i]) < span) return false;
    }
  }
  return true;
}

}  // namespace

Output GivenOutput(const py::object& given, const Shapes& shapes, Element element,
                   py::ssize_t pictures, const View& input) {
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
    if (ExtentOf(input).Overlaps(ExtentOf(view))) RaiseUnlessOk(Status::kOverlap);
    output.strides.push_back(pictures > 1 ? view.strides[0] : 0);
  }
  if (pictures > 1 && !PicturesAreApart(output.views)) RaiseUnlessOk(Status::kSelfOverlap);
  return output;
}

}  // namespace birthmark::python
