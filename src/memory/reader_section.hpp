// Readers take no lock: they walk tables and copy bytes inside a read-side critical section of
// liburcu (Desnoyers et al., "User-Level Implementations of Read-Copy Update", TPDS 2012). A frame
// that a commit has taken out of every table is given out again only after all sections that were
// open then have ended.
#pragma once

// liburcu is not instrumented for ThreadSanitizer: its own functions are called then, and told is
// what a grace period orders.
#if defined(__SANITIZE_THREAD__)
#define HOLDFAST_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HOLDFAST_TSAN 1
#endif
#endif

#include <urcu/tls-compat.h>
// How liburcu declares its thread-local record. C++'s thread_local would ask at each access whether
// there is a constructor to run; it is C, and there is none. In the initial-exec model one load
// finds it, in a shared library as well, where other models call the dynamic linker each time. (Who
// loads such a library with dlopen needs some 300 bytes of what glibc keeps for that, 1.6 KiB.)
#undef URCU_TLS_STORAGE_CLASS
#define URCU_TLS_STORAGE_CLASS __attribute__((tls_model("initial-exec"))) __thread
#include <urcu/urcu-memb.h>
#ifdef HOLDFAST_TSAN
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);
#else
// Entering and leaving a section inline: functions so small that, as the header says, not only LGPL
// programs may use them so.
#include <urcu/static/urcu-memb.h>
#endif

namespace holdfast::memory {

class ReaderSection {
  public:
    ReaderSection() {
        if (!registered) [[unlikely]]
            register_this_thread();
#ifdef HOLDFAST_TSAN
        urcu_memb_read_lock();
        __tsan_acquire(&grace_periods);
#else
        _urcu_memb_read_lock();
#endif
    }
    ~ReaderSection() {
#ifdef HOLDFAST_TSAN
        __tsan_release(&readers);
        urcu_memb_read_unlock();
#else
        _urcu_memb_read_unlock();
#endif
    }
    ReaderSection(const ReaderSection&) = delete;
    ReaderSection& operator=(const ReaderSection&) = delete;

    // Waits until every section that is open now has ended; must not be called inside one.
    static void wait_for_readers();

  private:
    // Until the thread ends.
    static void register_this_thread();
    [[gnu::tls_model("initial-exec")]] static inline constinit thread_local bool registered = false;
    static char readers, grace_periods;
};

}  // namespace holdfast::memory
