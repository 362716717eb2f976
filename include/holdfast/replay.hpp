// Memory traces of real programs, run through page tables and a TLB: what the size of pages costs
// and gives.
//
//     auto replay = TraceReplay::create(store, space);
//     LackeyTrace trace(descriptor, "program.trace");
//     for (;;) {
//         auto access = trace.next();
//         if (!access || !*access) break;                       // an error, or the end
//         if (auto done = replay->run(**access); !done) …
//     }
//     ReplayReport report = replay->report();
//
// Each page that the trace touches and that is not mapped is mapped when it is first touched, so
// the tables are the store's own, and every access is looked up by a Tlb: pages of 4 KiB in the
// space, pages of 2 MiB in another one, "replay-trace 2MiB". What is counted needs no contents: all
// pages mapped so share the frames of a device region (device.hpp), whose memory is gone when the
// store is closed. Use a store opened as a copy, or one made for it.
//
// Thread safety: an object belongs to one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/error.hpp"
#include "holdfast/fault.hpp"
#include "holdfast/store.hpp"
#include "holdfast/tlb.hpp"
#include "holdfast/types.hpp"

namespace holdfast {

enum class AccessKind : std::uint8_t { load, store, modify, instruction };

struct TraceAccess {
    AccessKind kind{};
    VirtAddr address;
    std::uint32_t size_bytes = 0;
};

// The output of `valgrind --tool=lackey --trace-mem=yes --log-file=FILE PROGRAM`: an access a line,
// "I  0401ab70,3" for an instruction, " L", " S" and " M" for data. Lines of valgrind's own (which
// begin with "==", "--" or "**") are passed over. Reads in pieces, whatever the size of the file.
class LackeyTrace {
  public:
    // Does not close the descriptor. `name` is for messages.
    LackeyTrace(int descriptor, std::string name);

    // The next access; nothing at the end. Errors: invalid_argument (a line that is no access; the
    // message quotes it with its number), io.
    Result<std::optional<TraceAccess>> next();

    std::uint64_t line_number() const { return line_number_; }  // of the last access
    std::uint64_t bytes_read() const { return bytes_read_; }
    std::uint64_t skipped_lines() const { return skipped_lines_; }  // valgrind's own

    // No instruction touches so much; a larger size is taken for damage.
    static constexpr std::uint32_t kMaxAccessBytes = 1u << 16;

  private:
    Result<bool> fill();
    std::unexpected<Error> bad_line(std::string_view line) const;

    int descriptor_;
    std::string name_;
    std::vector<char> buffer_;
    std::size_t begin_ = 0, end_ = 0;  // of what is read and not yet taken
    bool at_end_ = false;
    std::uint64_t line_number_ = 0, bytes_read_ = 0, skipped_lines_ = 0;
};

// A processor's caches of upper-level entries (SDM vol. 3A, 4.10.3): a walk begins below the lowest
// one it finds there. Each is fully associative with LRU. 0 entries: no such cache.
struct WalkCacheSizes {
    // By the level whose entries it holds: 2 (PDE), 3 (PDPTE), 4 (PML4E), 5 (PML5E).
    std::array<std::uint32_t, 4> entries = {32, 4, 4, 4};
};

struct ReplayOptions {
    TlbGeometries tlb = {};
    WalkCacheSizes walk_caches = {};
    bool data = true;          // run loads, stores and modifications
    bool instructions = true;  // run instruction fetches
};

// One page size, run through tables and a TLB. Each access is one look-up for each page it touches.
struct PageSizeRun {
    PageSize page_size{};
    std::uint64_t lookups = 0, hits = 0;
    std::uint64_t misses = 0;      // that led to a page; lookups = hits + misses + faults left
    std::uint64_t compulsory = 0;  // of these, the first look-up of each page
    std::uint64_t evictions = 0;
    std::uint64_t reach_bytes = 0;  // at the end, which is when it is largest
    // Entries read by the walks of misses: without and with the caches of upper levels.
    std::uint64_t entries_read = 0, entries_read_cached = 0;
    std::uint64_t tables = 0;  // that exist at the end, the root included
    // Pages mapped by the replay at their first touch; accesses that could not be looked up even
    // so, by the fault that stood against it, as an imported space's protection may.
    std::uint64_t mapped_on_demand = 0;
    std::map<FaultKind, std::uint64_t> faults;

    double entries_per_walk() const;
    double entries_per_walk_cached() const;
};

// What mapping everything the trace touched takes with pages of one size. Tables have 512 entries
// of 8 bytes whatever the size, as x86 has them; of sizes that x86 lacks the figures are those of
// such tables. Metadata is 16 bytes for each 4 KiB of pages and tables.
struct PageSizeCost {
    std::uint64_t page_bytes = 0;
    bool on_x86 = false;  // a size that entries of x86-64 can map
    std::uint64_t pages = 0, mapped_bytes = 0;
    std::uint64_t wasted_bytes = 0;  // mapped and never touched: internal fragmentation
    std::uint64_t tables = 0, table_bytes = 0, metadata_bytes = 0;

    std::uint64_t overhead_bytes() const { return table_bytes + metadata_bytes; }
};

struct ReplayReport {
    std::uint64_t loads = 0, stores = 0, modifications = 0, instructions = 0;
    std::uint64_t touched_bytes = 0;  // different ones
    std::vector<PageSizeRun> runs;    // 4 KiB, 2 MiB
    std::vector<PageSizeCost> costs;  // 4 KiB … 1 GiB

    std::uint64_t accesses() const { return loads + stores + modifications + instructions; }
};

class TraceReplay {
  public:
    // Errors: invalid_argument (a geometry that cannot be), and as Store::create_space.
    static Result<TraceReplay> create(Store& store, const Space& space,
                                      const ReplayOptions& options = {});
    TraceReplay(TraceReplay&&) noexcept;
    TraceReplay& operator=(TraceReplay&&) noexcept;
    ~TraceReplay();

    // Errors: invalid_argument (an address that the space's levels cannot translate), no_space (for
    // tables), damaged.
    Result<void> run(const TraceAccess& access);
    // So far.
    ReplayReport report() const;

  private:
    class State;
    explicit TraceReplay(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace holdfast
