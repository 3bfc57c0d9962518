// Threads that share the panels of a product, kept by the process for whoever calls.
//
// OpenMP keeps a team for every calling thread, and where all teams together are more threads than the
// processor has, their waits become sleeps: a lab, which decodes in a thread of its own, was far slower.
// Here is one team, which one caller at a time has; another one works alone meanwhile. Parts are
// taken, not given out, so nobody waits for a helper that the system did not let run.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

#include <pthread.h>
#include <signal.h>

namespace {

inline void rest() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr int PATIENCE = 2000;  // looks at what may have come before a thread lies down or gives way

class Team {
 public:
  // Calls work(part) for each of at most 65535 parts; false = another caller has the helpers.
  template <class Work>
  bool run(int helpers, uint64_t parts, Work& work) {
    std::unique_lock<std::mutex> mine(taken_, std::try_to_lock);
    if (!mine.owns_lock()) return false;
    hire(helpers);
    call_ = [](void* what, int part) { (*static_cast<Work*>(what))(part); };
    what_ = &work;
    done_.store(0, std::memory_order_relaxed);
    const uint64_t turn = (offer_.load(std::memory_order_relaxed) >> 32) + 1;
    offer_.store(turn << 32 | parts << 16);  // in one order with asleep_: see help()
    if (asleep_.load() > 0) {
      std::lock_guard<std::mutex> lock(bed_);
      bell_.notify_all();
    }
    take();
    for (int looks = 0; done_.load(std::memory_order_acquire) < parts; ++looks)
      looks < PATIENCE ? rest() : std::this_thread::yield();
    return true;
  }

 private:
  // What is offered: a turn (32 bits), how many parts it has, and the next one that nobody took.
  static bool open(uint64_t offer) { return (offer & 0xffff) < (offer >> 16 & 0xffff); }

  // Take parts until none is left. Whoever took one may look at the work: its turn waits for it.
  void take() {
    uint64_t offer = offer_.load();
    while (open(offer))
      if (offer_.compare_exchange_weak(offer, offer + 1)) {
        call_(what_, static_cast<int>(offer & 0xffff));
        done_.fetch_add(1, std::memory_order_release);
        offer = offer_.load();
      }
  }

  // Helpers leave signals to the threads that were there before.
  void hire(int wanted) {
    if (helpers_ >= wanted) return;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    try {
      for (; helpers_ < wanted; ++helpers_) std::thread(&Team::help, this).detach();
    } catch (const std::system_error&) {  // no more to be had: those there are do it
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  // Either the caller sees that somebody sleeps, or whoever lies down sees the offer.
  void help() {
    for (;;) {
      for (int looks = 0; !open(offer_.load()) && looks < PATIENCE; ++looks) rest();
      if (!open(offer_.load())) {
        std::unique_lock<std::mutex> lock(bed_);
        asleep_.fetch_add(1);
        bell_.wait(lock, [&] { return open(offer_.load()); });
        asleep_.fetch_sub(1);
      }
      take();
    }
  }

  std::mutex taken_, bed_;
  std::condition_variable bell_;
  std::atomic<uint64_t> offer_{0}, done_{0};
  std::atomic<int> asleep_{0};
  void (*call_)(void*, int) = nullptr;
  void* what_ = nullptr;
  int helpers_ = 0;
};

// Never taken down: helpers wait in it until the process ends. A forked process has no helpers yet.
inline Team*& team() {
  static Team* one = [] {
    pthread_atfork(nullptr, nullptr, [] { team() = new Team; });
    return new Team;
  }();
  return one;
}

// work(from, to) for stretches that together are [0, count), by up to so many threads.
template <class Work>
void shared(int64_t threads, int64_t count, const Work& work) {
  constexpr int64_t EACH = 4;  // parts for each thread: who comes late takes fewer
  const int64_t parts = threads * EACH < count ? threads * EACH : count;
  auto part = [&](int64_t i) { work(count * i / parts, count * (i + 1) / parts); };
  const int helpers = static_cast<int>(threads) - 1;
  if (threads > 1 && count > 1 && parts < 65536 && team()->run(helpers, parts, part)) return;
  if (count > 0) work(int64_t{0}, count);
}

}  // namespace
