// A store: one pool that holds address spaces, their tables, frames and frame metadata.
//
//     Store store = *Store::create("/mnt/pmem/spaces", {.size_bytes = 1_GiB});
//     Space space = *store.create_space("editor");
//
// The path names a regular file (on a DAX file system, tmpfs or any other), a poolset without
// replicas, or a device-DAX device.
//
// Opening is constant-time: libpmemobj replays its logs, the superblock and the region table are
// checked, and that is all; tables are checked when they are walked.
//
// Thread safety: all functions may be called from any thread. A `Store` is a handle; the pool is
// closed when the last handle to the store or one of its spaces or transactions is gone. A process
// opens a pool once; a second process is refused while the first lives.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "holdfast/error.hpp"
#include "holdfast/space.hpp"
#include "holdfast/transaction.hpp"
#include "holdfast/types.hpp"
#include "holdfast/verify.hpp"

namespace holdfast {

namespace detail {
class StoreState;
}

enum class PmemEmulation : std::uint8_t {
    // Emulate if the environment variable HOLDFAST_EMULATE_PMEM is set to 1, otherwise do not.
    from_environment,
    off,
    // Treat the file as persistent memory whatever it is: flushes are cache-line flushes and never
    // msync. For tests, CI and laptops: on an ordinary file the bytes then survive the process,
    // also a SIGKILL, but not a power failure.
    on,
};

struct CreateOptions {
    std::uint64_t size_bytes =
        0;  // at least 8 MiB; 0 for a poolset or device, which have their own
    PmemEmulation emulation = PmemEmulation::from_environment;
    std::uint32_t file_mode = 0600;
};

struct OpenOptions {
    PmemEmulation emulation = PmemEmulation::from_environment;
};

using Uuid = std::array<std::uint8_t, 16>;
std::string to_string(const Uuid& uuid);

enum class RegionKind : std::uint8_t { pool = 1, external = 2, volatile_memory = 3 };
const char* to_string(RegionKind kind);

// A run of frames. The physical base equals the file offset modulo 1 GiB, so that huge pages line
// up in the entry, in the kernel's mapping and in a guest's memory.
struct RegionInfo {
    RegionKind kind{};
    Uuid uuid{};
    PhysAddr physical_base;
    std::uint64_t size_bytes = 0;
    std::string file;                    // that holds the frames
    std::uint64_t file_offset = 0;       // of the first frame in it
    const std::byte* address = nullptr;  // of the first frame in this process
};

struct FrameCounts {
    std::uint64_t total = 0;
    std::uint64_t free = 0;
    std::uint64_t limbo = 0;  // detached, and not released yet; part of neither
};

struct StoreInfo {
    Uuid uuid{};
    std::uint32_t format_version = 0;
    std::uint64_t boot_epoch = 0;  // raised by the first change after each open
    FrameCounts frames;
    std::uint64_t tables = 0;
    std::vector<RegionInfo> regions;
    std::vector<SpaceInfo> spaces;
};

class Store {
  public:
    // Makes the file (or takes the poolset or device) and a store in it. Errors: already_exists,
    // invalid_argument, no_space, permission_denied, unsupported (a poolset with replicas: data
    // reaches the medium by libpmem's flushes, which know nothing of replicas), io.
    static Result<Store> create(const std::string& path, const CreateOptions& options);

    // Errors: not_found, not_a_pool, unsupported, damaged, busy, permission_denied, io; the file
    // is not changed then.
    static Result<Store> open(const std::string& path, const OpenOptions& options = {});

    // Each of these is a transaction of its own; see Transaction for several at once.
    Result<Space> create_space(const std::string& name, const SpaceOptions& options = {});
    Result<Space> open_space(const std::string& name) const;
    Result<void> rename_space(const std::string& from, const std::string& to);
    Result<void> remove_space(const std::string& name);
    // Names in ascending order; touches no table.
    Result<std::vector<std::string>> space_names() const;

    Transaction begin();

    // Adds a region of at most `size_bytes` from what room the pool itself has left. Happens by
    // itself when frames run out; useful after a poolset was extended. no_space if there is none.
    Result<void> grow(std::uint64_t size_bytes);

    // Releases what unmapped and removed ranges left in limbo, one table per transaction, at most
    // `tables` of them; returns how many it released (fewer: limbo is empty). The mutating calls
    // do this by and by, and when frames run out; useful before measuring free space.
    Result<std::uint64_t> release_limbo(std::uint64_t tables = ~std::uint64_t{0});

    // Counts everything: proportional to what is mapped. Names of files need no walk.
    Result<StoreInfo> info() const;
    std::vector<RegionInfo> regions() const;

    // A full check, see verify.hpp, of a store at rest: a call that changes it meanwhile, from
    // another thread, may be reported half-way, as if it were damage; so may `info` count it.
    VerifyReport verify() const;

    const std::string& path() const;
    bool is_pmem() const;  // or emulated

    explicit Store(std::shared_ptr<detail::StoreState> state) : state_(std::move(state)) {}
    detail::StoreState& state() const { return *state_; }

  private:
    std::shared_ptr<detail::StoreState> state_;
};

}  // namespace holdfast
