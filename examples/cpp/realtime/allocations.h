// Counts what the whole program allocates and frees between two marks: every thread, every library.
#pragma once

#include <cstdint>
#include <string_view>

namespace allocations {

void begin() noexcept;        // counts from 0
std::int64_t end() noexcept;  // how many calls there were since

// Something that begin() and end() must notice: a function that allocates or frees by the function of that name. Null
// where there is none.
using Plant = void (*)();
Plant find_plant(std::string_view name) noexcept;
extern const char* const plants;  // the names

}  // namespace allocations
