// A processor walks the tables in the pool, and agrees with `Space::translate` about every access:
// the same bytes, or the same fault. Each test prints who walked: the processor itself (EPT, NPT),
// or KVM in its place.
//
// ctest-timeout: 60
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <ostream>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "format/entry.hpp"
#include "holdfast/holdfast.hpp"
#include "store/store_state.hpp"
#include "support/access_model.hpp"
#include "support/access_prober.hpp"
#include "support/temporary_pool.hpp"
#include "support/virtual_machine.hpp"

namespace holdfast {

// How GoogleTest shows the parameter of a test.
static void PrintTo(Levels levels, std::ostream* out) { *out << static_cast<unsigned>(levels); }

namespace {

using namespace literals;
using format::Entry;
using test::Access;
using test::AccessKind;
using test::AccessProber;
using test::kLandingOffset;
using test::kWordBytes;
using test::MemoryModel;
using test::must;
using test::Outcome;
using test::Privilege;
using test::value_of;

// Where the guest's kernel lies in each space: canonical with four levels and with five.
constexpr VirtAddr kKernelBase{0xffff'c123'4560'0000};
const Range kKernelRange = AccessProber::footprint(kKernelBase);

constexpr std::array kKinds = {AccessKind::read, AccessKind::write, AccessKind::execute};
constexpr std::array kPrivileges = {Privilege::supervisor, Privilege::user};
constexpr std::array kProtections = {
    protection::r,
    protection::rw,
    protection::rx,
    protection::rwx,
    protection::r | protection::u,
    protection::rw | protection::u,
    protection::rx | protection::u,
    protection::rwx | protection::u,
};

// All accesses to one page: the supervisor's read, write and fetch, then the user's.
std::vector<Access> six_accesses(VirtAddr page) {
    std::vector<Access> accesses;
    for (const Privilege privilege : kPrivileges)
        for (const AccessKind kind : kKinds)
            accesses.push_back(
                {.address = page + (kind == AccessKind::execute ? kLandingOffset : 8 * kWordBytes),
                 .kind = kind,
                 .privilege = privilege,
                 .value = 0x0123'4567'89ab'cdef});
    return accesses;
}

void append(std::vector<Access>& accesses, const std::vector<Access>& more) {
    accesses.insert(accesses.end(), more.begin(), more.end());
}

// Whether this machine lets the guest's tables decide about the access.
bool is_observable(const Access& access) {
    static const std::optional<Range> taken = test::VirtualMachine::taken_from_user_mode();
    return access.privilege == Privilege::supervisor || !taken || !taken->contains(access.address);
}

void expect_agreement(std::span<const Access> accesses, std::span<const Outcome> expected,
                      std::span<const Outcome> actual) {
    const std::vector<std::string> found = test::disagreements(accesses, expected, actual);
    for (std::size_t i = 0; i < std::min<std::size_t>(found.size(), 10); ++i)
        ADD_FAILURE() << found[i];
    EXPECT_EQ(found.size(), 0u) << "of " << accesses.size() << " accesses";
}

// The words on the way from the root to the leaf or the absent entry, highest level first, read
// straight from the regions: neither by holdfast's walk nor by the processor's.
std::vector<std::uint64_t*> path_to(const Store& store, const Space& space, VirtAddr address) {
    const std::vector<RegionInfo> regions = store.regions();
    std::vector<std::uint64_t*> path;
    std::uint64_t table = space.root().bits();
    for (unsigned level = static_cast<unsigned>(space.levels()); level > 0; --level) {
        const auto region = std::ranges::find_if(regions, [&](const RegionInfo& candidate) {
            return table - candidate.physical_base.bits() < candidate.size_bytes;
        });
        if (region == regions.end()) test::stop_test("a table lies in no region");
        const std::byte* const word = region->address + (table - region->physical_base.bits()) +
                                      sizeof(Entry) * format::slot_of(address, level);
        path.push_back(reinterpret_cast<std::uint64_t*>(const_cast<std::byte*>(word)));
        if (!Entry(*path.back()).is_present()) break;
        table = *path.back() & Entry::kFrameMask;
    }
    return path;
}

bool is_dirty(const Store& store, const Space& space, VirtAddr page) {
    return *path_to(store, space, page).back() & Entry::kDirty;
}

class KvmWalk : public testing::TestWithParam<Levels> {
  protected:
    void SetUp() override {
        if (const auto reason = test::VirtualMachine::unavailable_reason())
            GTEST_SKIP() << "no virtual machine here: " << *reason;
        if (!test::VirtualMachine::supports(GetParam()))
            GTEST_SKIP()
                << "the processor, or KVM on it, has no five levels of tables (LA57, CPUID "
                   "leaf 7, ECX bit 16)";
        fmt::print("{}\n", test::VirtualMachine::walker());
        if (const auto taken = test::VirtualMachine::taken_from_user_mode())
            fmt::print("left out: user-mode accesses to {:#x} .. {:#x}, which kvm_pvm keeps\n",
                       taken->start.bits(), taken->end().bits() - 1);
        store_.emplace(pool_.create());
        space_.emplace(make_space("walked"));
    }

    Space make_space(const std::string& name) {
        return value_of(store_->create_space(name, {.levels = GetParam()}));
    }
    AccessProber install(const Space& space) {
        return AccessProber::install(*store_, space, kKernelBase);
    }
    MemoryModel memory_of(const Space& space) const {
        return {space, test::resident_pages(space, kKernelRange)};
    }
    // Maps pages and fills them.
    void map(Range range, Protection protection) {
        must(space_->map(range, protection));
        fill(range);
    }
    void fill(Range range) {
        for (std::uint64_t i = 0; i < range.pages(); ++i)
            test::fill_page(*space_, range.start + i * kPageSize, 0);
    }

    const test::TemporaryPool pool_;
    std::optional<Store> store_;
    std::optional<Space> space_;
};

std::string name_of(const testing::TestParamInfo<Levels>& info) {
    return info.param == Levels::four ? "FourLevels" : "FiveLevels";
}
INSTANTIATE_TEST_SUITE_P(Levels, KvmWalk, testing::Values(Levels::four, Levels::five), name_of);

// Both sides against a table written by hand from SDM vol. 3A, 4.6 and 4.7, with CR0.WP = 1,
// EFER.NXE = 1 and no SMEP or SMAP: the supervisor may also execute the user's pages.
TEST_P(KvmWalk, EachKindOfFault) {
    constexpr std::uint64_t kOk = ~std::uint64_t{0};
    struct Row {
        Protection protection;
        std::array<std::uint64_t, 6> error_codes;  // in the order of six_accesses
    };
    constexpr std::array rows = {
        Row{protection::r, {kOk, 0x03, 0x11, 0x05, 0x07, 0x15}},
        Row{protection::rw, {kOk, kOk, 0x11, 0x05, 0x07, 0x15}},
        Row{protection::rx, {kOk, 0x03, kOk, 0x05, 0x07, 0x15}},
        Row{protection::rwx, {kOk, kOk, kOk, 0x05, 0x07, 0x15}},
        Row{protection::r | protection::u, {kOk, 0x03, 0x11, kOk, 0x07, 0x15}},
        Row{protection::rw | protection::u, {kOk, kOk, 0x11, kOk, kOk, 0x15}},
        Row{protection::rx | protection::u, {kOk, 0x03, kOk, kOk, 0x07, kOk}},
        Row{protection::rwx | protection::u, {kOk, kOk, kOk, kOk, kOk, kOk}},
    };
    constexpr std::array<std::uint64_t, 6> kAbsent = {0x00, 0x02, 0x10, 0x04, 0x06, 0x14};

    std::vector<Access> accesses;
    std::vector<std::uint64_t> error_codes;
    const auto add = [&](VirtAddr page, const std::array<std::uint64_t, 6>& codes) {
        append(accesses, six_accesses(page));
        error_codes.insert(error_codes.end(), codes.begin(), codes.end());
    };
    for (const VirtAddr base : {VirtAddr(0x40'0000), VirtAddr(0xffff'9000'0000'0000)}) {
        VirtAddr page = base;
        for (const Row& row : rows) {
            map({page, kPageSize}, row.protection);
            add(page, row.error_codes);
            page = page + kPageSize;
        }
        // Demand-zero pages beside the others, a whole demand-zero table's worth, and nothing.
        must(space_->map({page, kPageSize}, protection::rwx | protection::u, {.lazy = true}));
        add(page, kAbsent);
        must(space_->map({base + 2_MiB, 2_MiB}, protection::rwx | protection::u, {.lazy = true}));
        add(base + 3_MiB, kAbsent);
        add(page + kPageSize, kAbsent);
        add(base + 1_GiB, kAbsent);
        add(base + 512_GiB, kAbsent);
    }

    AccessProber prober = install(*space_);
    MemoryModel memory = memory_of(*space_);
    const auto expected = test::expected_outcomes(*space_, accesses, memory);
    const auto actual = prober.run(accesses);
    expect_agreement(accesses, expected, actual);
    for (std::size_t i = 0; i < accesses.size(); ++i) {
        SCOPED_TRACE(accesses[i].to_string());
        if (error_codes[i] == kOk) {
            EXPECT_EQ(actual[i].vector, test::vector::kBreakpoint);
        } else {
            EXPECT_EQ(actual[i].vector, test::vector::kPageFault);
            EXPECT_EQ(actual[i].error_code, error_codes[i]);
            EXPECT_EQ(actual[i].fault_address, accesses[i].address);
        }
    }
    memory.expect_equal();
    test::expect_clean(*store_);
}

// A leaf of 2 MiB, as far as its last page; parts of one that was split; and one that is copied on
// write.
TEST_P(KvmWalk, HugePages) {
    constexpr VirtAddr kBase{0x4000'0000};
    const MapOptions kHuge{.page_size = PageSize::size_2MiB};
    std::vector<Access> accesses;
    VirtAddr start = kBase;
    for (const Protection protection : kProtections) {
        must(space_->map({start, 2_MiB}, protection, kHuge));
        fill({start, 2_MiB});
        for (const std::uint64_t page : {0, 1, 300, 511})
            append(accesses, six_accesses(start + page * kPageSize));
        start = start + 2_MiB;
    }
    must(space_->unmap({kBase + 16 * kPageSize, kPageSize}));
    append(accesses, six_accesses(kBase + 15 * kPageSize));
    append(accesses, six_accesses(kBase + 16 * kPageSize));
    ASSERT_EQ(space_->translate(kBase)->page_size, PageSize::size_4KiB);
    ASSERT_EQ(space_->translate(kBase + 2_MiB)->page_size, PageSize::size_2MiB);
    Space fork = value_of(store_->fork_space(space_->name(), "fork"));
    for (Space* const space : {&*space_, &fork}) {
        AccessProber prober = install(*space);
        MemoryModel memory = memory_of(*space);
        const auto expected = test::expected_outcomes(*space, accesses, memory);
        expect_agreement(accesses, expected, prober.run(accesses));
        memory.expect_equal();
        // The next is another's alone.
        must(fork.write(kBase + 2_MiB, std::as_bytes(std::span("x", 1))));
    }
    ASSERT_EQ(fork.translate(kBase + 2_MiB)->page_size, PageSize::size_2MiB);
    ASSERT_NE(fork.translate(kBase + 2_MiB)->physical, space_->translate(kBase + 2_MiB)->physical);
    test::expect_clean(*store_);
}

// A device's, by leaves of both sizes, and that of zeros, which nobody may write.
TEST_P(KvmWalk, FixedFrames) {
    const std::string file = pool_.path() + ".device";
    const unsigned region = value_of(store_->add_device_region(file, {.size_bytes = 4_MiB}));
    const VirtAddr small(0x4000'0000), large(0x5000'0000), zeros(0x6000'0000);
    must(space_->map({small, 3 * kPageSize}, protection::rwx | protection::u,
                     {.device = DeviceMapping{.region = region}}));
    must(space_->map({large, 2_MiB}, protection::rw,
                     {.page_size = PageSize::size_2MiB,
                      .device = DeviceMapping{.region = region, .offset = 2_MiB}}));
    must(space_->map({zeros, 3 * kPageSize}, protection::rw | protection::u, {.lazy = true}));
    fill({small, 3 * kPageSize});
    fill({large, 2_MiB});
    std::vector<Access> accesses;
    for (const std::uint64_t page : {0, 2}) {
        must(space_->fault(zeros + page * kPageSize, protection::r));
        append(accesses, six_accesses(small + page * kPageSize));
        append(accesses, six_accesses(large + page * 100 * kPageSize));
        append(accesses, six_accesses(zeros + page * kPageSize));
    }
    const FrameNumber zero = space_->translate(zeros)->physical.frame();
    ASSERT_EQ(space_->translate(zeros + 2 * kPageSize)->physical.frame(), zero);
    AccessProber prober = install(*space_);
    MemoryModel memory = memory_of(*space_);
    const auto expected = test::expected_outcomes(*space_, accesses, memory);
    expect_agreement(accesses, expected, prober.run(accesses));
    memory.expect_equal();
    test::expect_clean(*store_);  // zeros still
    std::filesystem::remove(file);
}

TEST_P(KvmWalk, NonCanonicalAddressesRaiseGeneralProtection) {
    const std::uint64_t half = std::uint64_t{1} << (virtual_address_bits(GetParam()) - 1);
    const VirtAddr last_of_user_half(half - kPageSize);
    const VirtAddr first_of_supervisor_half(0 - half);
    for (const VirtAddr page : {last_of_user_half, first_of_supervisor_half})
        map({page, kPageSize}, protection::rwx | protection::u);

    std::vector<Access> accesses;
    for (const std::uint64_t page :
         {half, 0 - half - kPageSize, half << 1, std::uint64_t{1} << 63,
          std::uint64_t{0x1234'5678'9abc'd000}, last_of_user_half.bits() | std::uint64_t{1} << 62,
          first_of_supervisor_half.bits() & ~(std::uint64_t{1} << 60)})
        append(accesses, six_accesses(VirtAddr(page)));
    const std::size_t non_canonical = accesses.size();
    append(accesses, six_accesses(last_of_user_half));
    append(accesses, six_accesses(first_of_supervisor_half));
    std::erase_if(accesses, [](const Access& access) { return !is_observable(access); });

    AccessProber prober = install(*space_);
    MemoryModel memory = memory_of(*space_);
    const auto expected = test::expected_outcomes(*space_, accesses, memory);
    const auto actual = prober.run(accesses);
    expect_agreement(accesses, expected, actual);
    for (std::size_t i = 0; i < accesses.size(); ++i)
        EXPECT_EQ(actual[i].vector,
                  i < non_canonical ? test::vector::kGeneralProtection : test::vector::kBreakpoint)
            << accesses[i].to_string();
}

// holdfast's own upper entries permit everything, so here some are restricted by hand, with tags
// that fit: whatever one level forbids stays forbidden (SDM vol. 3A, 4.6).
TEST_P(KvmWalk, PermissionIsTheAndAlongThePath) {
    const auto levels = static_cast<unsigned>(GetParam());
    std::vector<Access> accesses;
    std::uint64_t root_slot = 0;
    for (unsigned level = 2; level <= levels; ++level)
        for (const Protection upper : kProtections) {
            // Each restricted entry has a subtree of its own.
            VirtAddr page(++root_slot << (virtual_address_bits(GetParam()) - 9));
            std::vector<VirtAddr> pages;
            for (const Protection leaf : kProtections) {
                map({page, kPageSize}, leaf);
                append(accesses, six_accesses(page));
                pages.push_back(page);
                page = page + kPageSize;
            }
            std::uint64_t* const word = path_to(*store_, *space_, pages.front())[levels - level];
            const Entry entry(*word);
            const auto target = store_->state().memory.valid_metadata(entry.frame());
            ASSERT_TRUE(target);
            *word = entry
                        .with_protection(
                            upper, table::place_of(space_->state().root(), pages.front(), level),
                            target->generation)
                        .bits();
            for (std::size_t i = 0; i < pages.size(); ++i) {
                const auto place = space_->translate(pages[i]);
                ASSERT_TRUE(place) << place.error().to_string();
                EXPECT_EQ(place->protection, upper & kProtections[i]);
            }
        }
    AccessProber prober = install(*space_);
    MemoryModel memory = memory_of(*space_);
    const auto expected = test::expected_outcomes(*space_, accesses, memory);
    expect_agreement(accesses, expected, prober.run(accesses));
    memory.expect_equal();
    test::expect_clean(*store_);
}

TEST_P(KvmWalk, SetsAccessedAndDirtyAndNothingElse) {
    constexpr VirtAddr kRead(0x10'0000'0000), kWritten(0x20'0000'0000), kRefused(0x30'0000'0000),
        kUntouched(0x40'0000'0000);
    for (const VirtAddr page : {kRead, kWritten, kUntouched})
        map({page, kPageSize}, protection::rw | protection::u);
    map({kRefused, kPageSize}, protection::r);
    const std::vector<Access> accesses = {
        {.address = kRead, .kind = AccessKind::read, .privilege = Privilege::user},
        {.address = kWritten, .kind = AccessKind::write, .privilege = Privilege::user, .value = 1},
        {.address = kRefused, .kind = AccessKind::write, .privilege = Privilege::user, .value = 1},
    };
    const auto bits_of = [&](VirtAddr page) {
        std::vector<std::uint64_t> bits;
        for (const std::uint64_t* word : path_to(*store_, *space_, page)) bits.push_back(*word);
        return bits;
    };
    AccessProber prober = install(*space_);
    MemoryModel memory = memory_of(*space_);
    const auto expected = test::expected_outcomes(*space_, accesses, memory);
    std::vector<std::vector<std::uint64_t>> before;
    for (const VirtAddr page : {kRead, kWritten, kRefused, kUntouched})
        before.push_back(bits_of(page));
    expect_agreement(accesses, expected, prober.run(accesses));

    constexpr std::uint64_t kFlags = Entry::kAccessed | Entry::kDirty;
    std::size_t number = 0;
    for (const VirtAddr page : {kRead, kWritten, kRefused, kUntouched}) {
        const std::vector<std::uint64_t> after = bits_of(page);
        ASSERT_EQ(after.size(), static_cast<std::size_t>(GetParam()));
        for (std::size_t i = 0; i < after.size(); ++i) {
            SCOPED_TRACE(fmt::format("page {:#x}, level {}", page.bits(), after.size() - i));
            EXPECT_EQ(after[i] & ~kFlags, before[number][i] & ~kFlags);
            // SDM vol. 3A, 4.8. A speculative walk may set A where no access was made; D never.
            if (page == kRead || page == kWritten) {
                EXPECT_TRUE(after[i] & Entry::kAccessed);
            }
            EXPECT_EQ((after[i] & Entry::kDirty) != 0, page == kWritten && i + 1 == after.size());
        }
        ++number;
    }
    // The tag covers neither flag.
    test::expect_clean(*store_);
    memory.expect_equal();
}

// --- the test itself is tested: what does not agree must be noticed ---

TEST_P(KvmWalk, AnotherProtectionIsNoticed) {
    constexpr Range kPages{VirtAddr(0x40'0000), 2 * kPageSize};
    map(kPages, protection::rw | protection::u);
    std::vector<Access> accesses = six_accesses(kPages.start);
    append(accesses, six_accesses(kPages.start + kPageSize));
    AccessProber prober = install(*space_);
    MemoryModel memory = memory_of(*space_);
    const auto expected = test::expected_outcomes(*space_, accesses, memory);
    const auto disagreements_with = [&](Protection protection) {
        must(space_->protect({kPages.start, kPageSize}, protection));
        fill(kPages);
        return test::disagreements(accesses, expected, prober.run(accesses));
    };
    EXPECT_EQ(disagreements_with(protection::rw | protection::u).size(), 0u);
    // Both writes, and the user's read, which no longer finds what the supervisor wrote.
    EXPECT_EQ(disagreements_with(protection::r | protection::u).size(), 3u);
    // The supervisor's fetch, the user's read and write.
    EXPECT_EQ(disagreements_with(protection::rwx).size(), 3u);
    EXPECT_EQ(disagreements_with(protection::rw | protection::u).size(), 0u);
}

// One entry damaged in the pool: the processor checks no tag and obeys it, so that it disagrees
// about that page and about no other; and `verify` names the damage.
TEST_P(KvmWalk, EachDamagedBitIsNoticed) {
    constexpr VirtAddr kPage(0x40'0000), kOther(0x40'1000);
    constexpr Range kPages{kPage, 2 * kPageSize};
    map(kPages, protection::r | protection::u);
    const std::vector<Access> to_page = six_accesses(kPage), to_other = six_accesses(kOther);
    AccessProber prober = install(*space_);
    MemoryModel memory = memory_of(*space_);
    const auto expected = test::expected_outcomes(*space_, to_page, memory);
    const auto expected_other = test::expected_outcomes(*space_, to_other, memory);
    expect_agreement(to_page, expected, prober.run(to_page));

    std::uint64_t* const word = path_to(*store_, *space_, kPage).back();
    const std::uint64_t whole = *word;
    const std::uint64_t other_frame = *path_to(*store_, *space_, kOther).back() & Entry::kFrameMask;
    struct Damage {
        const char* what;
        std::uint64_t bits;
    };
    for (const Damage& damage : {
             Damage{"P", whole ^ Entry::kPresent},
             Damage{"R/W", whole ^ Entry::kWritable},
             Damage{"U/S", whole ^ Entry::kUser},
             Damage{"NX", whole ^ Entry::kNoExecute},
             Damage{"PFN", (whole & ~Entry::kFrameMask) | other_frame},
         }) {
        SCOPED_TRACE(damage.what);
        *word = damage.bits;
        EXPECT_FALSE(test::disagreements(to_page, expected, prober.run(to_page)).empty());
        EXPECT_FALSE(store_->verify().clean());
        *word = whole;
        fill(kPages);
        expect_agreement(to_page, expected, prober.run(to_page));
        expect_agreement(to_other, expected_other, prober.run(to_other));
    }
    test::expect_clean(*store_);
}

// --- random spaces ---

class RandomSpaces {
  public:
    RandomSpaces(std::uint64_t seed, Levels levels) : random_(seed), levels_(levels) {
        const std::uint64_t half = std::uint64_t{1} << (virtual_address_bits(levels) - 1);
        // The corners of both halves, places where tables of each level meet, and anywhere.
        for (const std::uint64_t place :
             {std::uint64_t{0}, half - kSpanBytes, 0 - half, 0 - kSpanBytes, 1_GiB - 20 * kPageSize,
              512_GiB - 20 * kPageSize, 0 - 512_GiB - 20 * kPageSize, 0x40'0000 - 20 * kPageSize})
            places_.push_back(VirtAddr(place));
        for (int i = 0; i < 8; ++i)
            places_.push_back(VirtAddr::truncated(random_() & ~(kPageSize - 1), levels));
    }

    // One call of the interface. Calls that cannot work here, such as a map over a mapping, are
    // refused, and change nothing.
    void change(Space& space, const Space& other) {
        const Range range = any_range();
        const auto roll = below(100);
        Result<void> done;
        if (roll < 50)
            done = space.map(range, any_protection(), {.lazy = roll < 10});
        else if (roll < 65)
            done = share(space, range, below(2) == 0 ? space : other);
        else if (roll < 75)
            done = space.unmap(range);
        else if (roll < 90)
            done = space.protect(range, any_protection());
        else
            done = space.write(range.start, std::array{std::byte{1}});
        if (done) return;
        const ErrorCode code = done.error().code;
        EXPECT_TRUE(code == ErrorCode::overlap || code == ErrorCode::not_mapped ||
                    code == ErrorCode::permission_denied)
            << done.error().message;
    }

    Access any_access(const std::vector<VirtAddr>& pages) {
        Access access{.kind = kKinds[below(kKinds.size())],
                      .privilege = kPrivileges[below(kPrivileges.size())],
                      .value = random_()};
        VirtAddr page;
        const auto roll = below(100);
        if (roll < 60 && !pages.empty())
            page = pages[below(pages.size())];
        else if (roll < 85)
            page = any_range().start;
        else if (roll < 90)
            page = VirtAddr::truncated(random_() & ~(kPageSize - 1), levels_);
        else if (roll < 95)
            page = VirtAddr(random_() & ~(kPageSize - 1));
        else  // often non-canonical
            page = VirtAddr(any_range().start.bits() ^ std::uint64_t{1} << (47 + below(17)));
        access.address =
            page +
            (access.kind == AccessKind::execute
                 ? kLandingOffset + kWordBytes * below((kPageSize - kLandingOffset) / kWordBytes)
             : access.kind == AccessKind::write ? kWordBytes * below(kLandingOffset / kWordBytes)
                                                : below(kPageSize - kWordBytes + 1));
        // Not where the guest itself runs.
        const bool usable = !kKernelRange.contains(page) && is_observable(access);
        return usable ? access : any_access(pages);
    }

  private:
    static constexpr std::uint64_t kSpanBytes = 40 * kPageSize;

    std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
    Protection any_protection() { return kProtections[below(kProtections.size())]; }
    Range any_range() {
        const std::uint64_t first = below(kSpanBytes / kPageSize);
        const std::uint64_t pages =
            1 + below(std::min<std::uint64_t>(12, kSpanBytes / kPageSize - first));
        return {places_[below(places_.size())] + first * kPageSize, pages * kPageSize};
    }
    Result<void> share(Space& space, Range range, const Space& source) {
        const auto pages = test::resident_pages(source, kKernelRange);
        if (pages.empty()) return {};
        const VirtAddr page = pages[below(pages.size())];
        return space.map_shared(range, any_protection(), source, {page, kPageSize});
    }

    std::mt19937_64 random_;
    const Levels levels_;
    std::vector<VirtAddr> places_;
};

bool same(const std::expected<Translation, Fault>& a, const std::expected<Translation, Fault>& b) {
    if (a.has_value() != b.has_value()) return false;
    return a ? *a == *b : a.error().kind == b.error().kind && a.error().entry == b.error().entry;
}

TEST_P(KvmWalk, RandomSpacesAgree) {
    constexpr int kRounds = 3, kChanges = 150;
    const std::uint64_t seed = test::test_seed();
    SCOPED_TRACE(fmt::format("HOLDFAST_SEED={:#x} repeats this", seed));
    RandomSpaces random(seed, GetParam());
    std::vector<std::string> names = {"walked", "other"};
    make_space(names[1]);
    for (const std::string& name : names) install(value_of(store_->open_space(name)));
    space_.reset();

    std::size_t went_through = 0, absent = 0, refused = 0, non_canonical = 0, in_all = 0;
    std::chrono::duration<double> seconds{};
    for (int round = 0; round < kRounds; ++round) {
        // The tables come back as they are, wherever the pool is in this process now.
        store_.reset();
        store_.emplace(pool_.open());
        for (int i = 0; i < kChanges; ++i) {
            Space space = value_of(store_->open_space(names[i % 2]));
            random.change(space, value_of(store_->open_space(names[1 - i % 2])));
        }
        for (const std::string& name : names) {
            SCOPED_TRACE(fmt::format("round {}, space {}", round, name));
            const Space space = value_of(store_->open_space(name));
            const auto pages = test::resident_pages(space, kKernelRange);
            for (const VirtAddr page : pages) test::fill_page(space, page, seed + round);
            MemoryModel memory(space, pages);
            std::vector<Access> accesses(2 * AccessProber::kBatch);
            for (Access& access : accesses) access = random.any_access(pages);
            const auto expected = test::expected_outcomes(space, accesses, memory);
            std::vector<std::expected<Translation, Fault>> translations;
            translations.reserve(accesses.size());
            for (const Access& access : accesses)
                translations.push_back(space.translate(access.address));
            std::set<VirtAddr> dirty_pages;
            for (const VirtAddr page : pages)
                if (is_dirty(*store_, space, page)) dirty_pages.insert(page);

            AccessProber prober(*store_, space, kKernelBase);
            const auto start = std::chrono::steady_clock::now();
            const auto actual = prober.run(accesses);
            seconds += std::chrono::steady_clock::now() - start;

            expect_agreement(accesses, expected, actual);
            memory.expect_equal();
            in_all += accesses.size();
            std::size_t changed = 0, not_accessed = 0;
            for (std::size_t i = 0; i < accesses.size(); ++i) {
                const Access& access = accesses[i];
                changed += !same(space.translate(access.address), translations[i]);
                if (actual[i].vector == test::vector::kPageFault)
                    ++(actual[i].error_code & test::page_fault::kPresent ? refused : absent);
                non_canonical += actual[i].vector == test::vector::kGeneralProtection;
                if (actual[i].vector != test::vector::kBreakpoint) continue;
                ++went_through;
                for (const std::uint64_t* word : path_to(*store_, space, access.address))
                    not_accessed += !(*word & Entry::kAccessed);
                if (access.kind == AccessKind::write)
                    dirty_pages.insert(access.address.page_floor());
            }
            EXPECT_EQ(changed, 0u) << "translations changed by the run";
            EXPECT_EQ(not_accessed, 0u) << "entries that were used without A being set";
            for (const VirtAddr page : pages)
                EXPECT_EQ(is_dirty(*store_, space, page), dirty_pages.contains(page))
                    << fmt::format("D of page {:#x}", page.bits());
        }
        test::expect_clean(*store_);
    }
    fmt::print("{} accesses, {:.0f} a second: {} went through, {} met nothing, {} were refused, ",
               in_all, static_cast<double>(in_all) / seconds.count(), went_through, absent,
               refused);
    fmt::print("{} were non-canonical\n", non_canonical);
    // That the run was worth its time: each kind often.
    for (const std::size_t count : {went_through, absent, refused, non_canonical})
        EXPECT_GT(count, in_all / 100);
}

}  // namespace
}  // namespace holdfast
