// Counts, from outside, which pages of a file's mappings are touched: every mapping of the file
// that is made while the counter is armed is made inaccessible, and each first access to a page
// traps (the crash harness's page watch, which takes the place of mmap(2) in the test's process).
#pragma once

#include <cstdint>
#include <string>

#include "holdfast/types.hpp"

namespace holdfast::test {

class PageTouches {
  public:
    // Mappings of `path` made from now on are watched.
    explicit PageTouches(const std::string& path);
    ~PageTouches();
    PageTouches(const PageTouches&) = delete;
    PageTouches& operator=(const PageTouches&) = delete;

    // Distinct pages touched so far.
    std::uint64_t count() const;
    // Bytes that were mapped and watched.
    std::uint64_t watched_bytes() const;
};

}  // namespace holdfast::test
