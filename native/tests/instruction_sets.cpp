#include "torch_iir/instruction_sets.h"

#include <cstdlib>
#include <cstring>
#include <string_view>

#include "check.h"

using namespace torch_iir;

int main() {
  CHECK(!instruction_sets().empty());
  CHECK(instruction_sets().front().supported, "the most portable one");
  if (std::getenv("TORCH_IIR_ISA") == nullptr) {
    CHECK(isa_error() == nullptr);
    std::string_view best;
    for (const auto& set : instruction_sets())
      if (set.supported) best = set.name;
    CHECK(best == isa(), best, isa());
  }
  for (const auto& set : instruction_sets()) {
    const std::string_view before = isa();
    CHECK(set_isa(set.name) == set.supported, set.name);
    CHECK((set.supported ? set.name : before) == isa(), set.name);
  }
  const std::string_view before = isa();
  CHECK(!set_isa("mmx"));
  CHECK(before == isa());
  CHECK(std::strlen(compiler()) > 0);
  return check::result();
}
