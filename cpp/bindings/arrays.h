// Arrays and tensors as Python gives them: checked, and where their values lie.
#ifndef BIRTHMARK_BINDINGS_ARRAYS_H_
#define BIRTHMARK_BINDINGS_ARRAYS_H_

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/raise.h"
#include "embed/check.h"
#include "embed/job.h"

namespace birthmark::python {

void RaiseUnlessOk(Status status);

std::string NameOfType(const pybind11::handle& object);

// An argument that must be an array; pybind's own message would print what it is instead.
pybind11::array CheckedArray(const pybind11::object& object, const char* what);

// An argument that must be bytes; its content is a secret that no message may show.
std::string CheckedBytes(const pybind11::object& object, const char* error, const char* what);

// Somebody's memory, as numpy or DLPack describe it. Strides are bytes.
struct View {
  std::uint8_t* data = nullptr;
  Element element = Element::kUint8;
  std::vector<pybind11::ssize_t> shape, strides;
  bool writeable = false;
  pybind11::object owner;  // keeps the memory

  int axes() const { return static_cast<int>(shape.size()); }
};

std::string Join(const std::vector<pybind11::ssize_t>& shape);

[[noreturn]] void RaiseElement(const std::string& what, const std::string& found);

std::optional<Element> ElementNamed(const std::string& name);

View ViewOfArray(const pybind11::array& array, const std::string& what);

// Of an array, or of whatever shares its memory by the DLPack protocol.
View ViewOf(const pybind11::object& object, const std::string& what);

int CheckedSide(pybind11::ssize_t side);

// The bytes [begin, end) among which a view's are, as addresses.
Extent ExtentOf(const View& view);

}  // namespace birthmark::python

#endif  // BIRTHMARK_BINDINGS_ARRAYS_H_
