// Chapter 3: open to first translated read over growing spaces, against rebuilding their tables.
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <holdfast/store.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <sstream>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "demo.hpp"
#include "demo_child.hpp"
#include "demo_cleanup.hpp"
#include "demo_workload.hpp"
#include "output.hpp"
#include "quantity.hpp"

namespace holdfast::tool::demo {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::array<std::uint64_t, 4> kPageCounts = {1, 1'000, 1'000'000, 16'000'000};
constexpr std::size_t kOpenings = 5;
constexpr double kRebuildSecondsMax = 10;

// All pages map these few frames again and again: the tables are real, and memory suffices.
constexpr std::uint64_t kSharedFrames = 512;
constexpr Range kSourceRange = {VirtAddr(0x1'0000'0000), kSharedFrames* kPageSize};
constexpr VirtAddr kRangeStart = VirtAddr(0x2000'0000'0000);
constexpr const char* kSourceSpace = "frames";
constexpr const char* kBigSpace = "big";

std::uint64_t seconds_to_ns(double seconds) { return static_cast<std::uint64_t>(seconds * 1e9); }

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

// The first word of a shared frame says which it is.
std::uint64_t expected_word(std::uint64_t page) { return mix(page % kSharedFrames); }

// Tables take 8 bytes a page.
std::uint64_t pool_bytes(std::uint64_t pages) { return (std::uint64_t{64} << 20) + pages * 10; }

// --- demo-open ---

struct OpenArguments {
    std::string pool;
    VirtAddr address;
};

// Answers with the word at the address, and the nanoseconds from before open to after its read.
Outcome open_and_read(const Context&, const OpenArguments& arguments) {
    std::uint64_t word = 0;
    const Clock::time_point begin = Clock::now();
    const auto store = Store::open(arguments.pool, {.emulation = PmemEmulation::on});
    if (!store) return std::unexpected(store.error());
    const auto space = store->open_space(kBigSpace);
    if (!space) return std::unexpected(space.error());
    if (auto copied = space->read(arguments.address, std::as_writable_bytes(std::span(&word, 1)));
        !copied)
        return std::unexpected(copied.error());
    const double seconds = seconds_since(begin);
    print("{} {}\n", word, seconds_to_ns(seconds));
    return ExitStatus::well;
}

// --- demo ---

// What a program without persistent tables would have kept instead: where is what, in pieces of
// 1 GiB. Shorter pieces would be slower to rebuild.
constexpr std::uint64_t kPiecePages = std::uint64_t{1} << 18;

std::vector<Range> mapping_list(std::uint64_t pages) {
    std::vector<Range> list;
    for (std::uint64_t first = 0; first < pages; first += kPiecePages)
        list.push_back(
            {kRangeStart + first * kPageSize, std::min(kPiecePages, pages - first) * kPageSize});
    return list;
}

Result<Space> make_source(Store& store) {
    auto source = store.create_space(kSourceSpace);
    if (!source) return source;
    if (auto done = source->map(kSourceRange, protection::rw); !done)
        return std::unexpected(done.error());
    for (std::uint64_t page = 0; page < kSharedFrames; ++page) {
        const std::uint64_t word = expected_word(page);
        if (auto done = source->write(kSourceRange.start + page * kPageSize,
                                      std::as_bytes(std::span(&word, 1)));
            !done)
            return std::unexpected(done.error());
    }
    if (auto done = source->persist(kSourceRange); !done) return std::unexpected(done.error());
    return source;
}

// Maps everything in the list by one transaction, and returns the seconds that took.
Result<double> build(Store& store, const Space& source, const std::vector<Range>& list) {
    const Clock::time_point begin = Clock::now();
    Transaction change = store.begin();
    const auto space = change.create_space(kBigSpace);
    if (!space) return std::unexpected(space.error());
    for (const Range range : list)
        if (auto done = change.map_shared(*space, range, protection::rw, source, kSourceRange);
            !done)
            return std::unexpected(done.error());
    if (auto done = change.commit(); !done) return std::unexpected(done.error());
    return seconds_since(begin);
}

// Opens the pool in a new process, reads one page, and returns the seconds that took.
Result<double> open_once(const std::string& pool, std::uint64_t page) {
    auto child = Child::start_self(
        {"demo-open", pool, format_address((kRangeStart + page * kPageSize).bits())});
    if (!child) return std::unexpected(child.error());
    const auto answer = child->finish();
    if (!answer) return std::unexpected(answer.error());
    std::istringstream words(*answer);
    std::uint64_t word = 0;
    double nanoseconds = 0;
    words >> word >> nanoseconds;
    if (word != expected_word(page))
        return fail(ErrorCode::damaged,
                    fmt::format("{}: page {} holds {:#x} after opening, and {:#x} is due", pool,
                                page, word, expected_word(page)));
    return nanoseconds / 1e9;
}

struct Row {
    std::uint64_t pages = 0;
    std::uint64_t tables = 0;
    double rebuild_seconds = 0;
    double open_seconds = 0;
};

Result<Row> measure(const std::string& folder, std::uint64_t pages) {
    const DoomedFile pool(pool_path(folder, "restart"));
    Row row{.pages = pages};
    {
        auto store = Store::create(
            pool.path(), {.size_bytes = pool_bytes(pages), .emulation = PmemEmulation::on});
        if (!store) return std::unexpected(store.error());
        const auto source = make_source(*store);
        if (!source) return std::unexpected(source.error());
        const auto rebuilt = build(*store, *source, mapping_list(pages));
        if (!rebuilt) return std::unexpected(rebuilt.error());
        row.rebuild_seconds = *rebuilt;
        const auto space = store->open_space(kBigSpace);
        if (!space) return std::unexpected(space.error());
        row.tables = space->info().tables;
    }
    std::vector<double> times;
    for (std::size_t i = 0; i < kOpenings; ++i) {
        const auto seconds = open_once(pool.path(), mix(i) % pages);
        if (!seconds) return std::unexpected(seconds.error());
        times.push_back(*seconds);
    }
    std::nth_element(times.begin(), times.begin() + kOpenings / 2, times.end());
    row.open_seconds = times[kOpenings / 2];
    return row;
}

bool has_room(const std::string& folder, std::uint64_t size_bytes) {
    struct statvfs file_system{};
    return statvfs(folder.c_str(), &file_system) == 0 &&
           std::uint64_t{file_system.f_bavail} * file_system.f_frsize >
               size_bytes + (std::uint64_t{32} << 20);
}

}  // namespace

Result<void> measure_restarts(const std::string& folder) {
    print("\n3. Opening against rebuilding the same tables from a list of mappings\n");
    print("   {:>12}  {:>8}  {:>18}  {:>10}  {:>14}\n", "pages mapped", "tables",
          "open to first read", "rebuilding", "rebuild / open");
    Row last;
    for (const std::uint64_t pages : kPageCounts) {
        if (!has_room(folder, pool_bytes(pages))) {
            print("   {:>12}  left out: needs {} in {}\n", format_count(pages),
                  format_size(pool_bytes(pages)), folder);
            continue;
        }
        // Rebuilding grows with the pages: a machine too slow for the next row shows it in this.
        if (last.pages != 0 &&
            last.rebuild_seconds / static_cast<double>(last.pages) * static_cast<double>(pages) >
                kRebuildSecondsMax) {
            print("   {:>12}  left out: rebuilding would take longer than {:.0f} s\n",
                  format_count(pages), kRebuildSecondsMax);
            continue;
        }
        const auto row = measure(folder, pages);
        if (!row) return std::unexpected(row.error());
        last = *row;
        print("   {:>12}  {:>8}  {:>18}  {:>10}  {:>12.2f} x\n", format_count(row->pages),
              format_count(row->tables), format_duration(row->open_seconds),
              format_duration(row->rebuild_seconds), row->rebuild_seconds / row->open_seconds);
    }
    print(
        "   Open: from before Store::open to the first word read through the tables, in a new\n"
        "   process, median of {}. Rebuilding: one map_shared for each 1 GiB of the list, all in\n"
        "   one transaction, in a store that is open and empty already; once. The pages share\n"
        "   {} frames, so that only the tables are large.\n",
        kOpenings, kSharedFrames);
    return {};
}

void add_restart_commands(CLI::App& app, Context& context) {
    constexpr const char* kHidden = "";
    add_command<OpenArguments>(
        app, context, "demo-open", "",
        [](CLI::App& command, OpenArguments& arguments) {
            add_pool(command, arguments.pool);
            add_address(command, arguments.address);
        },
        open_and_read)
        ->group(kHidden);
}

}  // namespace holdfast::tool::demo
