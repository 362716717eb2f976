// The software TLB: a hit for several geometries and page sizes, with entries of other spaces
// beside it; a miss; a switch; and what a change of one page costs those who remember 64.
//
// Look-ups are of random pages and independent of one another, as in translate.cpp. Pages of 2 MiB
// are handed to the TLB's cache, and looked up by the same two steps as Tlb::translate takes.
#include <fmt/format.h>

#include <memory>

#include "peers.hpp"
#include "suite.hpp"

namespace holdfast::bench {
namespace {

constexpr unsigned kPageBits = 12;
constexpr std::uint64_t kPages = std::uint64_t{1} << kPageBits;
const VirtAddr kStart{0x10'0000'0000};

VirtAddr address_of(std::uint64_t index) { return kStart + index * kPageSize; }

struct Spaces {
    Spaces() : store(std::uint64_t{64} << 20), first(make("first")), second(make("second")) {}
    Space make(const std::string& name) {
        Space space = store.space(name);
        store.map_shared(space, kStart, kPages);
        for (std::uint64_t page = 0; page < kPages; ++page)
            if (!space.translate(address_of(page))) stop("a page that was mapped is not");
        return space;
    }
    StoreFixture store;
    Space first, second;
};
std::unique_ptr<Spaces>& fixture() {
    static std::unique_ptr<Spaces> made;
    return made;
}
Spaces& spaces() {
    if (!fixture()) fixture() = std::make_unique<Spaces>();
    return *fixture();
}

Tlb tlb_of(const Space& space, TlbGeometry geometry) {
    return value_of(Tlb::create(space, {.geometries = {.pages_4KiB = geometry}}));
}

std::uint64_t bits_of(const std::expected<Translation, Fault>& found) {
    return found ? found->physical.bits() : 0;
}

// `look_up` takes an index below 2^kBits, and is part of the loop: a call would be measured as
// well.
template <unsigned kBits, typename LookUp>
[[gnu::flatten]] void independent(benchmark::State& state, const LookUp& look_up) {
    RandomIndex index = RandomIndex(64).with_bits(kBits);
    for (int i = 0; i < 1 << 16; ++i) keep(look_up(index.next()));
    for (auto _ : state) keep(look_up(index.next()));
}

template <unsigned kBits>
void add_hit(Suite& suite, const char* name, const char* words, TlbGeometry geometry, Goal goal) {
    const std::string full_name = fmt::format("tlb/hit/{}", name);
    suite
        .add(full_name,
             [=](benchmark::State& state) {
                 Tlb tlb = tlb_of(spaces().first, geometry);
                 independent<kBits>(state, [&](std::uint64_t index) {
                     return bits_of(tlb.translate(address_of(index), protection::r));
                 });
             })
        ->MinTime(0.03);
    suite.compare({fmt::format("TLB hit, {}", words), full_name, "", "", goal});
}

void add_hits(Suite& suite) {
    add_hit<6>(suite, "direct", "1024 entries, direct-mapped, 64 pages", {1024, 1}, at_most(2));
    add_hit<6>(suite, "4_ways", "1024 entries, 4 ways, 64 pages", {1024, 4}, at_most(2));
    add_hit<6>(suite, "16_ways", "1024 entries, 16 ways, 64 pages", {1024, 16}, at_most(2));
    add_hit<6>(suite, "full", "64 entries, fully associative, 64 pages", {64, 64}, at_most(2));
    add_hit<9>(suite, "512_pages", "1024 entries, 4 ways, 512 pages", {1024, 4}, kNoGoal);

    suite
        .add("tlb/hit/tagged",
             [](benchmark::State& state) {
                 Tlb tlb = tlb_of(spaces().second, {1024, 4});
                 for (std::uint64_t page = 0; page < 64; ++page)
                     keep(bits_of(tlb.translate(address_of(page))));
                 tlb.switch_to(spaces().first);
                 independent<6>(state, [&](std::uint64_t index) {
                     return bits_of(tlb.translate(address_of(index), protection::r));
                 });
             })
        ->MinTime(0.03);
    suite.compare({"TLB hit, beside the same 64 pages of another space", "tlb/hit/tagged", "", "",
                   at_most(2)});

    suite
        .add("tlb/hit/2MiB",
             [](benchmark::State& state) {
                 using enum PageSize;
                 TranslationCache cache(TlbGeometries{});
                 const TlbTag tag(1);
                 const auto address = [](std::uint64_t index) {
                     return kStart + index * bytes(size_2MiB);
                 };
                 for (std::uint64_t page = 0; page < 64; ++page)
                     cache.insert(tag, address(page),
                                  {PhysAddr(page * bytes(size_2MiB)), size_2MiB, protection::rw});
                 independent<6>(state, [&](std::uint64_t index) -> std::uint64_t {
                     const VirtAddr at = address(index);
                     if (const auto* hit = cache.find_at_hint<size_4KiB>(tag, at, protection::r))
                         return hit->word;
                     if (const auto* hit = cache.find_at_hint<size_2MiB>(tag, at, protection::r))
                         return TranslationCache::translation<size_2MiB>(*hit, at).physical.bits();
                     return 0;
                 });
             })
        ->MinTime(0.03);
    suite.compare({"TLB hit, 64 pages of 2 MiB", "tlb/hit/2MiB", "", "", at_most(2)});
}

// Each page changes hands, and is looked up with 63 others after each change.
template <typename AfterChange>
void change_and_look_up(benchmark::State& state, const AfterChange& after_change) {
    Space space = spaces().first;
    Tlb tlb(space);
    std::uint64_t round = 0;
    for (auto _ : state) {
        const Protection protection = round / 64 % 2 == 0 ? protection::r : protection::rw;
        must(space.protect({address_of(round % 64), kPageSize}, protection));
        after_change(tlb);
        for (std::uint64_t page = 0; page < 64; ++page)
            keep(bits_of(tlb.translate(address_of(page), protection::r)));
        ++round;
    }
    must(space.protect({address_of(0), 64 * kPageSize}, protection::rw));
}

void add(Suite& suite) {
    add_hits(suite);

    suite
        .add("tlb/miss",
             [](benchmark::State& state) {
                 Tlb tlb = tlb_of(spaces().first, {16, 4});
                 independent<kPageBits>(state, [&](std::uint64_t index) {
                     return bits_of(tlb.translate(address_of(index)));
                 });
             })
        ->MinTime(0.03);
    suite
        .add("tlb/walk",
             [](benchmark::State& state) {
                 independent<kPageBits>(state, [&space = spaces().first](std::uint64_t index) {
                     return bits_of(space.translate(address_of(index)));
                 });
             })
        ->MinTime(0.03);
    suite.compare({"TLB miss, 4096 pages on 16 entries", "tlb/miss", "tlb/walk",
                   "Space::translate alone", kNoGoal});

    suite
        .add("tlb/switch",
             [](benchmark::State& state) {
                 Tlb tlb(spaces().first);
                 for (auto _ : state) {
                     tlb.switch_to(spaces().second);
                     keep(bits_of(tlb.translate(address_of(1))));
                     tlb.switch_to(spaces().first);
                     keep(bits_of(tlb.translate(address_of(1))));
                 }
             })
        ->MinTime(0.03);
    suite.compare({"TLB: to another space and back, a hit in each", "tlb/switch", "", "", kNoGoal});

    suite
        .add("tlb/change/precise",
             [](benchmark::State& state) { change_and_look_up(state, [](Tlb&) {}); })
        ->MinTime(0.1);
    suite
        .add("tlb/change/flush",
             [](benchmark::State& state) {
                 change_and_look_up(state, [](Tlb& tlb) { tlb.flush(); });
             })
        ->MinTime(0.1);
    suite
        .add("tlb/change/alone",
             [](benchmark::State& state) {
                 Space space = spaces().first;
                 std::uint64_t round = 0;
                 for (auto _ : state) {
                     const Protection protection =
                         round / 64 % 2 == 0 ? protection::r : protection::rw;
                     must(space.protect({address_of(round++ % 64), kPageSize}, protection));
                 }
                 must(space.protect({address_of(0), 64 * kPageSize}, protection::rw));
             })
        ->MinTime(0.1);
    suite.compare({"protect 1 page, then look up 64", "tlb/change/precise", "tlb/change/flush",
                   "the same, all entries forgotten", below(1)});
    suite.compare({"protect 1 page, then look up 64", "tlb/change/precise", "tlb/change/alone",
                   "protect 1 page", kNoGoal});
}

void clean_up() { fixture().reset(); }

}  // namespace

Subject tlb_subject() { return {"tlb", add, clean_up}; }

}  // namespace holdfast::bench
