// Readers take no lock: they walk tables and copy bytes inside a read-side critical section of
// liburcu (Desnoyers et al., "User-Level Implementations of Read-Copy Update", TPDS 2012). A frame
// that a commit has taken out of every table is given out again only after all sections that were
// open then have ended.
#pragma once

#define URCU_INLINE_SMALL_FUNCTIONS
#include <urcu/urcu-memb.h>

// liburcu is not instrumented for ThreadSanitizer: tell it what a grace period orders.
#if defined(__SANITIZE_THREAD__)
#define HOLDFAST_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HOLDFAST_TSAN 1
#endif
#endif
#ifdef HOLDFAST_TSAN
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);
#endif

namespace holdfast::memory {

class ReaderSection {
  public:
    ReaderSection() {
        thread_local const Registration registration;
        (void)registration;
        urcu_memb_read_lock();
#ifdef HOLDFAST_TSAN
        __tsan_acquire(&grace_periods);
#endif
    }
    ~ReaderSection() {
#ifdef HOLDFAST_TSAN
        __tsan_release(&readers);
#endif
        urcu_memb_read_unlock();
    }
    ReaderSection(const ReaderSection&) = delete;
    ReaderSection& operator=(const ReaderSection&) = delete;

    // Waits until every section that is open now has ended; must not be called inside one.
    static void wait_for_readers();

  private:
    struct Registration {
        Registration() { urcu_memb_register_thread(); }
        ~Registration() { urcu_memb_unregister_thread(); }
    };
    static char readers, grace_periods;
};

}  // namespace holdfast::memory
