#include "embed/row_stream.h"

#include <algorithm>
#include <cstring>

namespace birthmark {
namespace {

// More rows at a time would hardly save anything more.
constexpr int kMostAtATime = 128;
// What the caller sees of one row in the worst case: two rows, for halved colours.
constexpr int kFewestAtATime = 2;

}  // namespace

RowStream::RowStream(const Embedder& embedder, int width, bool alpha)
    : kernel_(&embedder.kernel()),
      marked_(embedder.gains() != nullptr),
      width_(width),
      channels_(alpha ? 4 : 3) {
  if (width < 1 || width > kMostSide) {
    status_ = Status::kSize;
    return;
  }
  if (marked_) std::memcpy(gains_, *embedder.gains(), sizeof(gains_));
  row_values_ = (static_cast<std::size_t>(width) + 2 * kRowSlack - 1) / kRowSlack * kRowSlack;
  const std::size_t grey_bytes = kAbove * row_values_ * sizeof(std::int16_t);
  const std::size_t row_bytes =
      static_cast<std::size_t>(channels_) * row_values_ * sizeof(std::int16_t);
  constexpr std::size_t kTableBytes = (kAbove + kHalo + kMostAtATime) * sizeof(ValueRow);
  constexpr std::size_t kBudget = kStreamBytes - sizeof(Workspace) - kTableBytes - 4096;
  const int affordable =
      grey_bytes < kBudget ? static_cast<int>((kBudget - grey_bytes) / row_bytes) : 0;
  capacity_ = std::clamp(affordable, kHalo + kFewestAtATime, kHalo + kMostAtATime);
  rows_.reset(static_cast<std::int16_t*>(
      std::aligned_alloc(64, grey_bytes + static_cast<std::size_t>(capacity_) * row_bytes)));
  table_.reset(static_cast<ValueRow*>(std::malloc(kTableBytes)));
  work_ = NewWorkspace();
  if (rows_ == nullptr || table_ == nullptr || work_ == nullptr) status_ = Status::kNoMemory;
}

std::int16_t* RowStream::GreyAt(std::int64_t row) const {
  return rows_.get() + static_cast<std::size_t>(row % kAbove) * row_values_;
}
std::int16_t* RowStream::ValueAt(std::int64_t row, int channel) const {
  const std::size_t slot = static_cast<std::size_t>(row % capacity_);
  return rows_.get() +
         (kAbove + slot * static_cast<std::size_t>(channels_) + static_cast<std::size_t>(channel)) *
             row_values_;
}

int RowStream::ready() const { return ended_ ? waiting() : std::max(waiting() - kHalo, 0) & ~1; }

Status RowStream::Push(const Source& rows) {
  if (status_ != Status::kOk) return status_;
  if (ended_) return Status::kStreamEnded;
  const Status status = CheckSource(rows);
  if (status != Status::kOk) return status;
  if (rows.width != width_) return Status::kSize;
  if (rows.height > room()) return Status::kStreamFull;
  const bool alpha_is_there = rows.channel[3].data != nullptr;
  const int loaded = alpha_is_there ? channels_ : 3;
  for (int y = 0; y < rows.height; ++y) {
    std::int16_t* channels[kChannels] = {};
    for (int c = 0; c < channels_; ++c) channels[c] = ValueAt(pushed_ + y, c);
    if (!kernel_->load(rows, y, channels, loaded)) return Status::kNotFinite;
    if (loaded < channels_) {
      std::fill_n(channels[3], width_, static_cast<std::int16_t>(kWhiteQ6));
    }
  }
  pushed_ += rows.height;
  return Status::kOk;
}

Status RowStream::Pull(const Target& target, int count) {
  if (status_ != Status::kOk) return status_;
  if (count < 1 || count > ready()) return Status::kWindow;
  if (target.colours == Colours::kYuv && pulled_ % 2 != 0) return Status::kOddWindow;
  const std::int64_t first = std::max<std::int64_t>(pulled_ - kAbove, 0);
  const std::int64_t end = std::min(pulled_ + count + kHalo, pushed_);
  for (std::int64_t row = first; row < end; ++row) {
    ValueRow& at = table_.get()[row - first];
    for (int c = 0; c < kChannels; ++c) {
      at.channel[c] = row >= pulled_ && c < channels_ ? ValueAt(row, c)
                      : row < pulled_ && c < 3        ? GreyAt(row)
                                                      : nullptr;
    }
  }
  EmbedJob job;
  job.source.loaded = table_.get();
  job.source.width = width_;
  job.source.height = static_cast<int>(end - first);
  job.target = target;
  job.window = {static_cast<int>(pulled_ - first), static_cast<int>(pulled_ - first) + count, 0,
                width_};
  job.gains = marked_ ? &gains_ : nullptr;
  const Status status = CheckJob(job);
  if (status != Status::kOk) return status;
  kernel_->embed(job, *work_);  // what was loaded is finite
  for (std::int64_t row = std::max(pulled_ + count - kAbove, pulled_); row < pulled_ + count;
       ++row) {
    kernel_->luma(table_.get()[row - first], width_, GreyAt(row));
  }
  pulled_ += count;
  return Status::kOk;
}

}  // namespace birthmark
