#include "torch_iir/broadcast.h"

#include <vector>

#include "check.h"

using namespace torch_iir;

namespace {

struct Array {
  std::vector<std::int64_t> size, stride;
  std::int64_t batch_stride[max_batch_dims] = {};
  Operand operand() { return {static_cast<int>(size.size()), size.data(), stride.data(), batch_stride}; }
};

struct Result {
  BroadcastStatus status;
  Shape shape;
  Batch batch;
};

Result run(Array& first, Array& second) {
  Result result;
  const Operand operands[] = {first.operand(), second.operand()};
  result.status = broadcast(operands, result.shape, result.batch);
  return result;
}

bool ok(const Result& result) { return result.status == BroadcastStatus::ok; }

void merges_neighbours() {
  Array x{{2, 3, 4}, {12, 4, 1}}, y{{2, 3, 4}, {120, 40, 10}};
  const Result result = run(x, y);
  CHECK(ok(result) && result.shape.dims == 3 && result.batch.dims == 1 && result.batch.size[0] == 24);
  CHECK(x.batch_stride[0] == 1 && y.batch_stride[0] == 10);
}

void a_bank_reads_its_input_through_stride_0() {
  Array x{{32, 1}, {100, 100}}, b{{128}, {3}};
  const Result result = run(x, b);
  CHECK(ok(result) && result.batch.dims == 2 && result.batch.size[0] == 32 && result.batch.size[1] == 128);
  CHECK(x.batch_stride[0] == 100 && x.batch_stride[1] == 0 && b.batch_stride[0] == 0 && b.batch_stride[1] == 3);
}

void sizes_0_and_1() {
  Array x{{0, 1, 5}, {5, 5, 1}}, y{{1, 1, 1}, {7, 7, 7}};
  const Result empty = run(x, y);
  CHECK(ok(empty) && empty.batch.rows() == 0 && empty.shape.size[0] == 0);
  Array one{{1, 1}, {9, 9}}, none{{}, {}};
  const Result scalar = run(one, none);
  CHECK(ok(scalar) && scalar.batch.dims == 0 && scalar.batch.rows() == 1 && scalar.shape.dims == 2);
}

void errors() {
  Array x{{3}, {1}}, y{{4}, {1}};
  CHECK(run(x, y).status == BroadcastStatus::mismatch);
  Array zero{{0}, {1}};
  CHECK(run(x, zero).status == BroadcastStatus::mismatch);
  // No two neighbours can be merged: the strides fall from the outside to the inside in one operand only.
  Array rising, falling;
  for (int d = 0; d < max_batch_dims + 1; ++d) {
    rising.size.push_back(2);
    rising.stride.push_back(std::int64_t{1} << d);
    falling.size.push_back(2);
    falling.stride.push_back(std::int64_t{1} << (max_batch_dims - d));
  }
  CHECK(run(rising, falling).status == BroadcastStatus::too_many_dims);
}

}  // namespace

int main() {
  merges_neighbours();
  a_bank_reads_its_input_through_stride_0();
  sizes_0_and_1();
  errors();
  return check::result();
}
