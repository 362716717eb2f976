// Killed while the physical memory itself changes: regions added, grown, detached, replaced, moved,
// paired with their files; spaces made and removed. One pool and its region files live through all
// rounds, and are verified after each. (Calls on spaces under SIGKILL: store/kill_test.cpp. Every
// crash state of the calls that need no second file: the workloads of fuzz/.)
// ctest-labels: noasan
// ctest-timeout: 600
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <set>
#include <thread>
#include <tuple>

#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
namespace fs = std::filesystem;
using Random = std::mt19937_64;

constexpr Range kKept{VirtAddr(0x4000'0000), 30 * kPageSize};
constexpr VirtAddr kChanging{0x8000'0000};
constexpr unsigned kKeptRegion = 1;
constexpr unsigned kRegionsMax = 30;

std::string text_of(std::uint64_t page) { return fmt::format("kept {}", page); }

// The files of the pool's regions, in a folder of their own.
class Folder {
  public:
    explicit Folder(const TemporaryPool& pool) : path_(pool.path() + ".regions") {
        fs::remove_all(path_);
        fs::create_directory(path_);
    }
    ~Folder() { fs::remove_all(path_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    std::string new_file(Random& random) const { return path_ / fmt::format("{:016x}", random()); }
    const fs::path& path() const { return path_; }

  private:
    fs::path path_;
};

// One step of a child; refusals are as good as success, as long as nothing is torn.
enum class Deed : std::uint8_t {
    add_external,
    add_volatile,
    grow,
    detach_and_attach,
    replace_by_new_memory,
    move_and_finish,
    make_and_remove_space,
    map_and_unmap,
    count,
};

// What a child says when it has opened the store.
constexpr auto kReady = static_cast<std::uint8_t>(Deed::count);

void do_one(Store& store, const Folder& folder, Random& random, Deed deed) {
    const std::vector<RegionInfo> regions = store.regions();
    const auto some_external = [&]() -> std::optional<RegionInfo> {
        for (unsigned tries = 0; tries < 8; ++tries) {
            const RegionInfo& region = regions[random() % regions.size()];
            if (region.kind == RegionKind::external && region.index != kKeptRegion) return region;
        }
        return std::nullopt;
    };
    switch (deed) {
        case Deed::add_external:
            if (regions.size() < kRegionsMax)
                std::ignore = store.add_external_region(
                    folder.new_file(random), {.size_bytes = 256_KiB, .sparse = random() % 2 == 0});
            break;
        case Deed::add_volatile:
            if (regions.size() < kRegionsMax && random() % 4 == 0)
                std::ignore = store.add_volatile_region(
                    64_KiB, random() % 2 == 0 ? LossPolicy::zero : LossPolicy::fault);
            break;
        case Deed::grow:
            if (regions.size() < kRegionsMax) std::ignore = store.grow(128_KiB);
            break;
        case Deed::detach_and_attach:
            if (const auto region = some_external()) {
                std::ignore = store.detach_region(region->index);
                std::ignore = store.replace_region(region->index, region->file);
            }
            break;
        case Deed::replace_by_new_memory:
            if (const auto region = some_external()) {
                std::ignore = store.detach_region(region->index);
                std::ignore = store.replace_region(region->index, folder.new_file(random));
            }
            break;
        case Deed::move_and_finish:
            std::ignore = store.move_region(static_cast<unsigned>(random() % regions.size()));
            if (random() % 2 == 0) std::ignore = store.finish_moves();
            break;
        case Deed::make_and_remove_space:
            if (store.create_space("made", {.region = random() % regions.size()}))
                if (auto space = store.open_space("made")) {
                    std::ignore = space->map({kChanging, 20 * kPageSize}, protection::rw);
                    std::ignore = space->write(kChanging, std::as_bytes(std::span("text")));
                }
            if (random() % 2 == 0) std::ignore = store.remove_space("made");
            break;
        default:
            if (auto space = store.open_space("kept")) {
                const Range range{kChanging + random() % 64 * kPageSize,
                                  (1 + random() % 40) * kPageSize};
                std::ignore = space->unmap(range);
                std::ignore =
                    space->map(range, protection::rw,
                               {.lazy = random() % 4 == 0, .region = random() % regions.size()});
                std::ignore = space->write(range.start, std::as_bytes(std::span("text")));
            }
            break;
    }
}

[[noreturn]] void work(const TemporaryPool& pool, const Folder& folder, std::uint64_t seed,
                       int pipe) {
    Random random(seed);
    while (true) {
        // Anew each time: what changes a region counts from the next opening on.
        auto store = Store::open(pool.path(), {.emulation = PmemEmulation::on});
        if (!store) {
            fmt::print(stderr, "{}\n", store.error().message);
            _exit(2);
        }
        if (const std::uint8_t ready = kReady; write(pipe, &ready, 1) != 1) _exit(3);
        for (unsigned i = 0; i < 5; ++i) {
            const auto deed =
                static_cast<std::uint8_t>(random() % static_cast<std::uint8_t>(Deed::count));
            do_one(*store, folder, random, static_cast<Deed>(deed));
            if (write(pipe, &deed, 1) != 1) _exit(3);
        }
    }
}

void expect_well(const Store& store, const Folder& folder) {
    std::set<fs::path> named;
    for (const RegionInfo& region : store.regions()) {
        ASSERT_TRUE(region.state == RegionState::attached || region.state == RegionState::detached)
            << region.trouble;
        if (region.kind == RegionKind::external) named.insert(region.file);
    }
    // What an interrupted `add` has left, and what was replaced.
    for (const auto& file : fs::directory_iterator(folder.path()))
        if (!named.contains(file.path())) fs::remove(file.path());
    for (const Finding& finding : store.verify().findings)
        ASSERT_EQ(finding.what, "lost page") << finding.detail;
    const Space kept = value_of(store.open_space("kept"));
    for (std::uint64_t page = 0; page < kKept.pages(); ++page) {
        const std::string text = text_of(page);
        ASSERT_EQ(bytes_at(kept, (kKept.start + page * kPageSize).bits(), text.size()), text);
    }
}

TEST(OddDeaths, OnePoolLivesThroughAll) {
    const std::uint64_t seed = test_seed();
    Random random(seed);
    const char* given = std::getenv("HOLDFAST_KILL_ROUNDS");
    const unsigned rounds = given != nullptr ? static_cast<unsigned>(std::atoi(given)) : 300;
    const TemporaryPool pool;
    const Folder folder(pool);
    {
        Store store = value_of(Store::create(
            pool.path(),
            {.size_bytes = 32_MiB, .emulation = PmemEmulation::on, .frames_bytes = 4_MiB}));
        value_of(store.add_external_region(folder.new_file(random), {.size_bytes = 256_KiB}));
        Space kept = value_of(store.create_space("kept", {.region = kKeptRegion}));
        must(kept.map(kKept, protection::rw));
        for (std::uint64_t page = 0; page < kKept.pages(); ++page) {
            const std::string text = text_of(page);
            must(kept.write(kKept.start + page * kPageSize, std::as_bytes(std::span(text))));
        }
        must(kept.persist(kKept));
    }
    std::array<std::uint64_t, static_cast<std::size_t>(Deed::count)> done{};
    for (unsigned round = 0; round < rounds; ++round) {
        int ends[2];
        ASSERT_EQ(pipe(ends), 0);
        const std::uint64_t child_seed = random();
        const auto delay = std::chrono::microseconds(random() % 20'000);
        // Now and then also while the child still opens the store.
        const bool early = random() % 6 == 0;
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            close(ends[0]);
            work(pool, folder, child_seed, ends[1]);
        }
        close(ends[1]);
        if (std::uint8_t ready = 0; !early) {
            ASSERT_EQ(read(ends[0], &ready, 1), 1) << "the child ended before it was ready";
        }
        std::this_thread::sleep_for(early ? delay / 4 : delay);
        kill(child, SIGKILL);
        int status = 0;
        waitpid(child, &status, 0);
        ASSERT_TRUE(WIFSIGNALED(status)) << "round " << round << ": the child ended by itself";
        for (std::uint8_t deed = 0; read(ends[0], &deed, 1) == 1;)
            if (deed != kReady) ++done[deed];
        close(ends[0]);
        const Store store = pool.open();
        expect_well(store, folder);
        if (HasFatalFailure()) {
            ADD_FAILURE() << "round " << round << ", HOLDFAST_SEED=" << seed;
            return;
        }
    }
    fmt::print("{} rounds; deeds done: {}\n", rounds, fmt::join(done, " "));
    for (const std::uint64_t each : done) EXPECT_GT(each, 0U) << "the children hardly worked";
}

}  // namespace
}  // namespace holdfast::test
