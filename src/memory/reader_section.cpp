#include "memory/reader_section.hpp"

namespace holdfast::memory {

char ReaderSection::readers, ReaderSection::grace_periods;

void ReaderSection::register_this_thread() {
    struct Registration {
        Registration() { urcu_memb_register_thread(); }
        ~Registration() { urcu_memb_unregister_thread(); }
    };
    thread_local const Registration registration;
    registered = true;
}

void ReaderSection::wait_for_readers() {
    urcu_memb_synchronize_rcu();
#ifdef HOLDFAST_TSAN
    __tsan_acquire(&readers);
    __tsan_release(&grace_periods);
#endif
}

}  // namespace holdfast::memory
