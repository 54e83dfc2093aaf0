// Inputs and expected outputs, as export.py saves them.
#pragma once

#include <ATen/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Case {
  std::vector<at::Tensor> inputs, outputs;
};

class CasesFile {
 public:
  explicit CasesFile(const std::string& path) : file_(path, std::ios::binary) {
    if (!file_) throw std::runtime_error("cannot read " + path);
    file_.exceptions(std::ios::failbit);  // if it ends too soon
  }

  std::vector<Case> read() {
    std::vector<Case> cases(integer());
    for (Case& one : cases) {
      one.inputs = tensors();
      one.outputs = tensors();
    }
    return cases;
  }

 private:
  std::int64_t integer() {
    std::int64_t value = 0;
    file_.read(reinterpret_cast<char*>(&value), sizeof value);
    return value;
  }

  std::vector<at::Tensor> tensors() {
    std::vector<at::Tensor> list(integer());
    for (at::Tensor& tensor : list) {
      std::vector<std::int64_t> size(integer());
      for (std::int64_t& length : size) length = integer();
      tensor = at::empty(size);
      file_.read(static_cast<char*>(tensor.data_ptr()), static_cast<std::streamsize>(tensor.nbytes()));
    }
    return list;
  }

  std::ifstream file_;
};

// The largest difference of any sample, as a share of the largest expected one; not a number where the sizes differ.
inline double difference(const at::Tensor& found, const at::Tensor& expected) {
  if (found.sizes() != expected.sizes()) return NAN;
  const at::Tensor contiguous = found.contiguous();
  const float* const f = contiguous.const_data_ptr<float>();
  const float* const e = expected.const_data_ptr<float>();
  double largest = 0, off = 0;
  for (std::int64_t i = 0; i < expected.numel(); ++i) {
    const double here = std::abs(double{f[i]} - double{e[i]});
    if (std::isnan(here)) return NAN;
    largest = std::max(largest, std::abs(double{e[i]}));
    off = std::max(off, here);
  }
  return off == 0 ? 0 : off / largest;
}
