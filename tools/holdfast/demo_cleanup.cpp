#include "demo_cleanup.hpp"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <utility>

namespace holdfast::tool::demo {
namespace {

constexpr std::string_view kPrefix = "holdfast-demo-";
constexpr std::size_t kSlots = 8;

// What the signal handler reads: no allocation, and a slot counts only while `used` says so.
struct FileSlot {
    std::atomic<bool> used = false;
    std::array<char, PATH_MAX> path{};
};
std::array<FileSlot, kSlots> files;
std::array<std::atomic<pid_t>, kSlots> processes;  // 0: unused

void end_by_signal(int signal_number) {
    for (const auto& process : processes)
        if (const pid_t pid = process.load(); pid > 0) kill(pid, SIGKILL);
    for (const FileSlot& file : files)
        if (file.used.load()) unlink(file.path.data());
    // The process ends as it would have without us, so that its parent sees the signal.
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

}  // namespace

void clean_up_on_signals() {
    struct sigaction action{};
    action.sa_handler = end_by_signal;
    sigfillset(&action.sa_mask);
    for (const int signal_number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT})
        sigaction(signal_number, &action, nullptr);
}

DoomedFile::DoomedFile(std::string path) : path_(std::move(path)), slot_(0) {
    while (slot_ < kSlots && files[slot_].used.load()) ++slot_;
    assert(slot_ < kSlots && path_.size() < PATH_MAX);
    std::memcpy(files[slot_].path.data(), path_.c_str(), path_.size() + 1);
    files[slot_].used.store(true);
}

DoomedFile::~DoomedFile() {
    unlink(path_.c_str());
    files[slot_].used.store(false);
}

DoomedProcess::DoomedProcess(pid_t pid) : pid_(pid) {
    pid_t unused = 0;
    while (slot_ < kSlots && !processes[slot_].compare_exchange_strong(unused, pid)) {
        unused = 0;
        ++slot_;
    }
    assert(slot_ < kSlots);
}

DoomedProcess::DoomedProcess(DoomedProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)), slot_(other.slot_) {}

DoomedProcess::~DoomedProcess() {
    if (pid_ == 0) return;
    kill(pid_, SIGKILL);
    wait();
}

int DoomedProcess::wait() {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    processes[slot_].store(0);
    pid_ = 0;
    return status;
}

void sweep(const std::string& folder) {
    std::error_code ignored;
    for (const auto& item : std::filesystem::directory_iterator(folder, ignored)) {
        const std::string name = item.path().filename();
        if (!name.starts_with(kPrefix)) continue;
        const pid_t pid = std::atoi(name.c_str() + kPrefix.size());
        if (pid > 0 && kill(pid, 0) != 0 && errno == ESRCH)
            std::filesystem::remove(item.path(), ignored);
    }
}

std::string pool_path(const std::string& folder, const std::string& name) {
    return fmt::format("{}/{}{}-{}", folder, kPrefix, getpid(), name);
}

}  // namespace holdfast::tool::demo
