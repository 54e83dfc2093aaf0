// Threads that wait for work, and the hook by which a plan uses them.
//
// A run hands each thread at most one range of rows, and waits for all. Nothing is allocated and nothing is locked, but
// waking a thread is a system call: worth it for many channels and long blocks, and no business of a hard deadline. A
// host with real-time threads of its own puts them here instead.
#pragma once

#include <torch_iir/batch.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

class ThreadPool {
 public:
  // The calling thread is one of them.
  explicit ThreadPool(int threads) {
    for (int index = 1; index < threads; ++index) workers_.emplace_back([this, index] { work(index); });
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() {
    stopping_ = true;
    start();
    for (std::thread& worker : workers_) worker.join();
  }

  // For one run at a time. The pool must outlive the plans that have it.
  torch_iir::ParallelFor hook() noexcept {
    return {[](void* pool, std::int64_t count, std::int64_t grain, torch_iir::ParallelFor::Body body, void* argument) {
              static_cast<ThreadPool*>(pool)->run(count, grain, body, argument);
            },
            this};
  }

 private:
  void run(std::int64_t count, std::int64_t grain, torch_iir::ParallelFor::Body body, void* argument) noexcept {
    const auto threads = static_cast<std::int64_t>(workers_.size()) + 1;
    job_ = {body, argument, count, std::clamp<std::int64_t>(count / std::max<std::int64_t>(grain, 1), 1, threads)};
    if (job_.ranges == 1) return body(argument, 0, count);
    busy_ = static_cast<int>(workers_.size());
    start();
    job_.run(0);
    for (int busy = busy_; busy != 0; busy = busy_) busy_.wait(busy);
  }

  void work(int index) noexcept {
    for (unsigned seen = 0;;) {
      turn_.wait(seen);
      seen = turn_;
      if (stopping_) return;
      if (index < job_.ranges) job_.run(index);
      if (--busy_ == 0) busy_.notify_one();
    }
  }

  void start() noexcept {
    ++turn_;
    turn_.notify_all();
  }

  struct Job {
    torch_iir::ParallelFor::Body body = nullptr;
    void* argument = nullptr;
    std::int64_t count = 0, ranges = 1;

    void run(std::int64_t index) const noexcept {
      body(argument, count * index / ranges, count * (index + 1) / ranges);
    }
  };

  Job job_;
  std::atomic<unsigned> turn_ = 0;  // one more with every job
  std::atomic<int> busy_ = 0;       // workers that have not finished it
  std::atomic<bool> stopping_ = false;
  std::vector<std::thread> workers_;  // last: they use the others
};
