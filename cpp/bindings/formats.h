// What an array is taken for, and what is published: formats, and the planes that follow from them.
#ifndef BIRTHMARK_BINDINGS_FORMATS_H_
#define BIRTHMARK_BINDINGS_FORMATS_H_

#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "bindings/arrays.h"
#include "embed/job.h"

namespace birthmark::python {

using Numbers = std::array<float, kChannels>;

// How the values of an input are to be understood.
struct InputFormat {
  std::optional<bool> channels_first;  // by default for all but uint8
  bool reversed;                       // blue, green, red
  Numbers scale, offset;
  std::optional<float> quantum;  // of 8-bit values
  int zero_point;
};
inline const InputFormat kPlainInput = {std::nullopt, false, {1, 1, 1, 1}, {}, std::nullopt, 0};

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
inline const OutputFormat kPlainOutput = {
    Colours::kRgb, 3, Layout::kPixels, false, Element::kUint8, {1, 1, 1, 1}, {}, false, true};

// The pictures of an input: the first of them, how many, and how far apart.
struct Pictures {
  Source source;
  pybind11::ssize_t count = 1, stride = 0;
};

using Shapes = std::vector<std::vector<pybind11::ssize_t>>;

Pictures PicturesOf(const View& view, const InputFormat& format);

// The shapes of what is published for one picture.
Shapes ShapesOf(const OutputFormat& format, pybind11::ssize_t height, pybind11::ssize_t width);

// The planes of what is published for one picture, where the axes of a batch come first.
Target TargetOf(const OutputFormat& format, const std::vector<View>& views);

// What a call publishes into: the caller's own, or new memory.
struct Output {
  pybind11::object result;  // what the call returns
  std::vector<View> views;
  std::vector<pybind11::ssize_t> strides;  // from picture to picture

  pybind11::ssize_t StrideOfPlane(Colours colours, int plane) const {
    return strides[colours == Colours::kYuv
                       ? std::min(static_cast<std::size_t>(plane), strides.size() - 1)
                       : 0];
  }
};

// New arrays in one piece of memory, one picture behind the other.
Output NewOutput(const Shapes& shapes, Element element, pybind11::ssize_t pictures);

// The caller's arrays, which must be of these shapes (or of one more axis) and beside the input.
Output GivenOutput(const pybind11::object& given, const Shapes& shapes, Element element,
                   pybind11::ssize_t pictures, const View& input);

}  // namespace birthmark::python

#endif  // BIRTHMARK_BINDINGS_FORMATS_H_
