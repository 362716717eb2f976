#include "support/temporary_pool.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <stdexcept>

namespace holdfast::test {
namespace {

constexpr const char* kPrefix = "holdfast-test-";

// What tests that were killed have left behind: their process is gone.
void sweep(const std::string& folder) {
    std::error_code ignored;
    for (const auto& item : std::filesystem::directory_iterator(folder, ignored)) {
        const std::string name = item.path().filename();
        if (!name.starts_with(kPrefix)) continue;
        const pid_t pid = std::atoi(name.c_str() + std::string_view(kPrefix).size());
        if (pid > 0 && kill(pid, 0) != 0 && errno == ESRCH)
            std::filesystem::remove(item.path(), ignored);
    }
}

}  // namespace

TemporaryPool::TemporaryPool(const std::string& folder) {
    static std::atomic<unsigned> number = 0;
    sweep(folder);
    path_ = fmt::format("{}/{}{}-{}", folder, kPrefix, getpid(), number++);
    unlink(path_.c_str());
}

TemporaryPool::~TemporaryPool() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

Store TemporaryPool::create(std::uint64_t size_bytes) const {
    return value_of(
        Store::create(path_, {.size_bytes = size_bytes, .emulation = PmemEmulation::on}));
}

Store TemporaryPool::open() const {
    return value_of(Store::open(path_, {.emulation = PmemEmulation::on}));
}

void must(const Result<void>& result) {
    if (!result) stop_test(result.error().message);
}

std::string bytes_at(const Space& space, std::uint64_t address, std::size_t size_bytes) {
    std::string bytes(size_bytes, '?');
    must(space.read(VirtAddr(address), std::as_writable_bytes(std::span(bytes))));
    return bytes;
}

void stop_test(const std::string& message) {
    // GoogleTest reports an exception as a failure of the running test, and goes on with the next.
    throw std::runtime_error(message);
}

std::uint64_t test_seed() {
    const char* given = std::getenv("HOLDFAST_SEED");
    const std::uint64_t seed =
        given != nullptr ? std::strtoull(given, nullptr, 0)
                         : (std::uint64_t{std::random_device()()} << 32 | std::random_device()());
    fmt::print("seed {0:#x}; HOLDFAST_SEED={0:#x} repeats this run\n", seed);
    return seed;
}

void expect_clean(const Store& store) {
    const VerifyReport report = store.verify();
    for (const Finding& finding : report.findings)
        ADD_FAILURE() << finding.what << ": " << finding.space << ": " << finding.detail;
    // I4: every frame is exactly one of these.
    EXPECT_EQ(report.frames_total, report.frames_reachable + report.frames_limbo +
                                       report.frames_building + report.frames_free);
}

}  // namespace holdfast::test
