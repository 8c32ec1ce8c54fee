// Errors as Python has them: classes of birthmark.errors.
#ifndef BIRTHMARK_BINDINGS_RAISE_H_
#define BIRTHMARK_BINDINGS_RAISE_H_

#include <pybind11/pybind11.h>

#include <string>

namespace birthmark::python {

[[noreturn]] inline void Raise(const char* error, const std::string& message) {
  namespace py = pybind11;
  const py::object type = py::module_::import("birthmark.errors").attr(error);
  PyErr_SetString(type.ptr(), message.c_str());
  throw py::error_already_set();
}

}  // namespace birthmark::python

#endif  // BIRTHMARK_BINDINGS_RAISE_H_
