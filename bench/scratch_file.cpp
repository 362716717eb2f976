#include "scratch_file.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string_view>

namespace holdfast::bench {
namespace {

constexpr std::string_view kFolder = "/dev/shm";
constexpr std::string_view kPrefix = "holdfast-bench-";
constexpr std::string_view kLockSuffix = "-lock";

// What the signal handler reads: plain arrays, since it may neither lock nor allocate.
constexpr unsigned kSlots = 128;
constexpr std::size_t kPathMax = 96;
std::array<std::array<char, kPathMax>, kSlots> live_paths{};
std::array<std::array<char, kPathMax>, kSlots> live_locks{};

void on_signal(int number) {
    for (const auto& path : live_paths)
        if (path[0] != 0) unlink(path.data());
    for (const auto& path : live_locks)
        if (path[0] != 0) unlink(path.data());
    signal(number, SIG_DFL);
    raise(number);
}

}  // namespace

void remove_scratch_files_on_signals() {
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGABRT, SIGSEGV, SIGBUS})
        signal(number, on_signal);
    std::error_code ignored;
    for (const auto& item : std::filesystem::directory_iterator(kFolder, ignored)) {
        const std::string name = item.path().filename();
        if (!name.starts_with(kPrefix)) continue;
        const pid_t pid = std::atoi(name.c_str() + kPrefix.size());
        if (pid > 0 && kill(pid, 0) != 0 && errno == ESRCH)
            std::filesystem::remove(item.path(), ignored);
    }
}

ScratchFile::ScratchFile() : slot_(0) {
    while (slot_ < kSlots && live_paths[slot_][0] != 0) ++slot_;
    if (slot_ == kSlots) throw std::runtime_error("too many scratch files at once");
    path_ = fmt::format("{}/{}{}-{}", kFolder, kPrefix, getpid(), slot_);
    std::strncpy(live_paths[slot_].data(), path_.c_str(), kPathMax - 1);
    std::strncpy(live_locks[slot_].data(), (path_ + std::string(kLockSuffix)).c_str(),
                 kPathMax - 1);
    remove();
}

ScratchFile::~ScratchFile() {
    remove();
    live_paths[slot_][0] = 0;
    live_locks[slot_][0] = 0;
}

void ScratchFile::remove() const {
    unlink(path_.c_str());
    unlink((path_ + std::string(kLockSuffix)).c_str());
}

}  // namespace holdfast::bench
