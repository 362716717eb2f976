// Who changes the medium goes through a gate; who must see it at rest closes the gate, waits until
// nobody is inside, and then reads in peace. Passing costs two atomic operations on one word, and
// no fence of the medium.
//
// Inside is: a commit; the reservation and the giving up of a build; the release of limbo and of
// interrupted builds; the growth of the store. So between closing and opening every commit is there
// whole or not at all, and every build that is under way is named by its slot. What a transaction
// writes outside of that (frames that nothing leads to, the words that mean nothing while a frame
// is free) no check looks at.
//
// Thread safety: all of it. A thread that is inside may go in again; it must not close the gate.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

namespace holdfast::table {

class ChangeGate {
  public:
    // While one lives, its thread is inside.
    class Inside {
      public:
        explicit Inside(ChangeGate& gate) : gate_(gate), outer_(entered) {
            if (outer_ == &gate_) return;
            gate_.enter();
            entered = &gate_;
        }
        ~Inside() {
            if (outer_ == &gate_) return;
            entered = outer_;
            gate_.leave();
        }
        Inside(const Inside&) = delete;
        Inside& operator=(const Inside&) = delete;

      private:
        ChangeGate& gate_;
        const ChangeGate* const outer_;
    };

    // While one lives, nobody is inside.
    class Closed {
      public:
        explicit Closed(ChangeGate& gate) : gate_(gate), one_at_a_time_(gate.closing_) {
            gate_.closed_.store(true);
            for (std::uint32_t inside; (inside = gate_.inside_.load()) != 0;)
                gate_.inside_.wait(inside);
        }
        ~Closed() {
            gate_.closed_.store(false);
            gate_.closed_.notify_all();
        }
        Closed(const Closed&) = delete;
        Closed& operator=(const Closed&) = delete;

      private:
        ChangeGate& gate_;
        const std::scoped_lock<std::mutex> one_at_a_time_;
    };

  private:
    // Sequentially consistent: either who enters sees that the gate is closed, or who closes it
    // sees that somebody is inside.
    void enter() {
        while (inside_.fetch_add(1), closed_.load()) [[unlikely]] {
            leave();
            closed_.wait(true);
        }
    }
    void leave() {
        if (inside_.fetch_sub(1) == 1 && closed_.load()) [[unlikely]]
            inside_.notify_all();
    }

    static inline thread_local constinit const ChangeGate* entered = nullptr;

    std::atomic<std::uint32_t> inside_ = 0;
    std::atomic<bool> closed_ = false;
    std::mutex closing_;
};

}  // namespace holdfast::table
