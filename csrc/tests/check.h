// Checks that report file, line, expression and values, and go on. A test program is a list of functions given to
// `run`.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>

#include "cpu/dispatch.h"

namespace lsc::test {

inline int failures = 0;

inline void report(bool holds, const char* file, int line, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("%s:%d: %s\n", file, line, what.c_str());
}

// Within tol of `expected`, relative where that is larger than 1. NaN is near nothing.
inline void report_near(double value, double expected, double tol, const char* file, int line, const char* what) {
  const bool near = value == expected || std::abs(value - expected) <= tol * std::max(1.0, std::abs(expected));
  char text[512];
  std::snprintf(text, sizeof text, "%s: expected %.17g within %g, got %.17g", what, expected, tol, value);
  report(near, file, line, text);
}

#define CHECK(condition) ::lsc::test::report(bool(condition), __FILE__, __LINE__, "expected " #condition)
#define CHECK_NEAR(value, expected, tol) \
  ::lsc::test::report_near(double(value), double(expected), tol, __FILE__, __LINE__, #value)
#define CHECK_THROWS(expression, Exception)                                                     \
  do {                                                                                          \
    bool thrown = false;                                                                        \
    try {                                                                                       \
      expression;                                                                               \
    } catch (const Exception&) {                                                                \
      thrown = true;                                                                            \
    }                                                                                           \
    ::lsc::test::report(thrown, __FILE__, __LINE__, "expected " #Exception " of " #expression); \
  } while (false)

struct Case {
  const char* name;
  void (*body)();
};

// What ctest is told with SKIP_RETURN_CODE: the instruction set asked for is compiled, but not of this machine.
inline constexpr int kSkipped = 77;

inline bool instruction_set_missing() {
  const char* wanted = std::getenv("LSC_INSTRUCTION_SET");
  if (!wanted) return false;
  bool compiled = false;
  for (const std::string& name : cpu::compiled_instruction_sets()) compiled |= name == wanted;
  try {
    cpu::instruction_set();
  } catch (const std::exception&) {
    return compiled;
  }
  return false;
}

inline int run(std::initializer_list<Case> cases) {
  if (instruction_set_missing()) {
    std::printf("skipped: this machine has no %s\n", std::getenv("LSC_INSTRUCTION_SET"));
    return kSkipped;
  }
  for (const Case& item : cases) {
    const int before = failures;
    try {
      item.body();
    } catch (const std::exception& error) {
      report(false, item.name, 0, std::string("threw ") + error.what());
    }
    std::printf("%s %s\n", failures == before ? "ok    " : "FAILED", item.name);
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace lsc::test
