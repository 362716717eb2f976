#include "support/page_touches.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cstdlib>

namespace holdfast::test {
namespace {

constexpr std::uint64_t kPage = 4096;

// Plain static state: a signal handler reads it.
bool armed = false;
dev_t watched_device;
ino_t watched_inode;
std::uintptr_t range_begin = 0, range_end = 0;
std::atomic<std::uint64_t> touched = 0;
struct sigaction previous;

void on_fault(int signal, siginfo_t* info, void* context) {
    const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
    if (address >= range_begin && address < range_end) {
        ++touched;
        mprotect(static_cast<char*>(info->si_addr) - address % kPage, kPage,
                 PROT_READ | PROT_WRITE);
        return;
    }
    if ((previous.sa_flags & SA_SIGINFO) != 0 && previous.sa_sigaction != nullptr) {
        previous.sa_sigaction(signal, info, context);
        return;
    }
    sigaction(SIGSEGV, &previous, nullptr);  // faults again, and then in earnest
}

void watch(void* address, std::size_t size_bytes, int fd) {
    struct stat status{};
    if (!armed || fd < 0 || address == MAP_FAILED || fstat(fd, &status) != 0 ||
        status.st_dev != watched_device || status.st_ino != watched_inode)
        return;
    const auto begin = reinterpret_cast<std::uintptr_t>(address);
    if (size_bytes < range_end - range_begin) return;  // a header, mapped for a moment
    range_begin = begin;
    range_end = begin + size_bytes;
    mprotect(address, size_bytes, PROT_NONE);
}

}  // namespace

PageTouches::PageTouches(const std::string& path) {
    struct stat status{};
    if (stat(path.c_str(), &status) != 0) std::abort();
    watched_device = status.st_dev;
    watched_inode = status.st_ino;
    range_begin = range_end = 0;
    touched = 0;
    struct sigaction action{};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, &previous);
    armed = true;
}

PageTouches::~PageTouches() {
    armed = false;
    sigaction(SIGSEGV, &previous, nullptr);
}

std::uint64_t PageTouches::count() const { return touched; }
std::uint64_t PageTouches::watched_bytes() const { return range_end - range_begin; }

}  // namespace holdfast::test

extern "C" void* mmap(void* address, std::size_t size_bytes, int protection, int flags, int fd,
                      off_t offset) noexcept {
    void* const result =
        std::bit_cast<void*>(syscall(SYS_mmap, address, size_bytes, protection, flags, fd, offset));
    holdfast::test::watch(result, size_bytes, fd);
    return result;
}
