#include "radix_map.hpp"

#include <algorithm>
#include <libpmemobj++/experimental/radix_tree.hpp>
#include <libpmemobj++/make_persistent.hpp>
#include <libpmemobj++/persistent_ptr.hpp>
#include <libpmemobj++/pool.hpp>
#include <libpmemobj++/transaction.hpp>

#include "peers.hpp"

namespace holdfast::bench {

namespace obj = pmem::obj;
using Tree = obj::experimental::radix_tree<std::uint64_t, std::uint64_t>;

struct RadixMap::State {
    explicit State(std::uint64_t pool_bytes) : bare(pool_bytes), pool(bare.get()) {
        obj::transaction::run(pool, [&] { tree = obj::make_persistent<Tree>().get(); });
    }
    BarePool bare;
    obj::pool_base pool;
    Tree* tree = nullptr;  // in the pool; the pool lives no longer than this
};

RadixMap::RadixMap(std::uint64_t pool_bytes) : state_(std::make_unique<State>(pool_bytes)) {}
RadixMap::~RadixMap() = default;

void RadixMap::put(std::uint64_t key, std::uint64_t value) {
    state_->tree->try_emplace(key, value);
}

void RadixMap::fill(std::uint64_t count) {
    constexpr std::uint64_t kBatch = 64;
    for (std::uint64_t begin = 0; begin < count; begin += kBatch)
        obj::flat_transaction::run(state_->pool, [&] {
            for (std::uint64_t key = begin; key < std::min(count, begin + kBatch); ++key)
                state_->tree->try_emplace(key, key << 12);
        });
}

std::uint64_t RadixMap::get(std::uint64_t key) const { return state_->tree->find(key)->value(); }

}  // namespace holdfast::bench
