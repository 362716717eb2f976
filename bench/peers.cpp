#include "peers.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "format/superblock.hpp"
#include "pool/emulation.hpp"

namespace holdfast::bench {

namespace {

const VirtAddr kFillAddress{0x7000'0000'0000};

void check_lmdb(int error, const char* action) {
    if (error != 0) stop(fmt::format("LMDB: cannot {}: {}", action, mdb_strerror(error)));
}

MDB_val value_from(std::uint64_t& word) { return {sizeof word, &word}; }

}  // namespace

// --- ours ---

StoreFixture::StoreFixture(std::uint64_t size_bytes)
    : store_(value_of(Store::create(file_.path(),
                                    {.size_bytes = size_bytes, .emulation = PmemEmulation::on}))) {}

Space StoreFixture::space(const std::string& name) {
    auto known = store_->open_space(name);
    return known ? *known : value_of(store_->create_space(name));
}

void StoreFixture::touch_all_frames() {
    Space everything = space("touch");
    VirtAddr at = kFillAddress;
    for (std::uint64_t piece = std::uint64_t{1} << 30; piece >= kPageSize; piece /= 2)
        while (everything.map({at, piece}, protection::rw)) at = at + piece;
    // Removing a space wants a frame for its limbo record, and there is none left.
    must(everything.unmap({kFillAddress, 8 * kPageSize}));
    must(store_->remove_space("touch"));
    value_of(store_->release_limbo());
}

void StoreFixture::map_shared(Space& space, VirtAddr start, std::uint64_t pages) {
    Space source = this->space("source");
    if (!source.translate(source_range().start)) must(source.map(source_range(), protection::rw));
    must(space.map_shared({start, pages * kPageSize}, protection::rw, source, source_range()));
}

Result<Store> open_emulated(const std::string& path) {
    return Store::open(path, {.emulation = PmemEmulation::on});
}

// --- libpmemobj ---

BarePool::BarePool(std::uint64_t size_bytes) {
    const pool::EmulationScope emulation(true);
    int off = 0;
    pmemobj_ctl_set(nullptr, "sds.at_create", &off);
    pool_ = pmemobj_create(file_.path().c_str(), "bench", size_bytes, 0600);
    int on = 1;
    pmemobj_ctl_set(nullptr, "sds.at_create", &on);
    if (pool_ == nullptr) stop(pmemobj_errormsg());
}

std::byte* BarePool::allocate(std::uint64_t size_bytes) {
    PMEMoid object;
    if (pmemobj_zalloc(pool_, &object, size_bytes, 0) != 0) stop(pmemobj_errormsg());
    return static_cast<std::byte*>(pmemobj_direct(object));
}

PMEMobjpool* open_bare(const std::string& path) {
    const pool::EmulationScope emulation(true);
    PMEMobjpool* const pool = pmemobj_open(path.c_str(), format::kLayout);
    if (pool == nullptr) stop(pmemobj_errormsg());
    return pool;
}

// --- LMDB ---

Lmdb::Lmdb(const std::string& path, std::uint64_t size_bytes, Mode mode) {
    check_lmdb(mdb_env_create(&environment_), "make an environment");
    check_lmdb(mdb_env_set_mapsize(environment_, size_bytes), "set its size");
    check_lmdb(
        mdb_env_open(environment_, path.c_str(), MDB_NOSUBDIR | MDB_WRITEMAP | MDB_NOSYNC, 0600),
        "open it");
    MDB_txn* transaction = nullptr;
    // A map that exists is opened as a reader would, without LMDB's writer lock.
    check_lmdb(
        mdb_txn_begin(environment_, nullptr, mode == Mode::open ? MDB_RDONLY : 0, &transaction),
        "begin");
    check_lmdb(
        mdb_dbi_open(transaction, nullptr, mode == Mode::open ? 0 : MDB_INTEGERKEY, &database_),
        "open the map");
    check_lmdb(mdb_txn_commit(transaction), "commit");
}

void Lmdb::put(std::uint64_t key, std::uint64_t value) {
    MDB_txn* transaction = nullptr;
    check_lmdb(mdb_txn_begin(environment_, nullptr, 0, &transaction), "begin");
    MDB_val key_bytes = value_from(key), value_bytes = value_from(value);
    check_lmdb(mdb_put(transaction, database_, &key_bytes, &value_bytes, 0), "put");
    check_lmdb(mdb_txn_commit(transaction), "commit");
}

void Lmdb::fill(std::uint64_t count) {
    constexpr std::uint64_t kBatch = 1 << 16;
    for (std::uint64_t begin = 0; begin < count; begin += kBatch) {
        MDB_txn* transaction = nullptr;
        check_lmdb(mdb_txn_begin(environment_, nullptr, 0, &transaction), "begin");
        for (std::uint64_t key = begin; key < std::min(count, begin + kBatch); ++key) {
            std::uint64_t value = key << kPageShift;
            MDB_val key_bytes = value_from(key), value_bytes = value_from(value);
            check_lmdb(mdb_put(transaction, database_, &key_bytes, &value_bytes, MDB_APPEND),
                       "append");
        }
        check_lmdb(mdb_txn_commit(transaction), "commit");
    }
}

Lmdb::Reader::Reader(const Lmdb& lmdb) : database_(lmdb.database_) {
    check_lmdb(mdb_txn_begin(lmdb.environment_, nullptr, MDB_RDONLY, &transaction_), "begin");
}

std::uint64_t Lmdb::Reader::get(std::uint64_t key) const {
    MDB_val key_bytes = value_from(key), value_bytes{};
    check_lmdb(mdb_get(transaction_, database_, &key_bytes, &value_bytes), "get");
    return *static_cast<const std::uint64_t*>(value_bytes.mv_data);
}

}  // namespace holdfast::bench
