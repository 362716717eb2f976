// A pool's path for one test: removed at the end, also after a failure, and at the start of the
// next run if the test was killed.
#pragma once

#include <cstdint>
#include <string>

#include "holdfast/holdfast.hpp"

namespace holdfast::test {

class TemporaryPool {
  public:
    // In emulated PMem (tmpfs) by default; `folder` may name a place on a disk.
    explicit TemporaryPool(const std::string& folder = "/dev/shm");
    ~TemporaryPool();
    TemporaryPool(const TemporaryPool&) = delete;
    TemporaryPool& operator=(const TemporaryPool&) = delete;

    const std::string& path() const { return path_; }

    // Create or open a store there, PMem emulated; a failure ends the test with its message.
    Store create(std::uint64_t size_bytes = std::uint64_t{64} << 20) const;
    Store open() const;

  private:
    std::string path_;
};

// The value of a result that must be there; a failure ends the test with the error's message.
template <typename T>
T value_of(Result<T> result);
void must(const Result<void>& result);

// What a space holds there; it must be readable.
std::string bytes_at(const Space& space, std::uint64_t address, std::size_t size_bytes);

// The seed of a random test: HOLDFAST_SEED if set, otherwise new each time; printed.
std::uint64_t test_seed();

// Fails the test with every finding if the store is not clean; also that the frames add up.
void expect_clean(const Store& store);

// --- templates ---

[[noreturn]] void stop_test(const std::string& message);

template <typename T>
T value_of(Result<T> result) {
    if (!result) stop_test(result.error().message);
    return std::move(*result);
}

}  // namespace holdfast::test
