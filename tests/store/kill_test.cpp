// ctest-labels: noasan
// ctest-timeout: 600
//
// A child works on a pool, says through a pipe what was acknowledged, and is killed at a random
// moment; the parent reopens and checks: exactly the acknowledged state, or that and the one call
// in flight. One pool lives through all rounds.
#include <fmt/format.h>
#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "oracle/calls.hpp"
#include "support/model.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using oracle::Call;
using oracle::Calls;
using oracle::Random;
using oracle::random_calls;

struct Acknowledgement {
    std::uint64_t number = 0;
    std::uint8_t succeeded = 0;
    std::uint8_t code = 0;
};

// Never returns: works until it is killed.
[[noreturn]] void work(const std::string& path, std::uint64_t seed, int pipe) {
    auto store = Store::open(path, {.emulation = PmemEmulation::on});
    if (!store) _exit(2);
    const char ready = 'r';
    if (write(pipe, &ready, 1) != 1) _exit(3);
    Random random(seed);
    for (std::uint64_t number = 0;; ++number) {
        const Calls calls = random_calls(random, seed ^ number);
        const Result<void> outcome = run(*store, calls);
        const Acknowledgement done{
            number, outcome.has_value(),
            outcome ? std::uint8_t{0} : static_cast<std::uint8_t>(outcome.error().code)};
        if (write(pipe, &done, sizeof done) != sizeof done) _exit(3);
        if (number % 16 != 15) continue;
        if (const auto released = store->release_limbo(3); !released) {
            fmt::print(stderr, "release_limbo: {}\n", released.error().message);
            _exit(4);
        }
    }
}

// `write` is two steps where it is the first to a demand-zero page: the page gets its frame, of
// zeros, and then the bytes, which are not durable before `persist`. A kill in between leaves the
// first.
Calls with_its_bytes_missing(Calls calls, const Model& model) {
    Call& call = calls.front();
    const auto space = model.spaces.find(call.space);
    if (calls.size() != 1 || call.verb != Call::Verb::write || space == model.spaces.end())
        return calls;
    const auto page = space->second.pages.find(call.range.start.bits() / kPageSize);
    if (page != space->second.pages.end() && page->second.frame == 0) call.word = 0;
    return calls;
}

// Whether the store is as the model says, without failing the test if it is not.
bool matches(const Store& store, const Model& model) {
    testing::TestPartResultArray failures;
    const testing::ScopedFakeTestPartResultReporter reporter(
        testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &failures);
    return agrees(store, model) && failures.size() == 0;
}

TEST(Kill, WhatWasAcknowledgedIsThereAndNothingIsTorn) {
    const std::uint64_t seed = test_seed();
    Random random(seed);
    const char* given = std::getenv("HOLDFAST_KILL_ROUNDS");
    const unsigned rounds = given != nullptr ? static_cast<unsigned>(std::atoi(given)) : 300;
    const TemporaryPool pool;
    pool.create(24 << 20);
    Model model;
    std::uint64_t acknowledged = 0, in_flight_done = 0, refused = 0;
    for (unsigned round = 0; round < rounds; ++round) {
        int ends[2];
        ASSERT_EQ(pipe(ends), 0);
        const std::uint64_t child_seed = random();
        const auto delay = std::chrono::microseconds(random() % 15000);
        // Now and then also while the child still opens the pool, which replays the logs that the
        // child before it has left.
        const bool early = random() % 6 == 0;
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            close(ends[0]);
            work(pool.path(), child_seed, ends[1]);
        }
        close(ends[1]);
        char ready = 0;
        if (!early) {
            ASSERT_EQ(read(ends[0], &ready, 1), 1) << "the child ended before it was ready";
        }
        std::this_thread::sleep_for(early ? delay / 5 : delay);
        kill(child, SIGKILL);
        int status = 0;
        waitpid(child, &status, 0);
        ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself: " << WEXITSTATUS(status);

        if (early) (void)!read(ends[0], &ready, 1);
        Random repeated(child_seed);
        std::uint64_t number = 0;
        for (Acknowledgement done; read(ends[0], &done, sizeof done) == sizeof done; ++number) {
            ASSERT_EQ(done.number, number);
            const Calls calls = random_calls(repeated, child_seed ^ number);
            const auto code = static_cast<ErrorCode>(done.code);
            if (done.succeeded == 0 && code == ErrorCode::no_space) {
                ++refused;  // the pool is small; nothing changed
                continue;
            }
            const auto expected = run(model, calls);
            const std::string what = calls.front().to_string();
            if (done.succeeded != 0) {
                ASSERT_FALSE(expected) << what << " should have " << to_string(*expected);
                ++acknowledged;
            } else {
                ASSERT_TRUE(expected) << what << " failed with " << to_string(code);
                EXPECT_EQ(to_string(*expected), std::string(to_string(code))) << what;
            }
        }
        close(ends[0]);

        const Store store = pool.open();
        const Calls in_flight = random_calls(repeated, child_seed ^ number);
        model.prune();
        Model after = model, half = model;
        if (!run(after, in_flight) && matches(store, after)) {
            model = std::move(after);
            ++in_flight_done;
        } else if (!run(half, with_its_bytes_missing(in_flight, model)) && matches(store, half)) {
            model = std::move(half);
        } else {
            std::string calls;
            for (const Call& call : in_flight) calls += call.to_string() + " ";
            ASSERT_TRUE(agrees(store, model))
                << "round " << round << ", call " << number << " in flight: " << calls;
        }
    }
    fmt::print("{} rounds, {} calls acknowledged, {} refused for space, {} in flight were done\n",
               rounds, acknowledged, refused, in_flight_done);
    EXPECT_GT(acknowledged, rounds) << "the children hardly worked: the test tests nothing";
}

}  // namespace
}  // namespace holdfast::test
