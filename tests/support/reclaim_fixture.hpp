// What the tests of pages that come and go have in common.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "holdfast/region.hpp"
#include "support/temporary_pool.hpp"
#include "support/words.hpp"

namespace holdfast::test {

inline constexpr VirtAddr kStart{0x4000'0000};

inline VirtAddr page(std::uint64_t number) { return kStart + number * kPageSize; }

inline FaultKind fault_at(const Space& space, VirtAddr at) {
    const auto found = space.translate(at);
    return found ? FaultKind::protection : found.error().kind;
}

// A store of 8 MiB of frames with a space, and a swap region if asked for; clean at the end.
class Reclaim : public testing::Test {
  protected:
    // Room for the records of regions is left; when frames run out, the pool grows by what it has.
    static Store make(const TemporaryPool& pool) {
        return value_of(Store::create(pool.path(), {.size_bytes = std::uint64_t{16} << 20,
                                                    .emulation = PmemEmulation::on,
                                                    .frames_bytes = std::uint64_t{8} << 20}));
    }
    Reclaim() : store(make(pool)), space(value_of(store.create_space("space"))) {}
    ~Reclaim() override {
        expect_clean(store);
        std::filesystem::remove(swap_path());
    }
    Reclaim(const Reclaim&) = delete;
    Reclaim& operator=(const Reclaim&) = delete;

    std::string swap_path() const { return pool.path() + ".swap"; }
    void add_swap(std::uint64_t size_bytes = std::uint64_t{8} << 20) {
        value_of(store.add_swap_region(swap_path(), size_bytes));
    }
    // Fills `count` pages with their numbers plus one.
    static void fill(Space of, std::uint64_t count) {
        for (std::uint64_t at = 0; at < count; ++at) put(of, page(at), at + 1);
    }
    Space filled_space(const std::string& name, std::uint64_t count) {
        Space made = value_of(store.create_space(name));
        must(made.map({kStart, count * kPageSize}, protection::rw));
        fill(made, count);
        return made;
    }
    // Writes pages of `space` until there is no frame for another: that one.
    std::uint64_t fill_the_store() {
        must(space.map({kStart, 4000 * kPageSize}, protection::rw, {.lazy = true}));
        std::uint64_t filled = 0;
        const std::uint64_t word = 5;
        while (space.write(page(filled), std::as_bytes(std::span(&word, 1)))) ++filled;
        return filled;
    }
    static void expect_filled(const Space& of, std::uint64_t count) {
        for (std::uint64_t at = 0; at < count; ++at) ASSERT_EQ(get(of, page(at)), at + 1) << at;
    }

    const TemporaryPool pool;
    Store store;
    Space space;
};

}  // namespace holdfast::test
