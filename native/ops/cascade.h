// The coefficients of a cascade of rational filters, b and a of the shapes (..., S, length).
#pragma once

#include <limits>

#include "storage.h"

namespace torch_iir::ops {

struct Cascade {
  Tensor b, a;

  Cascade(Handle b_, Handle a_) : b(argument("b", std::move(b_))), a(argument("a", std::move(a_))) {
    for (const Tensor* c : {&b, &a}) {
      STD_TORCH_CHECK(c->dims >= 2 && c->length() > 0 && c->size[c->dims - 2] > 0, c->name,
                      " must have the shape (..., S, K) with S and K at least 1, got ", describe({c}));
      STD_TORCH_CHECK(c->length() <= most && c->size[c->dims - 2] <= most, c->name, " is too large: ", describe({c}));
    }
    STD_TORCH_CHECK(b.size[b.dims - 2] == a.size[a.dims - 2], "b and a must have the same number of sections, got ",
                    describe({&b, &a}));
  }

  int sections() const { return static_cast<int>(b.size[b.dims - 2]); }
  bool complex() const { return is_complex(b.dtype) || is_complex(a.dtype); }

  // Into the parameters of a kernel.
  template <class Kernel, class Values>
  void give(Kernel& kernel, const Values& b_, const std::int64_t* b_stride, const Values& a_,
            const std::int64_t* a_stride) const {
    kernel.sections = sections();
    kernel.b_length = static_cast<int>(b.length());
    kernel.a_length = static_cast<int>(a.length());
    kernel.b = matrices_of<false>(b_.data, b_.down(), b_.step(), b_stride, kernel.batch);
    kernel.a = matrices_of<false>(a_.data, a_.down(), a_.step(), a_stride, kernel.batch);
  }

 private:
  static constexpr std::int64_t most = std::numeric_limits<int>::max() / 64;
};

}  // namespace torch_iir::ops
