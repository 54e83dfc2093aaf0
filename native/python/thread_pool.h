// The threads of a plan: a ParallelFor over workers that wait from one run to the next.
//
// Ranges are handed out one after the other, to the calling thread, too: it does what the workers are too late for.
// A child of fork() has no workers; there the calling thread does everything.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "torch_iir/batch.h"

namespace torch_iir::python {

class ThreadPool {
 public:
  // The calling thread is one of them.
  explicit ThreadPool(int threads) : shared_(std::make_unique<Shared>()) {
    for (int i = 1; i < threads; ++i) shared_->workers.emplace_back([shared = shared_.get()] { shared->work(); });
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() {
    // In a child of fork() nobody can be joined, and the condition's destructor would wait for those who waited on it.
    if (!has_workers()) static_cast<void>(shared_.release());
  }

  // For one caller at a time.
  ParallelFor parallel_for() noexcept { return {&ThreadPool::run, this}; }

 private:
  struct Shared {
    std::mutex mutex;
    std::condition_variable begin, end;
    std::vector<std::thread> workers;
    bool stop = false;
    // the run at hand
    ParallelFor::Body body = nullptr;
    void* argument = nullptr;
    std::int64_t count = 0, parts = 0, next = 0, unfinished = 0;

    ~Shared() {
      {
        const std::lock_guard lock(mutex);
        stop = true;
      }
      begin.notify_all();
      for (std::thread& worker : workers) worker.join();
    }

    void work() {
      std::unique_lock lock(mutex);
      for (;;) {
        begin.wait(lock, [this] { return stop || next < parts; });
        if (stop) return;
        take(lock);
      }
    }

    // Does the parts that are left; held before and after.
    void take(std::unique_lock<std::mutex>& lock) {
      while (next < parts) {
        const std::int64_t part = next++, quotient = count / parts, remainder = count % parts;
        const std::int64_t first = part * quotient + std::min(part, remainder);
        lock.unlock();
        body(argument, first, first + quotient + (part < remainder ? 1 : 0));
        lock.lock();
        if (--unfinished == 0) end.notify_one();
      }
    }
  };

  bool has_workers() const noexcept { return process_ == getpid(); }

  static void run(void* context, std::int64_t count, std::int64_t grain, ParallelFor::Body body, void* argument) {
    const ThreadPool& pool = *static_cast<const ThreadPool*>(context);
    Shared& shared = *pool.shared_;
    const auto threads = static_cast<std::int64_t>(shared.workers.size()) + 1;
    const std::int64_t parts = std::min(threads, count / std::max<std::int64_t>(grain, 1));
    if (parts <= 1 || !pool.has_workers()) return body(argument, 0, count);
    std::unique_lock lock(shared.mutex);
    shared.body = body;
    shared.argument = argument;
    shared.count = count;
    shared.parts = shared.unfinished = parts;
    shared.next = 0;
    shared.begin.notify_all();
    shared.take(lock);
    shared.end.wait(lock, [&] { return shared.unfinished == 0; });
  }

  std::unique_ptr<Shared> shared_;
  pid_t process_ = getpid();
};

}  // namespace torch_iir::python
