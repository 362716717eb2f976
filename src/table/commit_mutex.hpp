// The store's commit lock: held while limbo, or the reference count of what several spaces share,
// changes; commits that change neither do not wait for it.
//
// Thread safety: all of it.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

namespace holdfast::table {

class CommitMutex {
  public:
    void lock() {
        mutex_.lock();
        holder_ = std::this_thread::get_id();
    }
    void unlock() {
        holder_ = std::thread::id();
        mutex_.unlock();
    }
    bool is_held_by_this_thread() const { return holder_.load() == std::this_thread::get_id(); }

  private:
    std::mutex mutex_;
    std::atomic<std::thread::id> holder_;
};

}  // namespace holdfast::table
