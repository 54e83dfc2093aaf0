// The program's own malloc, free and relatives, which the linker puts before those of glibc in every library that the
// program loads. operator new and delete of the C++ library call these, too.
#include "allocations.h"

#include <malloc.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <utility>

extern "C" {  // glibc's own, under names that nobody replaces
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);
}

namespace {

std::atomic<bool> counting = false;
std::atomic<std::int64_t> calls = 0;

void count() noexcept {
  if (counting.load(std::memory_order_relaxed)) calls.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

extern "C" {

void* malloc(std::size_t size) noexcept {
  count();
  return __libc_malloc(size);
}

void* calloc(std::size_t number, std::size_t size) noexcept {
  count();
  return __libc_calloc(number, size);
}

void* realloc(void* memory, std::size_t size) noexcept {
  count();
  return __libc_realloc(memory, size);
}

void* memalign(std::size_t alignment, std::size_t size) noexcept {
  count();
  return __libc_memalign(alignment, size);
}

void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept { return memalign(alignment, size); }

int posix_memalign(void** memory, std::size_t alignment, std::size_t size) noexcept {
  if (alignment % sizeof(void*) != 0 || alignment == 0 || (alignment & (alignment - 1)) != 0) return EINVAL;
  void* const found = memalign(alignment, size);
  if (found == nullptr) return ENOMEM;
  *memory = found;
  return 0;
}

void free(void* memory) noexcept {
  if (memory != nullptr) count();  // else nothing happens
  __libc_free(memory);
}

}  // extern "C"

namespace allocations {
namespace {

void* volatile kept = std::malloc(8);  // volatile: otherwise a compiler may leave out memory that nobody uses

struct alignas(256) Wide {
  char bytes[256];
};

constexpr std::pair<const char*, Plant> functions[] = {
    {"malloc", [] { kept = std::malloc(8); }},
    {"calloc", [] { kept = std::calloc(8, 8); }},
    {"realloc", [] { kept = std::realloc(nullptr, 8); }},
    {"aligned_alloc", [] { kept = std::aligned_alloc(64, 64); }},
    {"posix_memalign",
     [] {
       void* memory = nullptr;
       if (posix_memalign(&memory, 64, 64) == 0) kept = memory;
     }},
    {"free", [] { std::free(kept); }},
    {"new", [] { kept = new int(1); }},
    {"aligned-new", [] { kept = new Wide; }},
};

}  // namespace

const char* const plants = "malloc, calloc, realloc, aligned_alloc, posix_memalign, free, new, aligned-new";

void begin() noexcept {
  calls = 0;
  counting = true;
}

std::int64_t end() noexcept {
  counting = false;
  return calls;
}

Plant find_plant(std::string_view name) noexcept {
  for (const auto& [known, function] : functions)
    if (name == known) return function;
  return nullptr;
}

}  // namespace allocations
