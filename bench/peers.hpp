// What holdfast is measured against, each as its users would set it up, and all in /dev/shm: pools
// of libpmemobj with PMem emulated as for ours (and without its shutdown state and bad-block
// checks, which emulation turns off for ours as well), and LMDB.
#pragma once

#include <libpmemobj.h>
#include <lmdb.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "holdfast/holdfast.hpp"
#include "scratch_file.hpp"
#include "suite.hpp"

namespace holdfast::bench {

// A store of ours, and a space in it.
class StoreFixture {
  public:
    explicit StoreFixture(std::uint64_t size_bytes);

    Space space(const std::string& name);
    // Touches every frame and its metadata once, so that no benchmark pays for the first touch of
    // tmpfs memory.
    void touch_all_frames();
    // Maps `pages` pages at `start` onto the 512 frames of the space "source": the tables are real.
    void map_shared(Space& space, VirtAddr start, std::uint64_t pages);
    static constexpr std::uint64_t kSourcePages = 512;
    static constexpr Range source_range() {
        return {VirtAddr(kPageSize * kSourcePages), kPageSize * kSourcePages};
    }
    void close() { store_.reset(); }

    Store& store() { return *store_; }
    const std::string& path() const { return file_.path(); }

  private:
    ScratchFile file_;
    std::optional<Store> store_;
};

Result<Store> open_emulated(const std::string& path);

// A pool of libpmemobj without anything of ours.
class BarePool {
  public:
    explicit BarePool(std::uint64_t size_bytes);
    ~BarePool() { pmemobj_close(pool_); }
    BarePool(const BarePool&) = delete;
    BarePool& operator=(const BarePool&) = delete;

    PMEMobjpool* get() const { return pool_; }
    // Zeroed, and so touched.
    std::byte* allocate(std::uint64_t size_bytes);

  private:
    ScratchFile file_;
    PMEMobjpool* pool_ = nullptr;
};

PMEMobjpool* open_bare(const std::string& path);

// LMDB with integer keys and values of 8 bytes. MDB_WRITEMAP and MDB_NOSYNC: its fastest, and not
// durable.
class Lmdb {
  public:
    enum class Mode { create, open };
    Lmdb(const std::string& path, std::uint64_t size_bytes, Mode mode);
    ~Lmdb() { mdb_env_close(environment_); }
    Lmdb(const Lmdb&) = delete;
    Lmdb& operator=(const Lmdb&) = delete;

    // One transaction.
    void put(std::uint64_t key, std::uint64_t value);
    // Keys 0 to `count` - 1, in a few large transactions; the map must be empty.
    void fill(std::uint64_t count);

    class Reader {
      public:
        explicit Reader(const Lmdb& lmdb);
        ~Reader() { mdb_txn_abort(transaction_); }
        Reader(const Reader&) = delete;
        Reader& operator=(const Reader&) = delete;
        std::uint64_t get(std::uint64_t key) const;

      private:
        MDB_txn* transaction_ = nullptr;
        MDB_dbi database_ = 0;
    };

  private:
    friend class Reader;
    MDB_env* environment_ = nullptr;
    MDB_dbi database_ = 0;
};

// Numbers that look random, from a counter: the next does not wait for the last, so that what is
// measured is the look-up and not the generator. `bits` of them, from the top of a product
// (Steele, Lea & Flood, OOPSLA 2014, "Fast Splittable Pseudorandom Number Generators").
class RandomIndex {
  public:
    explicit RandomIndex(unsigned bits) : shift_(64 - bits) {}
    std::uint64_t next() {
        std::uint64_t value = state_ += 0x9e37'79b9'7f4a'7c15;
        value = (value ^ (value >> 32)) * 0xd6e8'feb8'6659'fd93;
        return value >> shift_;
    }

    // The same sequence from here on, with other bits.
    RandomIndex with_bits(unsigned bits) const {
        RandomIndex other = *this;
        other.shift_ = 64 - bits;
        return other;
    }

  private:
    std::uint64_t state_ = 0;
    unsigned shift_;
};

}  // namespace holdfast::bench
