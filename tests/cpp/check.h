// What the C++ tests and the fuzzers say "must" with.
#ifndef BIRTHMARK_TESTS_CPP_CHECK_H_
#define BIRTHMARK_TESTS_CPP_CHECK_H_

#include <cstdio>
#include <cstdlib>

namespace checks {

// Ends the process where a condition does not hold: a test fails, and a fuzzer keeps its input.
inline void Check(bool condition, const char* what, int line) {
  if (condition) return;
  std::fprintf(stderr, "line %d: %s\n", line, what);
  std::abort();
}

}  // namespace checks

#define CHECK(condition) checks::Check(condition, #condition, __LINE__)

#endif  // BIRTHMARK_TESTS_CPP_CHECK_H_
