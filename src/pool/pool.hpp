// One libpmemobj pool: the only door to the medium.
//
// Everything that becomes durable goes through here: transactions by `commit`, bytes that are not
// reachable yet by `flush`/`fill`/`drain`. No other room includes PMDK, and none issues a flush or
// a fence of its own: the crash harness interposes libpmem's functions, and must see them all.
//
// Thread safety: every function may be called from any thread. A `drain` waits for the flushes of
// the thread that calls it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "holdfast/error.hpp"
#include "pool/foreign_memory.hpp"
#include "pool/write_set.hpp"

struct pmemobjpool;  // libpmemobj's

namespace holdfast::pool {

class TransactionScope;

// An offset into the pool; 0 is none.
using Offset = std::uint64_t;

struct FileLocation {
    std::string file;
    std::uint64_t offset = 0;
};

class Pool {
  public:
    // `root_bytes` is the size of the root object; a new one is zeroed. `size_bytes` 0 takes the
    // size that a poolset or device has.
    static Result<std::unique_ptr<Pool>> create(const std::string& path, std::uint64_t size_bytes,
                                                std::uint32_t file_mode, bool emulate_pmem,
                                                const char* layout, std::size_t root_bytes);
    // `as_copy`: nothing reaches the file. It is mapped copy-on-write if it may be written, and
    // otherwise copied to memory.
    static Result<std::unique_ptr<Pool>> open(const std::string& path, bool emulate_pmem,
                                              bool as_copy, const char* layout,
                                              std::size_t root_bytes);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    std::byte* root() const { return root_; }
    std::byte* at(Offset offset) const { return base_ + offset; }
    Offset offset_of(const void* address) const {
        return static_cast<Offset>(static_cast<const std::byte*>(address) - base_);
    }
    // Whether all of it lies where the pool's objects are.
    bool holds(Offset offset, std::uint64_t size_bytes) const;
    const std::string& path() const { return path_; }
    bool is_pmem() const { return is_pmem_; }
    bool is_copy() const { return is_copy_; }

    // Starts writing the range back to the medium; durable after this thread's next `drain` (with a
    // file that is not PMem, at once, by msync).
    void flush(const void* address, std::size_t size_bytes) const;
    void drain() const;
    // Takes charge of memory beside the pool: the functions above and below then serve its
    // addresses, too. It stays mapped until the pool is closed. At most kForeignMax.
    ForeignMemory& adopt(std::unique_ptr<ForeignMemory> memory) const;
    static constexpr std::size_t kForeignMax = 256;

    // Fills or copies, and starts writing back, bypassing the cache where that is faster.
    void fill(void* destination, int byte, std::size_t size_bytes) const;
    void copy(void* destination, const void* source, std::size_t size_bytes) const;

    // Commits `writes`, and what `body` does in the same libpmemobj transaction, as one
    // failure-atomic unit; `body` runs before any word is stored and may report an error, which
    // aborts. What this thread has flushed before is durable before the commit point.
    // The commit point is the redo log that libpmemobj persists in pmemobj_tx_commit: it holds the
    // `publish` words (all words, if they are few) and the invalidation of the undo log. A few
    // words without a body have the same redo log, but no transaction; one word has no log.
    using Body = std::function<Result<void>(TransactionScope&)>;
    Result<void> commit(WriteSet& writes, const Body& body = {}) const;

    // How large an object, up to `limit_bytes`, could be allocated now, in steps of 256 KiB.
    std::uint64_t largest_allocation(std::uint64_t limit_bytes) const;

    // The file behind a mapped address and the offset in it; and how many bytes from there on, up
    // to `size_bytes`, lie in that file without a seam (the parts of a poolset have seams).
    std::optional<FileLocation> locate(const void* address, std::uint64_t size_bytes,
                                       std::uint64_t* contiguous_bytes) const;

  private:
    friend class TransactionScope;
    friend class OrderedMap;
    Pool() = default;
    struct Handle;
    Result<void> publish(const WriteSet::Writes& words) const;
    static void store_undo_words(const WriteSet::Writes& words);
    void add_publish_words(const WriteSet::Writes& words, bool all) const;
    // libpmemobj's redo log has room for 40 words before it must be extended, which costs more
    // fences than it saves.
    static constexpr std::size_t kWordsByRedoAlone = 24;
    pmemobjpool* take(const std::string& path, Handle opened);

    std::unique_ptr<Handle> handle_;
    std::byte* base_ = nullptr;
    std::byte* root_ = nullptr;
    std::string path_;
    bool is_pmem_ = false;
    bool is_copy_ = false;

    const ForeignMemory* foreign_at(const void* address) const;
    mutable std::mutex adopting_;
    mutable std::array<std::unique_ptr<ForeignMemory>, kForeignMax> foreign_;
    mutable std::atomic<std::size_t> foreign_count_ = 0;
};

// What may be done inside `Pool::commit` besides words.
class TransactionScope {
  public:
    // A new object, not zeroed, freed again if the transaction does not commit.
    Result<Offset> allocate(std::uint64_t size_bytes);
    void free(Offset object);
    // Snapshots and overwrites.
    void write(void* destination, std::span<const std::byte> source);
    const Pool& pool() const { return pool_; }

  private:
    friend class Pool;
    explicit TransactionScope(const Pool& pool) : pool_(pool) {}
    const Pool& pool_;
};

// An ordered map from byte strings to byte strings: libpmemobj-cpp's radix tree. Readers and
// writers of one map must exclude each other.
class OrderedMap {
  public:
    OrderedMap(const Pool& pool, Offset object) : pool_(&pool), object_(object) {}
    static Offset create(TransactionScope& scope);
    void destroy(TransactionScope& scope);

    void put(TransactionScope& scope, std::string_view key, std::string_view value);
    void erase(TransactionScope& scope, std::string_view key);

    std::optional<std::string> get(std::string_view key) const;
    std::uint64_t size() const;
    struct Item {
        std::string key, value;
    };
    // The first item whose key is not less than `key`; the last whose key is not greater.
    std::optional<Item> lower_bound(std::string_view key) const;
    std::optional<Item> last_not_after(std::string_view key) const;
    // Calls `visit` in ascending order from `key` on until it returns false.
    void visit(
        std::string_view from,
        const std::function<bool(std::string_view key, std::string_view value)>& visit) const;

    Offset object() const { return object_; }

  private:
    const Pool* pool_;
    Offset object_;
};

}  // namespace holdfast::pool
