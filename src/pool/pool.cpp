#include "pool/pool.hpp"

#include <fmt/format.h>
#include <libpmem.h>
#include <libpmemobj.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <libpmemobj++/pool.hpp>
#include <libpmemobj++/transaction.hpp>
#include <mutex>
#include <sstream>

#include "pool/emulation.hpp"
#include "pool/memory_copy.hpp"
#include "pool/pool_file.hpp"

namespace holdfast::pool {
namespace {

namespace obj = pmem::obj;

// libpmemobj's unit of huge allocations.
constexpr std::uint64_t kChunkBytes = 256 << 10;
// Below PMEMOBJ_MAX_ALLOC_SIZE by the object's header, rounded down to a chunk.
constexpr std::uint64_t kAllocationMax =
    (PMEMOBJ_MAX_ALLOC_SIZE - (1 << 20)) / kChunkBytes * kChunkBytes;

// What libpmemobj allocates, a piece at a time, where a lane's own logs are too small; each has a
// header. Of redo logs the size is given. For undo logs it is the largest of which one chunk of the
// heap holds a useful number: libpmemobj's own choice is 32 KiB, for which it sets 5 aside.
constexpr std::size_t kUndoPieceBytes = 8 << 10, kRedoPieceBytes = 640,
                      kPieceHeaderBytes = 64 + 128;

Error open_error(const std::string& path, int error_number, const char* action) {
    const std::string words = pmemobj_errormsg();
    const auto say = [&](ErrorCode code, const char* advice) {
        return Error{code, fmt::format("{}: cannot {}: {} ({}); {}", path, action,
                                       std::strerror(error_number), words, advice)};
    };
    switch (error_number) {
        case EAGAIN:
            return {ErrorCode::busy,
                    fmt::format("{}: open in another process; close it there first", path)};
        case EACCES:
        case EPERM:
        case EROFS:
            return say(ErrorCode::permission_denied, "give write permission or work on a copy");
        case ENOSPC:
        case EFBIG:
        case ENOMEM:
            return say(ErrorCode::no_space, "make room, or ask for less");
        case ENOENT:
            return say(ErrorCode::not_found, "check the path");
        case EEXIST:
            return say(ErrorCode::already_exists, "open it, or choose another name");
        case EINVAL:
            return say(ErrorCode::damaged,
                       "the pool is damaged or cut off; `pmempool check` says more");
        default:
            return say(ErrorCode::io, "see the system's log");
    }
}

// While one lives, pools are opened with one arena for all threads: each arena takes chunks of 256
// KiB for every size of object, which a small pool cannot spare, and libpmemobj's heap is not where
// our threads meet.
class OneArena {
  public:
    OneArena() {
        pmemobj_ctl_get(nullptr, kName, &previous_);
        pobj_arenas_assignment_type global = POBJ_ARENAS_ASSIGNMENT_GLOBAL;
        pmemobj_ctl_set(nullptr, kName, &global);
    }
    ~OneArena() { pmemobj_ctl_set(nullptr, kName, &previous_); }
    OneArena(const OneArena&) = delete;
    OneArena& operator=(const OneArena&) = delete;

  private:
    static constexpr const char* kName = "heap.arenas_assignment_type";
    pobj_arenas_assignment_type previous_ = POBJ_ARENAS_ASSIGNMENT_THREAD_KEY;
};

// While one lives and is on, pools are mapped copy-on-write.
class CopyOnWrite {
  public:
    explicit CopyOnWrite(bool on) : on_(on) { set(on_); }
    ~CopyOnWrite() { set(false); }
    CopyOnWrite(const CopyOnWrite&) = delete;
    CopyOnWrite& operator=(const CopyOnWrite&) = delete;

  private:
    void set(int value) const {
        if (on_) pmemobj_ctl_set(nullptr, "copy_on_write.at_open", &value);
    }
    const bool on_;
};

// PMDK's exceptions stop here. What it is told for one pool holds for every pool that is opened
// meanwhile, and one that is opened copy-on-write by mistake would lose everything: one at a time.
template <typename Open>
Result<obj::pool_base> attempt(const std::string& path, const char* action, const Open& open) {
    static std::mutex opening;
    const std::scoped_lock one_at_a_time(opening);
    const OneArena arena;
    try {
        errno = 0;
        return open();
    } catch (const std::exception&) {
        return std::unexpected(open_error(path, errno, action));
    }
}

}  // namespace

struct Pool::Handle {
    obj::pool_base pop;
};

PMEMobjpool* Pool::take(const std::string& path, Handle opened) {
    handle_ = std::make_unique<Handle>(std::move(opened));
    path_ = path;
    base_ = reinterpret_cast<std::byte*>(handle_->pop.handle());
    long long undo_piece = kUndoPieceBytes;
    pmemobj_ctl_set(handle_->pop.handle(), "tx.cache.size", &undo_piece);
    return handle_->pop.handle();
}

Result<std::unique_ptr<Pool>> Pool::create(const std::string& path, std::uint64_t size_bytes,
                                           std::uint32_t file_mode, bool emulate_pmem,
                                           const char* layout, std::size_t root_bytes) {
    if (auto fine = examine_for_create(path, size_bytes); !fine)
        return std::unexpected(fine.error());
    const EmulationScope emulation(emulate_pmem);
    if (emulate_pmem) {
        // Emulated PMem has neither bad blocks nor an unsafe-shutdown counter to look up.
        int off = 0;
        pmemobj_ctl_set(nullptr, "sds.at_create", &off);
    }
    std::unique_ptr<Pool> pool(new Pool);
    auto opened = attempt(path, "create the pool", [&] {
        return obj::pool_base::create(path, layout, size_bytes, static_cast<mode_t>(file_mode));
    });
    if (emulate_pmem) {
        int on = 1;
        pmemobj_ctl_set(nullptr, "sds.at_create", &on);
    }
    if (!opened) return std::unexpected(opened.error());
    PMEMobjpool* const pop = pool->take(path, Handle{*opened});
    // The root object is zeroed by libpmemobj, in one atomic allocation.
    const PMEMoid root = pmemobj_root(pop, root_bytes);
    if (OID_IS_NULL(root))
        return std::unexpected(open_error(path, errno, "allocate the root object"));
    // For each size of object libpmemobj's heap sets a chunk aside. Once frames have taken what
    // there was it would have none for logs, and the unmap that makes room could not be logged: a
    // first piece of each kind, which stays, keeps its chunk. (Room of our own, as for
    // pmemobj_tx_log_append_buffer, is no way: recovery frees it.) Nothing names them, and a crash
    // before, between or after leaves a pool without a superblock, whose making was interrupted.
    for (const std::size_t size : {kUndoPieceBytes, kRedoPieceBytes}) {
        PMEMoid piece;
        if (pmemobj_alloc(pop, &piece, size + kPieceHeaderBytes, 0, nullptr, nullptr) != 0)
            return std::unexpected(open_error(path, errno, "set room for logs aside"));
    }
    pool->root_ = static_cast<std::byte*>(pmemobj_direct(root));
    pool->is_pmem_ = emulate_pmem || pmem_is_pmem(pop, 4096) != 0;
    return pool;
}

Result<std::unique_ptr<Pool>> Pool::open(const std::string& path, bool emulate_pmem, bool as_copy,
                                         const char* layout, std::size_t root_bytes) {
    if (auto fine = examine_for_open(path, layout, !as_copy); !fine)
        return std::unexpected(fine.error());
    std::optional<MemoryCopy> memory;
    if (as_copy && !may_be_mapped_as_copy(path)) {
        auto copied = MemoryCopy::of(path);
        if (!copied) return std::unexpected(copied.error());
        memory = std::move(*copied);
    }
    const EmulationScope emulation(emulate_pmem);
    std::unique_ptr<Pool> pool(new Pool);
    auto opened = attempt(path, "open the pool", [&] {
        const CopyOnWrite copy_on_write(as_copy && !memory);
        return obj::pool_base::open(memory ? memory->path() : path, layout);
    });
    if (!opened) return std::unexpected(opened.error());
    pool->is_copy_ = as_copy;
    PMEMobjpool* const pop = pool->take(path, Handle{*opened});
    if (pmemobj_root_size(pop) < root_bytes)
        return fail(
            ErrorCode::damaged,
            fmt::format("{}: the store in this pool was never finished; delete the file and "
                        "create it anew",
                        path));
    pool->root_ = static_cast<std::byte*>(pmemobj_direct(pmemobj_root(pop, 0)));
    pool->is_pmem_ = emulate_pmem || pmem_is_pmem(pop, 4096) != 0;
    return pool;
}

Pool::~Pool() {
    if (handle_ && handle_->pop.handle() != nullptr) handle_->pop.close();
}

ForeignMemory& Pool::adopt(std::unique_ptr<ForeignMemory> memory) const {
    const std::scoped_lock lock(adopting_);
    const std::size_t count = foreign_count_.load(std::memory_order_relaxed);
    foreign_.at(count) = std::move(memory);
    foreign_count_.store(count + 1, std::memory_order_release);
    return *foreign_[count];
}

// Most pools have none.
const ForeignMemory* Pool::foreign_at(const void* address) const {
    const std::size_t count = foreign_count_.load(std::memory_order_acquire);
    for (std::size_t i = 0; i < count; ++i)
        if (foreign_[i]->contains(address)) return foreign_[i].get();
    return nullptr;
}

void Pool::flush(const void* address, std::size_t size_bytes) const {
    if (const ForeignMemory* const foreign = foreign_at(address))
        foreign->flush(address, size_bytes);
    else
        pmemobj_flush(handle_->pop.handle(), address, size_bytes);
}
bool Pool::holds(Offset offset, std::uint64_t size_bytes) const {
    const PMEMobjpool* const pop = handle_->pop.handle();
    return size_bytes != 0 && offset + size_bytes > offset &&
           pmemobj_pool_by_ptr(at(offset)) == pop &&
           pmemobj_pool_by_ptr(at(offset + size_bytes - 1)) == pop;
}

void Pool::drain() const {
    pmemobj_drain(handle_->pop.handle());
    // A pool that is written back by msync knows no fence, and may have PMem beside it.
    if (!is_pmem_ && foreign_count_.load(std::memory_order_relaxed) != 0) pmem_drain();
}
void Pool::fill(void* destination, int byte, std::size_t size_bytes) const {
    if (const ForeignMemory* const foreign = foreign_at(destination))
        foreign->fill(destination, byte, size_bytes);
    else
        pmemobj_memset(handle_->pop.handle(), destination, byte, size_bytes, PMEMOBJ_F_MEM_NODRAIN);
}
void Pool::copy(void* destination, const void* source, std::size_t size_bytes) const {
    if (const ForeignMemory* const foreign = foreign_at(destination))
        foreign->copy(destination, source, size_bytes);
    else
        pmemobj_memcpy(handle_->pop.handle(), destination, source, size_bytes,
                       PMEMOBJ_F_MEM_NODRAIN);
}

// Words alone need no transaction around them, only the order that it would have kept: what this
// thread has flushed before is drained before the first word is stored. pmemobj_publish drains
// before it writes its redo log, which is the commit point.
Result<void> Pool::publish(const WriteSet::Writes& words) const {
    PMEMobjpool* const pop = handle_->pop.handle();
    if (words.size() <= 1) {
        drain();
        // One word is its own commit point: an aligned store of 8 bytes, which no crash can tear. A
        // reader may see it before it is durable, but not before what it leads to.
        for (const WriteSet::Write& write : words) {
            store_word(write.word, write.value);
            flush(write.word, sizeof(std::uint64_t));
            drain();
        }
        return {};
    }
    boost::container::small_vector<pobj_action, kWordsByRedoAlone> actions(words.size());
    for (std::size_t i = 0; i < words.size(); ++i)
        pmemobj_set_value(pop, &actions[i], words[i].word, words[i].value);
    if (pmemobj_publish(pop, actions.data(), actions.size()) != 0)
        return fail(ErrorCode::io,
                    fmt::format("{}: the commit failed: {}", path_, pmemobj_errormsg()));
    return {};
}

// Undo words: neighbours share one snapshot, since each snapshot costs a fence. A crash after any
// of these stores finds the snapshots in the log and rolls all of them back.
void Pool::store_undo_words(const WriteSet::Writes& words) {
    for (std::size_t i = 0; i < words.size();) {
        if (words[i].word_class == WordClass::publish) {
            ++i;
            continue;
        }
        std::size_t end = i + 1;
        while (end < words.size() && words[end].word_class == WordClass::undo &&
               words[end].word == words[end - 1].word + 1)
            ++end;
        obj::flat_transaction::snapshot(words[i].word, end - i);
        for (; i < end; ++i) store_word(words[i].word, words[i].value, std::memory_order_relaxed);
    }
}

// Publish words go into the redo log: libpmemobj stores them after its commit point is durable. A
// crash before it leaves every old word, a crash after it every new one.
void Pool::add_publish_words(const WriteSet::Writes& words, bool all) const {
    boost::container::small_vector<pobj_action, WriteSet::kLinear> actions;
    for (const WriteSet::Write& write : words)
        if (all || write.word_class == WordClass::publish)
            pmemobj_set_value(handle_->pop.handle(), &actions.emplace_back(), write.word,
                              write.value);
    if (actions.empty() || pmemobj_tx_publish(actions.data(), actions.size()) == 0) return;
    if (errno == ENOMEM) throw pmem::transaction_out_of_memory("cannot extend the redo log");
    throw pmem::transaction_error("cannot extend the redo log");
}

Result<void> Pool::commit(WriteSet& writes, const Body& body) const {
    // A few words fit into the lane's redo log, whose one fence is cheaper than one a snapshot.
    // There, a word that has its value already (and is durable, or flushed by this thread) would
    // cost a flush for nothing, and the second flush of a cache line waits for the line to come
    // back; for a snapshot, it makes one piece of its neighbours.
    const bool few = writes.size() <= kWordsByRedoAlone;
    if (few) writes.drop_unchanged();
    if (few && !body) return publish(writes.writes());
    try {
        // Aborts if it is left by an exception or a return before `commit`.
        obj::flat_transaction::manual transaction(handle_->pop);
        if (body) {
            TransactionScope scope(*this);
            if (auto done = body(scope); !done) return done;
        }
        writes.sort();
        if (!few) store_undo_words(writes.writes());
        add_publish_words(writes.writes(), few);
        obj::flat_transaction::commit();
    } catch (const pmem::transaction_out_of_memory& error) {
        return fail(ErrorCode::no_space,
                    fmt::format("{}: no room left in the pool for its own records ({}); unmap "
                                "something or make a larger pool",
                                path_, error.what()));
    } catch (const std::exception& error) {
        return fail(ErrorCode::io,
                    fmt::format("{}: the transaction failed: {}", path_, error.what()));
    }
    return {};
}

std::uint64_t Pool::largest_allocation(std::uint64_t limit_bytes) const {
    PMEMobjpool* const pop = handle_->pop.handle();
    const auto fits = [&](std::uint64_t chunks) {
        pobj_action action;
        const PMEMoid oid =
            pmemobj_reserve(pop, &action, chunks * kChunkBytes - 4096, 0);  // less a header
        if (OID_IS_NULL(oid)) return false;
        pmemobj_cancel(pop, &action, 1);
        return true;
    };
    // The largest number of chunks that fits; reservations are volatile and taken back at once.
    std::uint64_t low = 0, high = std::min(limit_bytes, kAllocationMax) / kChunkBytes + 1;
    while (high - low > 1) {
        const std::uint64_t middle = low + (high - low) / 2;
        (fits(middle) ? low : high) = middle;
    }
    return low == 0 ? 0 : low * kChunkBytes - 4096;
}

std::optional<FileLocation> Pool::locate(const void* address, std::uint64_t size_bytes,
                                         std::uint64_t* contiguous_bytes) const {
    const auto wanted = reinterpret_cast<std::uint64_t>(address);
    std::ifstream maps("/proc/self/maps");
    std::optional<FileLocation> found;
    std::uint64_t next = 0, reached = 0;
    for (std::string line; std::getline(maps, line);) {
        unsigned long long start = 0, end = 0, offset = 0;
        int name_at = 0;
        if (std::sscanf(line.c_str(), "%llx-%llx %*s %llx %*s %*s %n", &start, &end, &offset,
                        &name_at) < 3)
            continue;
        const std::string name = name_at != 0 ? line.substr(static_cast<std::size_t>(name_at)) : "";
        if (!found && wanted >= start && wanted < end) {
            found = FileLocation{name, offset + (wanted - start)};
        } else if (!found || next != start || name != found->file ||
                   offset != found->offset + (start - wanted)) {
            // Neither the first piece nor one that continues it in memory and in the file.
            if (found) break;
            continue;
        }
        next = end;
        reached = end - wanted;
        if (reached >= size_bytes) break;
    }
    if (contiguous_bytes != nullptr) *contiguous_bytes = std::min(reached, size_bytes);
    return found;
}

Result<Offset> TransactionScope::allocate(std::uint64_t size_bytes) {
    const PMEMoid oid = pmemobj_tx_xalloc(size_bytes, 0, POBJ_XALLOC_NO_FLUSH);
    if (OID_IS_NULL(oid))
        return fail(ErrorCode::no_space, fmt::format("{}: no room left in the pool for {} bytes",
                                                     pool_.path(), size_bytes));
    return oid.off;
}

void TransactionScope::free(Offset object) {
    const PMEMoid any = pmemobj_oid(pool_.root());
    pmemobj_tx_free(PMEMoid{any.pool_uuid_lo, object});
}

void TransactionScope::write(void* destination, std::span<const std::byte> source) {
    obj::flat_transaction::snapshot(static_cast<std::byte*>(destination), source.size());
    std::memcpy(destination, source.data(), source.size());
}

}  // namespace holdfast::pool
