// The cache of a TLB alone: geometry, replacement, counters, reach, dropping; and, with all page
// sizes, against a plain model of sets.
#include "holdfast/translation_cache.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <list>
#include <map>

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using enum PageSize;

constexpr TlbTag kTag{1}, kOther{2};

Translation at(std::uint64_t physical, PageSize size, Protection protection = protection::rw) {
    return {PhysAddr(physical), size, protection};
}
VirtAddr page(std::uint64_t number) { return VirtAddr(number * kPageSize); }

TranslationCache cache_of(TlbGeometry small, TlbReplacement replacement = TlbReplacement::lru,
                          TlbGeometry large = {8, 2}, TlbGeometry giant = {4, 4}) {
    return TranslationCache({small, large, giant, replacement});
}
bool hits(TranslationCache& cache, VirtAddr address, TlbTag tag = kTag,
          Protection access = protection::r) {
    return cache.find(tag, address, access).has_value();
}

TEST(TranslationCache, GeometriesThatCannotBe) {
    const auto words_of = [](const TlbGeometries& geometries) {
        const auto fine = geometries.check();
        EXPECT_EQ(fine ? ErrorCode::io : fine.error().code, ErrorCode::invalid_argument);
        return fine ? std::string() : fine.error().message;
    };
    EXPECT_TRUE(TlbGeometries{}.check());
    EXPECT_TRUE((TlbGeometries{.pages_4KiB = {12, 12}, .pages_2MiB = {0, 1}, .pages_1GiB = {1, 1}})
                    .check());
    EXPECT_NE(words_of({.pages_4KiB = {0, 1}}).find("4 KiB"), std::string::npos);
    EXPECT_NE(words_of({.pages_2MiB = {8, 0}}).find("2 MiB"), std::string::npos);
    EXPECT_NE(words_of({.pages_1GiB = {24, 4}}).find("power of two"), std::string::npos);
    EXPECT_NE(words_of({.pages_4KiB = {7, 2}}).find("power of two"), std::string::npos);
    EXPECT_NE(words_of({.pages_4KiB = {1u << 25, 2}}).find("16777216"), std::string::npos);
}

TEST(TranslationCache, AHitKeepsTheOffsetWithinPagesOfEachSize) {
    TranslationCache cache = cache_of({16, 4});
    cache.insert(kTag, VirtAddr(0x1234), at(0x5234, size_4KiB));
    cache.insert(kTag, VirtAddr(0x0060'1234), at(0x4020'1234, size_2MiB));
    cache.insert(kTag, VirtAddr(0xffff'ff80'4000'0000), at(0x8000'0000, size_1GiB));
    EXPECT_EQ(cache.find(kTag, VirtAddr(0x1fff), protection::r), at(0x5fff, size_4KiB));
    EXPECT_EQ(cache.find(kTag, VirtAddr(0x007f'fffe), protection::r), at(0x403f'fffe, size_2MiB));
    EXPECT_EQ(cache.find(kTag, VirtAddr(0xffff'ff80'7654'3210), protection::r),
              at(0xb654'3210, size_1GiB));
    for (const PageSize size : TranslationCache::kSizes) EXPECT_EQ(cache.hits(size), 1u);
    EXPECT_FALSE(hits(cache, VirtAddr(0x2000)));
    // The same low bits, and not canonical: another page.
    EXPECT_FALSE(hits(cache, VirtAddr(0x0fff'ff80'7654'3210)));
    EXPECT_FALSE(hits(cache, VirtAddr(0x1234), kOther));
    EXPECT_EQ(cache.reach_bytes(), 4_KiB + 2_MiB + 1_GiB);
}

TEST(TranslationCache, AnEntryThatDoesNotPermitTheAccessIsNoHitAndNotCounted) {
    TranslationCache cache = cache_of({2, 2});
    cache.insert(kTag, page(1), at(0x1000, size_4KiB, protection::r));
    cache.insert(kTag, page(2), at(0x2000, size_4KiB, protection::r | protection::u));
    EXPECT_FALSE(hits(cache, page(1), kTag, protection::w));
    EXPECT_FALSE(hits(cache, page(1), kTag, protection::r | protection::u));
    EXPECT_TRUE(cache.contains(kTag, page(1)));
    EXPECT_EQ(cache.hits(size_4KiB), 0u);
    // Nor made younger.
    cache.insert(kTag, page(3), at(0x3000, size_4KiB));
    EXPECT_FALSE(cache.contains(kTag, page(1)));
    EXPECT_TRUE(hits(cache, page(2), kTag, protection::r | protection::u));
    // The walk's answer takes the entry's place.
    cache.insert(kTag, page(2), at(0x7000, size_4KiB, protection::rw));
    EXPECT_EQ(cache.find(kTag, page(2), protection::w), at(0x7000, size_4KiB));
    EXPECT_EQ(cache.valid_entries(size_4KiB), 2u);
    EXPECT_EQ(cache.evictions(size_4KiB), 1u);
}

TEST(TranslationCache, LruEvictsWhatWasUsedLongestAgoAndFifoWhatCameFirst) {
    for (const TlbReplacement replacement : {TlbReplacement::lru, TlbReplacement::fifo}) {
        TranslationCache cache = cache_of({4, 4}, replacement);
        for (std::uint64_t i = 0; i < 4; ++i) cache.insert(kTag, page(i), at(i << 12, size_4KiB));
        EXPECT_TRUE(hits(cache, page(0)));
        EXPECT_EQ(cache.evictions(size_4KiB), 0u);
        cache.insert(kTag, page(4), at(0x4000, size_4KiB));
        EXPECT_EQ(cache.contains(kTag, page(0)), replacement == TlbReplacement::lru);
        EXPECT_EQ(cache.contains(kTag, page(1)), replacement == TlbReplacement::fifo);
        EXPECT_EQ(cache.evictions(size_4KiB), 1u);
        EXPECT_EQ(cache.valid_entries(size_4KiB), 4u);
    }
}

TEST(TranslationCache, RandomEvictsEveryWayByAndByAndTheSameEachTime) {
    const auto survivors = [] {
        TranslationCache cache = cache_of({8, 8}, TlbReplacement::random);
        for (std::uint64_t i = 0; i < 64; ++i) cache.insert(kTag, page(i), at(i << 12, size_4KiB));
        std::vector<std::uint64_t> left;
        for (std::uint64_t i = 0; i < 64; ++i)
            if (cache.contains(kTag, page(i))) left.push_back(i);
        return left;
    };
    const auto left = survivors();
    EXPECT_EQ(left.size(), 8u);
    EXPECT_EQ(left, survivors());
    EXPECT_NE(left, (std::vector<std::uint64_t>{56, 57, 58, 59, 60, 61, 62, 63}));
    EXPECT_GE(left.front(), 8u) << "one of the first was never chosen in 56 evictions";
}

TEST(TranslationCache, SetsAreOfTheLowBitsOfThePageNumber) {
    TranslationCache direct = cache_of({16, 1});
    direct.insert(kTag, page(3), at(0x3000, size_4KiB));
    direct.insert(kTag, page(4), at(0x4000, size_4KiB));
    direct.insert(kTag, page(19), at(0x5000, size_4KiB));
    EXPECT_FALSE(direct.contains(kTag, page(3)));
    EXPECT_TRUE(direct.contains(kTag, page(4)));
    // Two ways keep both.
    TranslationCache pairs = cache_of({32, 2});
    for (const std::uint64_t i : {3, 19}) pairs.insert(kTag, page(i), at(i << 12, size_4KiB));
    EXPECT_TRUE(hits(pairs, page(3)) && hits(pairs, page(19)) && hits(pairs, page(3)));
}

TEST(TranslationCache, ASizeWithoutEntriesIsNotCached) {
    TranslationCache cache = cache_of({4, 4}, TlbReplacement::lru, {0, 1}, {0, 1});
    cache.insert(kTag, VirtAddr(0), at(0, size_2MiB));
    cache.insert(kTag, VirtAddr(0), at(0, size_1GiB));
    EXPECT_FALSE(hits(cache, VirtAddr(0)));
    EXPECT_EQ(cache.reach_bytes(), 0u);
    EXPECT_EQ(cache.drop_all(), 0u);
}

TEST(TranslationCache, DroppingARangeTakesEveryPageWithAByteInItAndNoOther) {
    TranslationCache cache = cache_of({64, 4});
    for (std::uint64_t i = 0; i < 32; ++i)
        for (const TlbTag tag : {kTag, kOther}) cache.insert(tag, page(i), at(i << 12, size_4KiB));
    cache.insert(kTag, VirtAddr(2_MiB), at(0, size_2MiB));
    cache.insert(kTag, VirtAddr(4_MiB), at(0, size_2MiB));
    cache.insert(kTag, VirtAddr(1_GiB), at(0, size_1GiB));
    EXPECT_EQ(cache.drop(kTag, page(3), 0), 0u);
    EXPECT_EQ(cache.drop(kTag, page(3), 2 * kPageSize), 2u);
    EXPECT_FALSE(cache.contains(kTag, page(3)) || cache.contains(kTag, page(4)));
    EXPECT_TRUE(cache.contains(kTag, page(2)) && cache.contains(kTag, page(5)));
    EXPECT_TRUE(cache.contains(kOther, page(3)));
    // One page of a large one takes it; its neighbour stays.
    EXPECT_EQ(cache.drop(kTag, VirtAddr(4_MiB - kPageSize), kPageSize), 1u);
    EXPECT_FALSE(cache.contains(kTag, VirtAddr(2_MiB)));
    EXPECT_TRUE(cache.contains(kTag, VirtAddr(4_MiB)));
    EXPECT_EQ(cache.drop(kTag, VirtAddr(2_GiB - 1), 1), 1u);
    // A range with more pages than there are sets.
    EXPECT_EQ(cache.drop(kTag, page(6), 1_GiB), 27u);
    EXPECT_TRUE(cache.contains(kTag, page(5)));
    EXPECT_EQ(cache.drop(kTag), 4u);
    EXPECT_EQ(cache.reach_bytes(), 32 * kPageSize);
    EXPECT_EQ(cache.drop_all(), 32u);
    EXPECT_EQ(cache.reach_bytes(), 0u);
    EXPECT_EQ(cache.broken_invariant(), std::nullopt);
}

// --- against a model ---

// Sets of the pages of one size, the next victim first.
class ModelArray {
  public:
    ModelArray(TlbGeometry geometry, bool is_lru)
        : ways_(geometry.ways), sets_(geometry.entries / geometry.ways), is_lru_(is_lru) {}

    using Key = std::pair<std::uint32_t, std::uint64_t>;  // tag, page
    struct Line {
        Key key;
        Translation first_byte;
    };
    std::list<Line>& set_of(Key key) { return sets_[key.second % sets_.size()]; }
    Line* find(Key key) {
        for (Line& line : set_of(key))
            if (line.key == key) return &line;
        return nullptr;
    }
    void use(Key key) {
        auto& set = set_of(key);
        for (auto line = set.begin(); is_lru_ && line != set.end(); ++line)
            if (line->key == key) return set.splice(set.end(), set, line);
    }
    void insert(Key key, const Translation& first_byte) {
        if (sets_.empty()) return;
        auto& set = set_of(key);
        set.remove_if([&](const Line& line) { return line.key == key; });
        if (set.size() == ways_) {
            set.pop_front();
            ++evictions;
        }
        set.push_back({key, first_byte});
    }
    std::uint64_t drop(std::uint32_t tag, std::uint64_t first, std::uint64_t last) {
        std::uint64_t dropped = 0;
        for (auto& set : sets_)
            dropped += set.remove_if([&](const Line& line) {
                return line.key.first == tag && line.key.second >= first && line.key.second <= last;
            });
        return dropped;
    }
    std::uint64_t valid() const {
        std::uint64_t count = 0;
        for (const auto& set : sets_) count += set.size();
        return count;
    }
    std::uint64_t evictions = 0, hits = 0;
    bool empty() const { return sets_.empty(); }

  private:
    std::size_t ways_;
    std::vector<std::list<Line>> sets_;
    bool is_lru_;
};

TlbGeometry any_geometry(bool may_be_empty) {
    const auto ways = *rc::gen::inRange<std::uint32_t>(1, 6);
    const auto sets = *rc::gen::element<std::uint32_t>(may_be_empty ? 0 : 1, 1, 2, 4, 8);
    return {ways * sets, ways};
}

RC_GTEST_PROP(TranslationCache, IsItsSets, ()) {
    const std::array geometries = {any_geometry(false), any_geometry(true), any_geometry(true)};
    const bool is_lru = *rc::gen::arbitrary<bool>();
    TranslationCache cache({geometries[0], geometries[1], geometries[2],
                            is_lru ? TlbReplacement::lru : TlbReplacement::fifo});
    std::vector<ModelArray> model;
    model.reserve(geometries.size());
    for (const TlbGeometry& geometry : geometries) model.emplace_back(geometry, is_lru);
    const auto steps = *rc::gen::inRange(1, 200);
    for (int step = 0; step < steps; ++step) {
        const auto tag = *rc::gen::inRange<std::uint32_t>(1, 4);
        // Few pages of each size, in both halves of the address space.
        const std::uint64_t half = *rc::gen::element<std::uint64_t>(0, 0xffff'8000'0000'0000);
        const VirtAddr address(half + *rc::gen::inRange<std::uint64_t>(0, 4) * 1_GiB +
                               *rc::gen::inRange<std::uint64_t>(0, 4) * 2_MiB +
                               *rc::gen::inRange<std::uint64_t>(0, 8) * 4_KiB +
                               *rc::gen::inRange<std::uint64_t>(0, 4096));
        const Protection access(*rc::gen::inRange<std::uint8_t>(0, 16));
        switch (*rc::gen::weightedElement<int>({{5, 0}, {4, 1}, {1, 2}})) {
            case 0: {
                std::optional<Translation> expected;
                bool contained = false;
                for (std::size_t i = 0; i < 3 && !expected; ++i) {
                    const PageSize size = TranslationCache::kSizes[i];
                    if (model[i].empty()) continue;
                    const ModelArray::Key key{tag, address.bits() >> static_cast<unsigned>(size)};
                    const auto* const line = model[i].find(key);
                    contained |= line != nullptr;
                    if (line == nullptr || !line->first_byte.protection.permits(access)) continue;
                    expected = line->first_byte;
                    expected->physical = expected->physical + (address.bits() & (bytes(size) - 1));
                    model[i].use(key);
                    ++model[i].hits;
                }
                const bool by_hint = *rc::gen::arbitrary<bool>();
                const auto* const hint =
                    by_hint ? cache.find_at_hint<size_4KiB>(TlbTag(tag), address, access) : nullptr;
                if (hint != nullptr)
                    RC_ASSERT(TranslationCache::translation<size_4KiB>(*hint, address) == expected);
                else
                    RC_ASSERT(cache.find(TlbTag(tag), address, access) == expected);
                if (!expected) RC_ASSERT(cache.contains(TlbTag(tag), address) == contained);
                break;
            }
            case 1: {
                const auto i = *rc::gen::inRange<std::size_t>(0, 3);
                const PageSize size = TranslationCache::kSizes[i];
                const std::uint64_t offset = address.bits() & (bytes(size) - 1);
                const std::uint64_t base =
                    *rc::gen::inRange<std::uint64_t>(0, 1u << 20) * bytes(size) &
                    0x000f'ffff'ffff'f000;
                const Protection protection = access | protection::r;
                cache.insert(TlbTag(tag), address, at(base + offset, size, protection));
                model[i].insert({tag, address.bits() >> static_cast<unsigned>(size)},
                                at(base, size, protection));
                break;
            }
            default: {
                const std::uint64_t length =
                    *rc::gen::element<std::uint64_t>(1, 4_KiB, 24_KiB, 2_MiB, 3_GiB);
                const std::uint64_t end = address.bits() + (length - 1);
                std::uint64_t dropped = 0;
                for (std::size_t i = 0; i < 3; ++i) {
                    const auto shift = static_cast<unsigned>(TranslationCache::kSizes[i]);
                    dropped += model[i].drop(tag, address.bits() >> shift, end >> shift);
                }
                RC_ASSERT(cache.drop(TlbTag(tag), address, length) == dropped);
                break;
            }
        }
        RC_ASSERT(!cache.broken_invariant());
        for (std::size_t i = 0; i < 3; ++i) {
            const PageSize size = TranslationCache::kSizes[i];
            RC_ASSERT(cache.valid_entries(size) == model[i].valid());
            RC_ASSERT(cache.evictions(size) == model[i].evictions);
            RC_ASSERT(cache.hits(size) == model[i].hits);
        }
    }
}

}  // namespace
}  // namespace holdfast::test
