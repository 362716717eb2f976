// Translating random addresses of one mapped range: a large one, whose tables are beyond the reach
// of caches and TLB, and a small one that stays in the first cache.
//
// The look-ups do not depend on one another, for any peer, so that a processor overlaps them as it
// does for a program that copies pages; "dependent" ones wait for the one before, as a chain of
// pointers does. All peers map the same page numbers. The pool's memory has pages of 4 KiB here
// (tmpfs), while the kernel may give a heap of this size huge pages: the radix tree in DRAM is
// measured with and without.
#include <fmt/format.h>
#include <sys/mman.h>

#include <array>
#include <memory>
#include <unordered_map>

#include "peers.hpp"
#include "radix_map.hpp"
#include "store/store_state.hpp"
#include "suite.hpp"
#include "table/walk.hpp"

namespace holdfast::bench {
namespace {

struct WorkingSet {
    const char* name;
    const char* words;
    unsigned bits;  // log2 of its pages
};
constexpr WorkingSet kLarge{"4M", "4 M pages", 22}, kSmall{"64", "64 pages", 6};
constexpr std::uint64_t kPages = std::uint64_t{1} << kLarge.bits;
const VirtAddr kStart{0x10'0000'0000};

VirtAddr address_of(std::uint64_t index) { return kStart + index * kPageSize; }

// The plainest page table: four levels of raw pointers, the last of values, nothing checked.
class DramRadix {
  public:
    explicit DramRadix(bool huge_pages) {
        // As many nodes as the range needs, in one piece.
        size_bytes_ = (kPages / 512 + kPages / 512 / 512 + 16) * sizeof(Node);
        void* memory =
            mmap(nullptr, size_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) stop("no memory for the radix tree in DRAM");
        madvise(memory, size_bytes_, huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
        free_ = nodes_ = static_cast<Node*>(memory);
        root_ = free_++;
        for (std::uint64_t page = 0; page < kPages; ++page) {
            const std::uint64_t bits = address_of(page).bits();
            Node* node = root_;
            for (unsigned shift = 39; shift > 12; shift -= 9) {
                Node*& below = node->slots[bits >> shift & 511].below;
                if (below == nullptr) below = free_++;
                node = below;
            }
            node->slots[bits >> 12 & 511].value = page << kPageShift | 1;
        }
    }
    ~DramRadix() { munmap(nodes_, size_bytes_); }
    DramRadix(const DramRadix&) = delete;
    DramRadix& operator=(const DramRadix&) = delete;

    // 0 if nothing is there.
    std::uint64_t walk(VirtAddr address) const {
        const Node* node = root_;
        for (unsigned shift = 39; shift > 12; shift -= 9) {
            node = node->slots[address.bits() >> shift & 511].below;
            if (node == nullptr) return 0;
        }
        return node->slots[address.bits() >> 12 & 511].value;
    }

  private:
    struct Node {
        union Slot {
            Node* below;
            std::uint64_t value;
        } slots[512];
    };
    std::size_t size_bytes_ = 0;
    Node* nodes_ = nullptr;
    Node* free_ = nullptr;
    Node* root_ = nullptr;
};

struct Ours {
    Ours() : store((std::uint64_t{96} << 20)), space(store.space("space")) {
        store.map_shared(space, kStart, kPages);
        for (std::uint64_t page = 0; page < kPages; page += 512)
            for (int walk = 0; walk < 10; ++walk)  // by then every table is validated
                value_of(walk_to(address_of(page)));
    }
    Result<Translation> walk_to(VirtAddr address) const {
        auto found = space.translate(address);
        if (!found) return fail(ErrorCode::damaged, found.error().to_string());
        return *found;
    }
    const memory::PhysicalMemory& memory() { return store.store().state().memory; }

    StoreFixture store;
    Space space;
};

struct HashMap {
    HashMap() {
        map.reserve(kPages);
        for (std::uint64_t page = 0; page < kPages; ++page) map.emplace(page, page << kPageShift);
    }
    std::unordered_map<std::uint64_t, std::uint64_t> map;
};

struct RadixTree {
    RadixTree() : map(std::uint64_t{800} << 20) { map.fill(kPages); }
    RadixMap map;
};

struct LmdbMap {
    LmdbMap() : lmdb(file.path(), std::uint64_t{512} << 20, Lmdb::Mode::create) {
        lmdb.fill(kPages);
    }
    ScratchFile file;
    Lmdb lmdb;
};

// Made at first use, and shared by the repetitions.
template <typename Fixture>
std::unique_ptr<Fixture>& fixture() {
    static std::unique_ptr<Fixture> made;
    return made;
}
template <typename Fixture>
Fixture& shared() {
    if (!fixture<Fixture>()) fixture<Fixture>() = std::make_unique<Fixture>();
    return *fixture<Fixture>();
}
struct DramSmallPages : DramRadix {
    DramSmallPages() : DramRadix(false) {}
};
struct DramHugePages : DramRadix {
    DramHugePages() : DramRadix(true) {}
};

// `look_up` takes an index and returns a word that depends on what was found. Caches are warmed up
// as far as they go, and each repetition goes on where the last one stopped.
template <typename LookUp>
void independent(benchmark::State& state, const WorkingSet& set, const LookUp& look_up) {
    static RandomIndex sequence(64);
    RandomIndex index = sequence.with_bits(set.bits);
    for (int i = 0; i < 1 << 18; ++i) keep(look_up(index.next()));
    for (auto _ : state) keep(look_up(index.next()));
    sequence = index;
}
template <typename LookUp>
void dependent(benchmark::State& state, const WorkingSet& set, const LookUp& look_up) {
    std::uint64_t last = 0;
    const std::uint64_t mask = (std::uint64_t{1} << set.bits) - 1;
    // The found word's top bit is 0: the index is unchanged by it, but cannot be known before.
    independent(state, set,
                [&](std::uint64_t index) { return last = look_up((index + (last >> 63)) & mask); });
}

std::uint64_t bits_of(const std::expected<Translation, Fault>& found) {
    return found ? found->physical.bits() : 0;
}

template <bool kValidate>
auto walker() {
    Ours& ours = shared<Ours>();
    return [&memory = ours.memory(), root = ours.space.state().root()](std::uint64_t index) {
        return bits_of(table::walk<kValidate>(memory, root, address_of(index)));
    };
}

void add_set(Suite& suite, const WorkingSet& set) {
    const auto name = [&](const char* peer) {
        return fmt::format("translate/{}/{}", peer, set.name);
    };
    const auto add = [&](const char* peer, const Suite::Body& body) {
        suite.add(name(peer), body)->MinTime(set.bits == kLarge.bits ? 0.15 : 0.03);
    };
    add("translate", [=](benchmark::State& state) {
        independent(state, set, [&space = shared<Ours>().space](std::uint64_t index) {
            return bits_of(space.translate(address_of(index)));
        });
    });
    add("walk", [=](benchmark::State& state) { independent(state, set, walker<true>()); });
    add("walk_unvalidated",
        [=](benchmark::State& state) { independent(state, set, walker<false>()); });
    add("dram", [=](benchmark::State& state) {
        independent(state, set, [&radix = shared<DramSmallPages>()](std::uint64_t index) {
            return radix.walk(address_of(index));
        });
    });
    add("dram_huge", [=](benchmark::State& state) {
        independent(state, set, [&radix = shared<DramHugePages>()](std::uint64_t index) {
            return radix.walk(address_of(index));
        });
    });
    add("walk_dependent", [=](benchmark::State& state) { dependent(state, set, walker<true>()); });
    add("walk_unvalidated_dependent",
        [=](benchmark::State& state) { dependent(state, set, walker<false>()); });
    add("dram_dependent", [=](benchmark::State& state) {
        dependent(state, set, [&radix = shared<DramSmallPages>()](std::uint64_t index) {
            return radix.walk(address_of(index));
        });
    });
    add("unordered_map", [=](benchmark::State& state) {
        independent(state, set, [&map = shared<HashMap>().map](std::uint64_t index) {
            return map.find(index)->second;
        });
    });
    add("radix_tree", [=](benchmark::State& state) {
        independent(state, set, [&map = shared<RadixTree>().map](std::uint64_t index) {
            return map.get(index);
        });
    });
    add("lmdb", [=](benchmark::State& state) {
        const Lmdb::Reader reader(shared<LmdbMap>().lmdb);
        independent(state, set, [&](std::uint64_t index) { return reader.get(index); });
    });

    const std::string walk = fmt::format("validated walk, {}", set.words);
    const std::string call = fmt::format("Space::translate, {}", set.words);
    suite.compare({walk, name("walk"), name("walk_unvalidated"), "the same walk, nothing checked",
                   at_most(1.1)});
    suite.compare({walk, name("walk"), name("dram"), "DRAM radix walk, unvalidated", at_most(1.1)});
    suite.compare({walk, name("walk"), name("dram_huge"), "the same with huge pages", kNoGoal});
    suite.compare({walk + ", dependent", name("walk_dependent"), name("walk_unvalidated_dependent"),
                   "the same walk, nothing checked", at_most(1.1)});
    suite.compare({walk + ", dependent", name("walk_dependent"), name("dram_dependent"),
                   "DRAM radix walk, unvalidated", at_most(1.1)});
    suite.compare({call, name("translate"), name("walk"), "the bare validated walk", kNoGoal});
    suite.compare({call, name("translate"), name("unordered_map"), "std::unordered_map", kNoGoal});
    suite.compare({call, name("translate"), name("radix_tree"), "PMDK radix_tree", at_least(10)});
    suite.compare({call, name("translate"), name("lmdb"), "LMDB get", at_least(10)});
}

// --- cold: the first walks after opening ---

constexpr std::uint64_t kColdTables = 512;

struct Cold {
    Cold() : store(std::uint64_t{64} << 20) {
        {
            Space space = store.space("space");
            store.map_shared(space, kStart, kColdTables * 512);
        }
        store.close();
    }
    StoreFixture store;
};

void add_cold(Suite& suite) {
    suite
        .add("translate/cold/first",
             [](benchmark::State& state) {
                 const std::string path = shared<Cold>().store.path();
                 for (auto _ : state) {
                     const Store store = value_of(open_emulated(path));
                     const Space space = value_of(store.open_space("space"));
                     const double start = cpu_seconds();
                     benchmark::DoNotOptimize(space.translate(address_of(777)));
                     state.SetIterationTime(cpu_seconds() - start);
                 }
             })
        ->UseManualTime()
        ->Iterations(10);
    suite
        .add("translate/cold/table",
             [](benchmark::State& state) {
                 const std::string path = shared<Cold>().store.path();
                 for (auto _ : state) {
                     const Store store = value_of(open_emulated(path));
                     const Space space = value_of(store.open_space("space"));
                     benchmark::DoNotOptimize(space.translate(address_of(777)));
                     const double start = cpu_seconds();
                     for (std::uint64_t table = 2; table < kColdTables; ++table)
                         benchmark::DoNotOptimize(space.translate(address_of(table * 512)));
                     state.SetIterationTime((cpu_seconds() - start) /
                                            static_cast<double>(kColdTables - 2));
                 }
             })
        ->UseManualTime()
        ->Iterations(3);
    suite.compare({"first walk after open: an entry in each of 4 tables checked",
                   "translate/cold/first", "translate/walk/4M", "validated walk, 4 M pages",
                   kNoGoal});
    suite.compare({"first walk through one more full table", "translate/cold/table",
                   "translate/walk/4M", "validated walk, 4 M pages", kNoGoal});
}

void add(Suite& suite) {
    suite.add("translate/tlb_hit/64", [](benchmark::State& state) {
        Tlb tlb(shared<Ours>().space);
        independent(state, kSmall,
                    [&](std::uint64_t index) { return bits_of(tlb.translate(address_of(index))); });
    });
    suite.compare({"TLB hit", "translate/tlb_hit/64", "", "", at_most(2)});
    for (const WorkingSet& set : {kLarge, kSmall}) add_set(suite, set);
    add_cold(suite);
}

void clean_up() {
    fixture<Ours>().reset();
    fixture<DramSmallPages>().reset();
    fixture<DramHugePages>().reset();
    fixture<HashMap>().reset();
    fixture<RadixTree>().reset();
    fixture<LmdbMap>().reset();
    fixture<Cold>().reset();
}

}  // namespace

Subject translate_subject() { return {"translate", add, clean_up}; }

}  // namespace holdfast::bench
