// Marks a picture of which only some rows are in memory: push rows, pull rows.
#ifndef BIRTHMARK_EMBED_ROW_STREAM_H_
#define BIRTHMARK_EMBED_ROW_STREAM_H_

#include <cstdint>
#include <cstdlib>
#include <memory>

#include "embed/check.h"
#include "embed/embedder.h"
#include "embed/job.h"

namespace birthmark {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// Pulled rows are, byte for byte, those that the whole picture would have. Rows wait as they were
// loaded until those around them are there; of rows above the next to be pulled only the luma is
// kept. Each pull computes the texture of its surroundings anew, so pull as many rows as there are.
// Nothing is allocated after the beginning, and at most kStreamBytes for up to 16384 columns.
class RowStream {
 public:
  static constexpr std::size_t kStreamBytes = std::size_t{4} << 20;

  // `alpha`: whether an alpha channel is kept for targets that have one. The embedder is not
  // needed later on. Check is_valid() before any other use.
  RowStream(const Embedder& embedder, int width, bool alpha);

  // kOk, or why the stream cannot be used: kSize, kNoMemory.
  Status status() const { return status_; }

  // How many rows may be pushed now, and how many be pulled.
  int room() const { return ended_ ? 0 : capacity_ - waiting(); }
  int ready() const;

  // Takes all of the rows or, unless it returns kOk, none of them.
  Status Push(const Source& rows);
  // After the last row: those that wait become ready.
  void End() { ended_ = true; }
  // Writes the next `count` rows. For a target with halved colours that is an even number, except
  // at the end.
  Status Pull(const Target& target, int count);

 private:
  // Rows above the next one that it depends on, and one more so that they are an even number.
  static constexpr int kAbove = kHalo + 1;

  int waiting() const { return static_cast<int>(pushed_ - pulled_); }
  std::int16_t* ValueAt(std::int64_t row, int channel) const;
  std::int16_t* GreyAt(std::int64_t row) const;

  const Kernel* kernel_;
  bool marked_;
  Gains gains_ = {};
  int width_, channels_;
  int capacity_ = 0;
  std::size_t row_values_ = 0;  // between one row of a channel and the next
  bool ended_ = false;
  Status status_ = Status::kOk;
  std::int64_t pushed_ = 0, pulled_ = 0;
  std::unique_ptr<std::int16_t, Free> rows_;  // kAbove greys, then `capacity_` times the channels
  std::unique_ptr<ValueRow, Free> table_;
  WorkspacePointer work_;
};

}  // namespace birthmark

#endif  // BIRTHMARK_EMBED_ROW_STREAM_H_
