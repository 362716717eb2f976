// The persistency model against litmus tests: for each program the exact set of contents that a
// crash at its end may leave, no more and no fewer. Those named after a figure or example are the
// ones of the Px86 papers (POPL'20, POPL'21) and of the one on non-temporal stores (POPL'22), run
// in the interleaving that is written down; the others pin one rule (P1 … P7) each.
#include "model/persistency.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <string>
#include <vector>

namespace holdfast::crash {
namespace {

// Variables of 8 bytes. x, x2 and x3 share a line; y, z and w have one each.
enum Variable : std::uint64_t { x = 0, x2 = 8, x3 = 16, y = 64, z = 128, w = 192 };

class Litmus {
  public:
    explicit Litmus(PersistenceDomain domain = PersistenceDomain::adr) : model_(domain) {}

    Litmus& store(std::uint64_t at, std::uint64_t value, ThreadIndex thread = 0) {
        model_.store(thread, at, std::as_bytes(std::span(&value, 1)), false, event_++, initial_);
        return *this;
    }
    Litmus& store_nt(std::uint64_t at, std::uint64_t value, ThreadIndex thread = 0) {
        model_.store(thread, at, std::as_bytes(std::span(&value, 1)), true, event_++, initial_);
        return *this;
    }
    // One store of several words.
    Litmus& store_wide(std::uint64_t at, const std::vector<std::uint64_t>& values,
                       bool non_temporal = false) {
        model_.store(0, at, std::as_bytes(std::span(values)), non_temporal, event_++, initial_);
        return *this;
    }
    Litmus& clwb(std::uint64_t at, ThreadIndex thread = 0) {
        model_.flush(thread, at, 1);
        return *this;
    }
    Litmus& clflush(std::uint64_t at) {
        model_.flush_now(0, at, 1);
        return *this;
    }
    Litmus& sfence(ThreadIndex thread = 0) {
        model_.fence(thread);
        return *this;
    }

    using Outcome = std::vector<std::uint64_t>;
    // What the variables may hold after a crash here.
    std::set<Outcome> outcomes(const std::vector<std::uint64_t>& variables) const {
        std::vector<std::byte> image = initial_;
        for (const LineNumber line : model_.known_lines())
            std::memcpy(image.data() + line * kLineBytes, model_.durable(line).data(), kLineBytes);
        std::set<Outcome> result;
        expand(model_.pending(), 0, image, variables, result);
        return result;
    }

  private:
    void expand(const std::vector<LineNumber>& pending, std::size_t index,
                std::vector<std::byte>& image, const std::vector<std::uint64_t>& variables,
                std::set<Outcome>& result) const {
        if (index == pending.size()) {
            Outcome outcome;
            for (const std::uint64_t variable : variables) {
                std::uint64_t value = 0;
                std::memcpy(&value, image.data() + variable, sizeof value);
                outcome.push_back(value);
            }
            result.insert(outcome);
            return;
        }
        bool complete = false;
        const auto candidates = model_.candidates(pending[index], 100'000, &complete);
        EXPECT_TRUE(complete);
        EXPECT_EQ(candidates.front().bytes, model_.durable(pending[index]));
        if (model_.visible(pending[index]) != model_.durable(pending[index])) {
            EXPECT_EQ(candidates.back().bytes, model_.visible(pending[index]));
        }
        for (const Candidate& candidate : candidates) {
            std::memcpy(image.data() + pending[index] * kLineBytes, candidate.bytes.data(),
                        kLineBytes);
            expand(pending, index + 1, image, variables, result);
        }
    }

    std::vector<std::byte> initial_ = std::vector<std::byte>(4 * kLineBytes);
    PersistencyModel model_;
    EventIndex event_ = 0;
};

using testing::UnorderedElementsAre;
using Outcome = Litmus::Outcome;

// ---- stores alone (P2, P3) ---------------------------------------------------------------------

TEST(Px86, StoresToTwoLinesPersistInAnyOrder) {  // POPL'20, Fig. 1 (a)
    EXPECT_THAT(Litmus().store(x, 1).store(y, 1).outcomes({x, y}),
                UnorderedElementsAre(Outcome{0, 0}, Outcome{1, 0}, Outcome{0, 1}, Outcome{1, 1}));
}

TEST(Px86, StoresToOneLinePersistInOrder) {
    EXPECT_THAT(Litmus().store(x, 1).store(x2, 1).outcomes({x, x2}),
                UnorderedElementsAre(Outcome{0, 0}, Outcome{1, 0}, Outcome{1, 1}));
}

TEST(Px86, StoresToOneLocationPersistInOrder) {
    EXPECT_THAT(Litmus().store(x, 1).store(x, 2).outcomes({x}),
                UnorderedElementsAre(Outcome{0}, Outcome{1}, Outcome{2}));
}

TEST(Px86, StoresOfTwoThreadsToOneLinePersistInCoherenceOrder) {
    EXPECT_THAT(Litmus().store(x, 1, 0).store(x2, 1, 1).outcomes({x, x2}),
                UnorderedElementsAre(Outcome{0, 0}, Outcome{1, 0}, Outcome{1, 1}));
}

TEST(Px86, AnOldValueThatComesBackHidesNothing) {
    EXPECT_THAT(Litmus().store(x, 1).store(x, 0).outcomes({x}),
                UnorderedElementsAre(Outcome{0}, Outcome{1}));
}

// ---- flushes and fences (P4, P5) ---------------------------------------------------------------

TEST(Px86, ClwbAloneOrdersNothing) {  // POPL'20, Fig. 1: flush_opt needs a fence
    EXPECT_THAT(Litmus().store(x, 1).clwb(x).store(y, 1).outcomes({x, y}),
                UnorderedElementsAre(Outcome{0, 0}, Outcome{1, 0}, Outcome{0, 1}, Outcome{1, 1}));
}

TEST(Px86, ClwbAndFenceMakeDurable) {  // POPL'20, Fig. 1: flush_opt; sfence
    EXPECT_THAT(Litmus().store(x, 1).clwb(x).sfence().store(y, 1).outcomes({x, y}),
                UnorderedElementsAre(Outcome{1, 0}, Outcome{1, 1}));
}

TEST(Px86, FenceAloneMakesNothingDurable) {
    EXPECT_THAT(Litmus().store(x, 1).sfence().store(y, 1).outcomes({x, y}),
                UnorderedElementsAre(Outcome{0, 0}, Outcome{1, 0}, Outcome{0, 1}, Outcome{1, 1}));
}

TEST(Px86, ClflushMakesDurableAtOnce) {  // POPL'20, Fig. 1: flush
    EXPECT_THAT(Litmus().store(x, 1).clflush(x).store(y, 1).outcomes({x, y}),
                UnorderedElementsAre(Outcome{1, 0}, Outcome{1, 1}));
}

TEST(Px86, FlushOfOneVariableCoversItsLine) {
    EXPECT_THAT(Litmus().store(x, 1).store(x2, 1).clwb(x).sfence().outcomes({x, x2}),
                UnorderedElementsAre(Outcome{1, 1}));
}

TEST(Px86, FlushCoversWhatWasStoredBeforeItOnly) {
    EXPECT_THAT(Litmus().store(x, 1).clwb(x).store(x, 2).sfence().outcomes({x}),
                UnorderedElementsAre(Outcome{1}, Outcome{2}));
}

TEST(Px86, FlushBeforeTheStoreIsNone) {
    EXPECT_THAT(Litmus().clwb(x).store(x, 1).sfence().outcomes({x}),
                UnorderedElementsAre(Outcome{0}, Outcome{1}));
}

TEST(Px86, AFenceOfAnotherThreadDoesNotWait) {  // POPL'20: sfence orders its own thread's flushes
    EXPECT_THAT(Litmus().store(x, 1).clwb(x, 0).sfence(1).outcomes({x}),
                UnorderedElementsAre(Outcome{0}, Outcome{1}));
}

TEST(Px86, AThreadMayFlushWhatAnotherStored) {  // POPL'20, Fig. 2: the reader flushes
    EXPECT_THAT(Litmus().store(x, 1, 0).clwb(x, 1).sfence(1).store(y, 1, 1).outcomes({x, y}),
                UnorderedElementsAre(Outcome{1, 0}, Outcome{1, 1}));
}

TEST(Px86, TwoFlushesOneFence) {
    EXPECT_THAT(
        Litmus().store(x, 1).clwb(x).store(y, 1).clwb(y).sfence().store(z, 1).outcomes({x, y, z}),
        UnorderedElementsAre(Outcome{1, 1, 0}, Outcome{1, 1, 1}));
}

TEST(Px86, MessagePassingWithoutAFenceMayShowTheFlagAlone) {
    EXPECT_THAT(Litmus().store(x, 1).clwb(x).store(y, 1).clwb(y).outcomes({x, y}),
                UnorderedElementsAre(Outcome{0, 0}, Outcome{1, 0}, Outcome{0, 1}, Outcome{1, 1}));
}

TEST(Px86, OnePrefixOfTheLineEvenWhenItsMiddleIsFlushed) {
    EXPECT_THAT(
        Litmus().store(x, 1).clwb(x).sfence().store(x2, 1).store(x3, 1).outcomes({x, x2, x3}),
        UnorderedElementsAre(Outcome{1, 0, 0}, Outcome{1, 1, 0}, Outcome{1, 1, 1}));
}

// ---- tearing (P1) ------------------------------------------------------------------------------

TEST(Tearing, AWideStoreIsWordsInNoOrder) {
    EXPECT_THAT(Litmus().store_wide(x, {1, 1}).outcomes({x, x2}),
                UnorderedElementsAre(Outcome{0, 0}, Outcome{1, 0}, Outcome{0, 1}, Outcome{1, 1}));
}

TEST(Tearing, WhatFollowsInTheLineFollowsTheWholeWideStore) {
    EXPECT_THAT(Litmus().store_wide(x, {1, 1}).store(x3, 1).outcomes({x, x2, x3}),
                UnorderedElementsAre(Outcome{0, 0, 0}, Outcome{1, 0, 0}, Outcome{0, 1, 0},
                                     Outcome{1, 1, 0}, Outcome{1, 1, 1}));
}

TEST(Tearing, AMisalignedStoreIsTwoPieces) {
    // Four bytes in each of two words.
    constexpr std::uint64_t kHigh = 0xffff'ffff'0000'0000, kLow = 0xffff'ffff;
    EXPECT_THAT(Litmus().store(x + 4, ~std::uint64_t{0}).outcomes({x, x2}),
                UnorderedElementsAre(Outcome{0, 0}, Outcome{kHigh, 0}, Outcome{0, kLow},
                                     Outcome{kHigh, kLow}));
}

TEST(Tearing, AStoreOverTwoLinesIsTwoPieces) {
    constexpr std::uint64_t kHigh = 0xffff'ffff'0000'0000, kLow = 0xffff'ffff;
    EXPECT_THAT(Litmus().store(y - 4, ~std::uint64_t{0}).outcomes({y - 8, y}),
                UnorderedElementsAre(Outcome{0, 0}, Outcome{kHigh, 0}, Outcome{0, kLow},
                                     Outcome{kHigh, kLow}));
}

// ---- non-temporal stores (P6) ------------------------------------------------------------------

TEST(NonTemporal, PiecesOfOneLineAreInNoOrder) {
    EXPECT_THAT(Litmus().store_nt(x, 1).store_nt(x2, 1).outcomes({x, x2}),
                UnorderedElementsAre(Outcome{0, 0}, Outcome{1, 0}, Outcome{0, 1}, Outcome{1, 1}));
}

TEST(NonTemporal, AFenceMakesThemDurableWithoutAFlush) {
    EXPECT_THAT(Litmus().store_nt(x, 1).sfence().store(y, 1).outcomes({x, y}),
                UnorderedElementsAre(Outcome{1, 0}, Outcome{1, 1}));
}

TEST(NonTemporal, AFlushDoesNotReachThem) {
    EXPECT_THAT(Litmus().store_nt(x, 1).clflush(x).outcomes({x}),
                UnorderedElementsAre(Outcome{0}, Outcome{1}));
}

TEST(NonTemporal, AFenceOfAnotherThreadDoesNotWait) {
    EXPECT_THAT(Litmus().store_nt(x, 1, 0).sfence(1).outcomes({x}),
                UnorderedElementsAre(Outcome{0}, Outcome{1}));
}

TEST(NonTemporal, OneLocationKeepsItsOrder) {  // any subset, the later above the earlier
    EXPECT_THAT(Litmus().store_nt(x, 1).store_nt(x, 2).outcomes({x}),
                UnorderedElementsAre(Outcome{0}, Outcome{1}, Outcome{2}));
}

TEST(NonTemporal, MixedWithACachedStoreToTheSameLine) {
    EXPECT_THAT(Litmus().store(x, 1).store_nt(x2, 1).outcomes({x, x2}),
                UnorderedElementsAre(Outcome{0, 0}, Outcome{1, 0}, Outcome{0, 1}, Outcome{1, 1}));
}

TEST(NonTemporal, ADurableCachedStoreHidesAnOlderPieceThere) {
    EXPECT_THAT(Litmus().store_nt(x, 1, 0).store(x, 2, 1).clwb(x, 1).sfence(1).outcomes({x}),
                UnorderedElementsAre(Outcome{2}));
}

TEST(NonTemporal, ADurablePieceHidesAnOlderCachedStoreThere) {
    EXPECT_THAT(Litmus().store(x, 1).store_nt(x, 2).sfence().outcomes({x}),
                UnorderedElementsAre(Outcome{2}));
}

// ---- eADR (P7) ---------------------------------------------------------------------------------

TEST(Eadr, WhatIsVisibleIsDurable) {
    EXPECT_THAT(Litmus(PersistenceDomain::eadr).store(x, 1).store(y, 1).outcomes({x, y}),
                UnorderedElementsAre(Outcome{1, 1}));
}

TEST(Eadr, NonTemporalPiecesWaitForTheirFence) {
    EXPECT_THAT(Litmus(PersistenceDomain::eadr).store_nt(x, 1).store(y, 1).outcomes({x, y}),
                UnorderedElementsAre(Outcome{0, 1}, Outcome{1, 1}));
    EXPECT_THAT(
        Litmus(PersistenceDomain::eadr).store_nt(x, 1).sfence().store(y, 1).outcomes({x, y}),
        UnorderedElementsAre(Outcome{1, 1}));
}

// ---- the model's own arithmetic ----------------------------------------------------------------

TEST(Model, AFlushedAndFencedLineIsNotPending) {
    std::vector<std::byte> initial(kLineBytes);
    PersistencyModel model(PersistenceDomain::adr);
    const std::uint64_t one = 1;
    model.store(0, 0, std::as_bytes(std::span(&one, 1)), false, 0, initial);
    EXPECT_THAT(model.pending(), testing::ElementsAre(0));
    EXPECT_FALSE(model.fence_matters(0));
    model.flush(0, 0, 8);
    EXPECT_TRUE(model.fence_matters(0));
    EXPECT_FALSE(model.fence_matters(1));
    model.fence(0);
    EXPECT_THAT(model.pending(), testing::IsEmpty());
    EXPECT_THAT(model.take_newly_durable(), testing::ElementsAre(0));
    EXPECT_THAT(model.take_newly_durable(), testing::IsEmpty());
}

TEST(Model, AStoreOfTheSameValueLeavesOneCandidate) {
    std::vector<std::byte> initial(kLineBytes);
    PersistencyModel model(PersistenceDomain::adr);
    const std::uint64_t zero = 0;
    model.store(0, 0, std::as_bytes(std::span(&zero, 1)), false, 0, initial);
    EXPECT_THAT(model.pending(), testing::IsEmpty());
}

TEST(Model, TheLimitKeepsBothEnds) {
    std::vector<std::byte> initial(kLineBytes);
    PersistencyModel model(PersistenceDomain::adr);
    for (std::uint64_t value = 1; value <= 20; ++value)
        model.store(0, 0, std::as_bytes(std::span(&value, 1)), false,
                    static_cast<EventIndex>(value), initial);
    bool complete = true;
    const auto candidates = model.candidates(0, 5, &complete);
    EXPECT_FALSE(complete);
    ASSERT_EQ(candidates.size(), 5U);
    EXPECT_EQ(candidates.front().bytes, model.durable(0));
    EXPECT_EQ(candidates.back().bytes, model.visible(0));
    EXPECT_EQ(model.candidates(0, 1000, &complete).size(), 21U);
    EXPECT_TRUE(complete);
}

TEST(Model, ACandidateNamesTheStoresThatItLacksAndThatCameEarly) {
    std::vector<std::byte> initial(kLineBytes);
    PersistencyModel model(PersistenceDomain::adr);
    for (std::uint64_t value = 1; value <= 2; ++value)
        model.store(0, 0, std::as_bytes(std::span(&value, 1)), false,
                    static_cast<EventIndex>(6 + value), initial);
    bool complete = false;
    const auto candidates = model.candidates(0, 10, &complete);
    ASSERT_EQ(candidates.size(), 3U);
    EXPECT_THAT(candidates[1].early, testing::ElementsAre(7));
    EXPECT_THAT(candidates[1].missing, testing::ElementsAre(8));
}

}  // namespace
}  // namespace holdfast::crash
