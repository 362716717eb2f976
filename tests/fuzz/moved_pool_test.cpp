// A pool that is mapped elsewhere when it is opened again, as it was left and as a crash left it.
// ctest-labels: noasan
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <sstream>

#include "holdfast/crash.hpp"
#include "judge/child_process.hpp"
#include "store/store_state.hpp"
#include "subjects/store_workload.hpp"
#include "subjects/workloads.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::crash {
namespace {

using test::value_of;

struct Place {
    std::uint64_t begin = 0, size_bytes = 0;
};

// Leaves no mapping that overlaps the place possible, for as long as the process lives. False if a
// page of it is still free.
[[nodiscard]] bool occupy(const Place& place) {
    for (std::uint64_t at = place.begin; at < place.begin + place.size_bytes; at += kPageSize) {
        // Nothing of ours is there. NOLINTNEXTLINE(performance-no-int-to-ptr)
        auto* const page = reinterpret_cast<void*>(at);
        const void* mapped =
            mmap(page, kPageSize, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
        // What the process has mapped there meanwhile is in the way as well.
        if (mapped != page && (mapped != MAP_FAILED || errno != EEXIST)) return false;
    }
    return true;
}

std::uint64_t address_of(const Store& store) {
    return reinterpret_cast<std::uint64_t>(store.state().pool->at(0));
}

TEST(MovedPool, IsWhatItWas) {
    const test::TemporaryPool pool;
    std::uint64_t address = 0;
    const Range range{VirtAddr(0x4000'0000), 40 * kPageSize};
    const std::uint64_t word = 0x1234'5678'9abc'def0;
    Translation before{};
    {
        Store store = value_of(
            Store::create(pool.path(), {.size_bytes = 16 << 20, .emulation = PmemEmulation::on}));
        address = address_of(store);
        Space space = value_of(store.create_space("a"));
        ASSERT_TRUE(space.map(range, protection::rw, {.name = "named"}));
        ASSERT_TRUE(space.write(range.start + 3 * kPageSize, std::as_bytes(std::span(&word, 1))));
        before = *space.translate(range.start + 3 * kPageSize);
    }
    for (int times = 0; times < 3; ++times) {
        ASSERT_TRUE(occupy({address, 16 << 20}));
        Store store = pool.open();
        ASSERT_NE(address_of(store), address) << "the pool was not moved";
        address = address_of(store);
        Space space = value_of(store.open_space("a"));
        EXPECT_EQ(space.translate(range.start + 3 * kPageSize)->physical, before.physical);
        std::uint64_t read = 0;
        ASSERT_TRUE(
            space.read(range.start + 3 * kPageSize, std::as_writable_bytes(std::span(&read, 1))));
        EXPECT_EQ(read, word);
        EXPECT_EQ(value_of(space.maps()).front().name, "named");
        const Range more{VirtAddr(0x8000'0000 + times * 0x100'0000), 600 * kPageSize};
        EXPECT_TRUE(space.map(more, protection::rw));
        EXPECT_TRUE(space.unmap(more));
        test::expect_clean(store);
    }
}

// A workload whose pool is nowhere mapped where its run had it.
class Moved final : public Subject {
  public:
    explicit Moved(StoreWorkload workload) : workload_(std::move(workload)) {
        const auto memory = shared_memory(sizeof(Place));
        run_at_ = new (memory.data()) Place;
    }
    ~Moved() override { release_shared_memory(std::as_writable_bytes(std::span(run_at_, 1))); }

    std::string name() const override { return workload_.name() + "-moved"; }
    Result<void> set_up(const std::string& path) override { return workload_.set_up(path); }
    Result<void> run(const std::string& path, Operations& operations) override {
        Finder finder(operations, path, *run_at_);
        return workload_.run(path, finder);
    }
    std::string check(const std::string& path, const Moment& moment) override {
        if (run_at_->size_bytes == 0) return "where the run had its pool is not known";
        if (!occupied_) occupied_ = occupy(*run_at_);
        if (!occupied_) return "the place where the run had its pool is still free";
        return workload_.check(path, moment);
    }

  private:
    class Finder final : public Operations {
      public:
        Finder(Operations& operations, const std::string& path, Place& place)
            : operations_(operations), path_(path), place_(place) {}
        void begin() override {
            std::ifstream maps("/proc/self/maps");
            for (std::string line; std::getline(maps, line);) {
                if (!line.ends_with(path_)) continue;
                std::uint64_t begin = 0, end = 0;
                char dash = 0;
                std::istringstream(line) >> std::hex >> begin >> dash >> end;
                if (place_.size_bytes == 0) place_.begin = begin;
                place_.size_bytes = end - place_.begin;
            }
            operations_.begin();
        }
        void acknowledge() override { operations_.acknowledge(); }

      private:
        Operations& operations_;
        const std::string& path_;
        Place& place_;
    };

    StoreWorkload workload_;
    Place* run_at_;
    bool occupied_ = false;  // by this process
};

TEST(MovedPool, RecoversFromACrashThere) {
    for (const char* name : {"map_one", "map_table", "transaction_spaces", "unmap_range"}) {
        Moved subject(StoreWorkload(value_of(find_workload(name))));
        const Outcome outcome =
            value_of(run(subject, {.states_per_window = 40, .jobs = 2, .depth = 1}));
        for (const Violation& violation : outcome.violations)
            ADD_FAILURE() << name << ": " << violation.text << "\n  " << violation.crash_point;
        EXPECT_GT(outcome.states, 100U) << name;
    }
}

}  // namespace
}  // namespace holdfast::crash
