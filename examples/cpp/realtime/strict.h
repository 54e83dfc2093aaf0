// Runs a function where every system call is deadly.
#pragma once

namespace strict {

enum class Verdict {
  silent,       // no system call
  killed,       // there was one
  failed,       // none, but the function returned false
  unavailable,  // this system has no seccomp, or forbids it
};

// In a copy of the process that Linux allows to read, write and exit, and nothing else: no memory from the system, no
// lock that waits, no file, no clock that is not read in user space. Threads are not copied.
Verdict run(bool (*function)(void*), void* argument) noexcept;

}  // namespace strict
