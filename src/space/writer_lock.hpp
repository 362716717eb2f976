// The lock that one writer of a space holds from its first call to its commit. Not a std::mutex,
// because a Transaction may be committed by another thread than the one that began it, and because
// a thread that would wait for itself must be told instead.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

namespace holdfast::space {

class WriterLock {
  public:
    enum class Outcome : std::uint8_t { locked, held_by_this_thread, would_wait };

    // `may_wait` says whether waiting is safe; if not, `would_wait` is a possible answer.
    Outcome lock(bool may_wait) {
        std::unique_lock guard(mutex_);
        while (held_) {
            if (holder_ == std::this_thread::get_id()) return Outcome::held_by_this_thread;
            if (!may_wait) return Outcome::would_wait;
            free_.wait(guard);
        }
        held_ = true;
        holder_ = std::this_thread::get_id();
        return Outcome::locked;
    }
    // Then this thread must not wait for anybody who may wait for the lock.
    bool is_held_by_this_thread() const {
        const std::scoped_lock guard(mutex_);
        return held_ && holder_ == std::this_thread::get_id();
    }
    void unlock() {
        {
            const std::scoped_lock guard(mutex_);
            held_ = false;
        }
        free_.notify_one();
    }

  private:
    mutable std::mutex mutex_;
    std::condition_variable free_;
    bool held_ = false;
    std::thread::id holder_;
};

}  // namespace holdfast::space
