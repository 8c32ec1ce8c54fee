// A stream of rows between Python's arrays.
#ifndef BIRTHMARK_BINDINGS_STREAM_H_
#define BIRTHMARK_BINDINGS_STREAM_H_

#include <pybind11/pybind11.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <string>

#include "bindings/arrays.h"
#include "bindings/formats.h"
#include "embed/embedder.h"
#include "embed/row_stream.h"

namespace birthmark::python {

// A target further down: `rows` rows of the first plane.
inline Target Below(Target target, std::ptrdiff_t rows) {
  for (int p = 0; p < kChannels; ++p) {
    if (target.plane[p].data == nullptr) continue;
    const bool halved = target.colours == Colours::kYuv && p > 0;
    target.plane[p].data += (halved ? rows / 2 : rows) * target.plane[p].row_stride;
  }
  return target;
}

// A stream and its formats. The lock is for callers who forget that it is for one thread.
class Stream {
 public:
  Stream(const Embedder& embedder, pybind11::ssize_t width, const std::optional<InputFormat>& input,
         const std::optional<OutputFormat>& output)
      : input_(input.value_or(kPlainInput)),
        output_(output.value_or(kPlainOutput)),
        width_(CheckedSide(width)),
        rows_(embedder, width_, output_.channels == 4) {
    RaiseUnlessOk(rows_.status());
  }

  // Takes the rows and returns those that have become ready.
  pybind11::object Push(const pybind11::object& x) {
    const View view = ViewOf(x, "a block of rows");
    const Pictures pictures = PicturesOf(view, input_);
    if (pictures.count != 1 || pictures.source.width != width_) {
      Raise("InvalidArray", "a block of rows has " + std::to_string(width_) +
                                " columns and is no batch, not " + Join(view.shape));
    }
    RaiseUnlessOk(CheckSource(pictures.source));
    return Run(pictures.source);
  }

  // Returns the rows that waited for others below them.
  pybind11::object Finish() {
    Source nothing;
    nothing.height = 0;
    return Run(nothing);
  }

 private:
  pybind11::object Run(const Source& source) {
    const bool end = source.height == 0;
    std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) Raise("InvalidArray", "the stream is at work in another thread");
    if (ended_) RaiseUnlessOk(Status::kStreamEnded);
    const pybind11::ssize_t total =
        end ? waiting_ : std::max<pybind11::ssize_t>(waiting_ + source.height - kHalo, 0) & ~1;
    const Output output = NewOutput(ShapesOf(output_, total, width_), output_.element, 1);
    Status status = Status::kOk;
    {
      pybind11::gil_scoped_release release;
      status = Advance(source, end, TargetOf(output_, output.views), total);
    }
    waiting_ += source.height - total;
    if (status != Status::kOk || end) {
      ended_ = true;
    }
    RaiseUnlessOk(status);
    return output.result;
  }

  Status Advance(const Source& source, bool end, const Target& target, pybind11::ssize_t total) {
    pybind11::ssize_t pushed = 0, pulled = 0;
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
  pybind11::ssize_t waiting_ = 0;
  bool ended_ = false;
  std::mutex mutex_;
};

}  // namespace birthmark::python

#endif  // BIRTHMARK_BINDINGS_STREAM_H_
