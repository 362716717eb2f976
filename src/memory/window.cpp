#include "memory/window.hpp"

#include <sys/mman.h>

namespace holdfast::memory {

void MarksUnmap::operator()(ValidatedMark* marks) const {
    munmap(static_cast<void*>(marks), size_bytes);
}

Window::Window(FrameNumber first, std::uint64_t count, std::byte* host, FrameNumber first_mark,
               std::uint64_t mark_count)
    : first_(first.value()), host_(host), first_mark_(first_mark.value()) {
    const std::size_t size_bytes = mark_count * sizeof(ValidatedMark);
    void* const memory = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return;
    marks_ = decltype(marks_)(static_cast<ValidatedMark*>(memory), MarksUnmap{size_bytes});
    count_ = count;
}

}  // namespace holdfast::memory
