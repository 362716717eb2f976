// ctest-labels: noasan
//
// Damage in a store's structures is noticed or harmless, never a silently wrong translation: in a
// store at rest, and in what a crash has left. Here a sample; `holdfast crash faults --bits 0`
// flips every bit.
#include "faults/media_faults.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <thread>

#include "faults/answers.hpp"
#include "faults/fault_runner.hpp"
#include "faults/libpmemobj_structures.hpp"
#include "faults/structures.hpp"
#include "judge/scratch_folder.hpp"
#include "store/store_state.hpp"
#include "subjects/workloads.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::crash {
namespace {

using test::value_of;

FaultOutcome damage(const std::string& name, const FaultOptions& options) {
    FaultOutcome outcome = value_of(run_media_faults(value_of(find_workload(name)), options));
    for (const auto& violation : outcome.violations)
        ADD_FAILURE() << name << ": " << violation.fault.to_string() << ", " << violation.where
                      << ": " << violation.text;
    return outcome;
}

TEST(MediaFaults, AreNoticedOrHarmless) {
    for (const char* name : {"transaction", "unmap_shared", "map_lazy", "remove_space"}) {
        const FaultOutcome outcome = damage(name, {.bits_per_structure = 60,
                                                   .crash_states = 0,
                                                   .libpmemobj_faults = 0,
                                                   .seed = test::test_seed()});
        ASSERT_GT(outcome.at_rest.size(), 8U);
        for (const auto& [structure, counts] : outcome.at_rest) {
            EXPECT_GT(counts.tried, 0U) << structure;
            EXPECT_EQ(counts.tried, counts.noticed + counts.harmless) << structure;
            // No bit of a frame's metadata is without a check.
            if (structure.starts_with("metadata") && structure != "metadata of free") {
                EXPECT_EQ(counts.harmless, 0U) << structure;
            }
        }
    }
}

TEST(MediaFaults, InWhatACrashHasLeftAreNoticedOrHarmless) {
    std::uint64_t before = 0, after = 0;
    // A redo log alone, an undo log, a build that is interrupted, limbo.
    for (const char* name : {"map_one", "map_table", "unmap_range", "transaction_spaces"}) {
        const FaultOutcome outcome = damage(name, {.at_rest = false,
                                                   .crash_states = 6,
                                                   .faults_per_crash_state = 60,
                                                   .libpmemobj_faults = 0,
                                                   .seed = test::test_seed()});
        EXPECT_EQ(outcome.crash_states, 6U) << name;
        before += outcome.crash_states_before;
        after += outcome.crash_states - outcome.crash_states_before;
        std::uint64_t tried = 0, noticed = 0;
        for (const auto& [structure, counts] : outcome.crashed) {
            tried += counts.tried;
            noticed += counts.noticed;
            EXPECT_EQ(counts.tried, counts.noticed + counts.harmless) << structure;
        }
        EXPECT_EQ(tried, 360U) << name;
        EXPECT_GT(noticed, 100U) << name;
    }
    EXPECT_GT(before, 0U);
    EXPECT_GT(after, 0U);
}

TEST(MediaFaults, InLibpmemobjsOwnStructuresAreContainedAndCounted) {
    const FaultOutcome outcome = damage("transaction", {.bits_per_structure = 1,
                                                        .crash_states = 4,
                                                        .faults_per_crash_state = 1,
                                                        .libpmemobj_faults = 40,
                                                        .seed = test::test_seed()});
    std::uint64_t tried = 0, noticed = 0;
    for (const auto& [structure, counts] : outcome.libpmemobj) {
        tried += counts.tried;
        noticed += counts.noticed;
        EXPECT_EQ(counts.tried,
                  counts.noticed + counts.harmless + counts.wrong + counts.killed + counts.hung)
            << structure;
    }
    EXPECT_EQ(tried, 5 * 40U);
    EXPECT_GT(noticed, 0U) << "damage to the pool's header, at least, is noticed";
}

// A store to damage, and what it answers.
struct Fixture {
    Fixture() {
        const ScratchFolder folder;
        const std::string path = folder.path() + "/pool";
        Store store =
            value_of(Store::create(path, {.size_bytes = 12 << 20, .emulation = PmemEmulation::on}));
        Space space = value_of(store.create_space("a"));
        EXPECT_TRUE(space.map({VirtAddr(0x4000'0000), 4 * kPageSize}, protection::rw).has_value());
        const PhysAddr physical = space.translate(VirtAddr(0x4000'1000))->physical;
        data_offset = store.state().pool->offset_of(store.state().memory.host(physical.frame()));
        answers = value_of(answers_of(store));
        content = value_of(read_file(path));
    }
    std::vector<std::byte> content;
    std::uint64_t data_offset = 0;  // of the page at 0x40001000
    Answers answers;
};

// Data has no check: a flipped bit in it is the one thing that nobody notices. So it is what tells
// whether a wrong answer would be.
TEST(FaultRunner, TellsWrongAnswersFromTheRest) {
    const Fixture fixture;
    const MediaFault in_data{MediaFault::Kind::flip_bit, "data", fixture.data_offset, 0, 3};
    const MediaFault in_header{MediaFault::Kind::flip_bit, "pool header", 100, 0, 3};
    const MediaFault nowhere{MediaFault::Kind::copy_frame, "data", 1 << 20, 1 << 20, 0};
    const auto judged = value_of(
        judge_faults(fixture.content, fixture.answers, {in_header, in_data, nowhere, in_data}, 10));
    EXPECT_EQ(judged[0].fate, FaultFate::noticed);
    EXPECT_EQ(judged[1].fate, FaultFate::wrong);
    EXPECT_NE(judged[1].text.find("0x40001000"), std::string::npos) << judged[1].text;
    EXPECT_EQ(judged[2].fate, FaultFate::harmless);
    EXPECT_EQ(judged[3].fate, FaultFate::wrong);
}

// A judge that does with each fault what the fault's offset says, once it is planted.
FaultFate misbehave(const std::string& path, std::string& wrong) {
    std::byte first{};
    std::ifstream(path, std::ios::binary).read(reinterpret_cast<char*>(&first), 1);
    switch (std::to_integer<unsigned>(first)) {
        case 0:
            return FaultFate::harmless;
        case 1 << 0:
            raise(SIGKILL);
            break;
        case 1 << 1:
            raise(SIGSEGV);
            break;
        case 1 << 2:
            raise(SIGALRM);  // no hang, though it is what a timer would send
            break;
        case 1 << 3:
            _exit(0);
        case 1 << 4: {
            // Whatever it does not want to hear of.
            sigset_t all;
            sigfillset(&all);
            sigprocmask(SIG_SETMASK, &all, nullptr);
            for (;;) std::this_thread::yield();
        }
        case 1 << 5:
            for (;;) pause();
        case 1 << 6:
            wrong = "it says so";
            return FaultFate::wrong;
        default:
            break;
    }
    return FaultFate::noticed;
}

TEST(FaultRunner, AJudgeThatIsKilledAndOneThatHangsAreFindingsOfTheirKind) {
    const std::vector<std::byte> content(8192);
    std::vector<MediaFault> faults;
    faults.reserve(8);
    for (unsigned bit = 0; bit < 8; ++bit)
        faults.push_back({MediaFault::Kind::flip_bit, "first byte", 0, 0, bit});
    const auto judged = value_of(judge_faults(content, JudgePool(misbehave), faults, 0.4));
    using enum FaultFate;
    const FaultFate expected[] = {killed, killed, killed, killed, hung, hung, wrong, noticed};
    ASSERT_EQ(judged.size(), std::size(expected));
    for (std::size_t bit = 0; bit < judged.size(); ++bit)
        EXPECT_EQ(judged[bit].fate, expected[bit]) << bit << ": " << judged[bit].text;
    EXPECT_NE(judged[0].text.find("signal 9"), std::string::npos) << judged[0].text;
    EXPECT_NE(judged[2].text.find("signal 14"), std::string::npos) << judged[2].text;
    EXPECT_NE(judged[3].text.find("exit status 0"), std::string::npos) << judged[3].text;
    EXPECT_NE(judged[4].text.find("did not end in time"), std::string::npos) << judged[4].text;
    EXPECT_EQ(judged[6].text, "it says so");
}

TEST(FaultRunner, AJudgeThatHangsOnTheUndamagedPoolIsAnError) {
    const JudgePool hangs = [](const std::string&, std::string&) -> FaultFate {
        for (;;) pause();
    };
    const MediaFault any{MediaFault::Kind::flip_bit, "first byte", 0, 0, 0};
    const auto judged = judge_faults(std::vector<std::byte>(8192), hangs, {any}, 0.2);
    ASSERT_FALSE(judged);
    EXPECT_EQ(judged.error().code, ErrorCode::io);
}

TEST(FaultRunner, BeginsWithAnUndamagedStoreOnly) {
    Fixture fixture;
    fixture.answers.pages[1].word = 1;
    const auto judged = judge_faults(fixture.content, fixture.answers, {}, 10);
    EXPECT_TRUE(judged) << "there is nothing to judge";
    const MediaFault any{MediaFault::Kind::flip_bit, "data", fixture.data_offset, 0, 3};
    const auto refused = judge_faults(fixture.content, fixture.answers, {any}, 10);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::damaged);
}

// What no translation can tell, and what the faults above leave out: a lost write of a whole table.
TEST(MediaFaults, AnOlderTableInItsOwnPlaceIsFoundByVerify) {
    const test::TemporaryPool pool;
    std::vector<Structure> tables;
    Answers answers;
    {
        Store store = pool.create(12 << 20);
        Space space = value_of(store.create_space("a"));
        test::must(space.map({VirtAddr(0x401f'e000), 516 * kPageSize}, protection::rw));
        test::must(space.unmap({VirtAddr(0x401f'f000), 514 * kPageSize}));
        for (const Structure& each : value_of(structures_of(store)))
            if (each.kind == StructureKind::table) tables.push_back(each);
        answers = value_of(answers_of(store));
    }
    const auto content = value_of(read_file(pool.path()));
    const OpenOptions open{.emulation = PmemEmulation::on};
    unsigned wrong_answers = 0;
    for (const Structure& older : tables)
        for (const Structure& newer : tables) {
            if (older.offset == newer.offset || older.name != newer.name ||
                older.position.index != newer.position.index)
                continue;
            const MediaFault fault{MediaFault::Kind::copy_frame, newer.name, newer.offset,
                                   older.offset, 0};
            std::string wrong;
            {
                auto image = value_of(CrashImage::create(content));
                plant(image, fault);
                if (judge_damaged(image.path(), answers, wrong) != FaultFate::wrong) continue;
            }
            ++wrong_answers;
            auto image = value_of(CrashImage::create(content));
            plant(image, fault);
            EXPECT_FALSE(value_of(Store::open(image.path(), open)).verify().clean()) << wrong;
        }
    EXPECT_GT(wrong_answers, 0U) << "what is left out would have been noticed";
}

TEST(LibpmemobjLayout, IsTheOneInstalled) {
    Fixture fixture;
    std::map<std::string, unsigned> found;
    for (const FaultPlace& place : value_of(libpmemobj_structures(fixture.content)))
        ++found[place.structure];
    for (const char* name : {"pool header", "pool descriptor", "lane", "heap header", "zone header",
                             "chunk header", "run header"})
        EXPECT_GT(found[name], 0U) << name;
    std::fill(fixture.content.begin(), fixture.content.end(), std::byte{0});
    EXPECT_FALSE(libpmemobj_structures(fixture.content));
}

}  // namespace
}  // namespace holdfast::crash
