// ctest-labels: noasan
//
// The tracer: every store, exactly and in order, of code that knows nothing of it.
#include "tracer/store_tracer.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <immintrin.h>
#include <libpmem.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <thread>

#include "judge/scratch_folder.hpp"
#include "judge/traced_run.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::crash {
namespace {

using test::value_of;

// What the work does to a file of three pages, mapped at `base`.
Trace trace_of(const std::function<void(std::byte* base)>& work) {
    const ScratchFolder folder;
    const std::string path = folder.path() + "/pool";
    return value_of(trace_process(path, 30, [&](Operations&) -> Result<void> {
        std::size_t size = 0;
        void* const base =
            pmem_map_file(path.c_str(), 3 * 4096, PMEM_FILE_CREATE, 0600, &size, nullptr);
        if (base == nullptr) return fail(ErrorCode::io, pmem_errormsg());
        work(static_cast<std::byte*>(base));
        pmem_unmap(base, size);
        return {};
    }));
}

std::vector<std::string> text_of(const Trace& trace) {
    std::vector<std::string> text;
    text.reserve(trace.events.size());
    for (const Event& event : trace.events) text.push_back(to_string(event));
    return text;
}

using Text = std::vector<std::string>;

volatile std::uint64_t* word(std::byte* base, std::size_t at) {
    return reinterpret_cast<volatile std::uint64_t*>(base + at);
}

TEST(Tracer, RecordsStoresFlushesAndFencesInOrder) {
    const Trace trace = trace_of([](std::byte* base) {
        *word(base, 8) = 0x11;
        *word(base, 4096) = 0x22;
        pmem_persist(base + 8, 8);
        *word(base, 16) = 0x33;
        pmem_flush(base + 16, 8);
        pmem_drain();
    });
    EXPECT_EQ(text_of(trace),
              (Text{"store 0x8 8 bytes 0x11", "store 0x1000 8 bytes 0x22", "flush 0x8 8 bytes",
                    "fence", "store 0x10 8 bytes 0x33", "flush 0x10 8 bytes", "fence"}));
    EXPECT_TRUE(trace.complete);
    EXPECT_FALSE(trace.modules.empty());
    EXPECT_GE(trace.events.front().stack.size(), 2U);
}

TEST(Tracer, RecordsAStoreOfTheSameValue) {
    const Trace trace = trace_of([](std::byte* base) { *word(base, 64) = 0; });
    EXPECT_EQ(text_of(trace), (Text{"store 0x40 8 bytes 0x0"}));
}

TEST(Tracer, RecordsSmallStoresByTheirWord) {
    const Trace trace = trace_of([](std::byte* base) {
        *reinterpret_cast<volatile std::uint8_t*>(base + 3) = 0xff;
        *reinterpret_cast<volatile std::uint32_t*>(base + 4) = 0xabcd;
    });
    EXPECT_EQ(text_of(trace),
              (Text{"store 0x0 8 bytes 0xff000000", "store 0x0 8 bytes 0xabcdff000000"}));
}

TEST(Tracer, RecordsAStoreOverTwoLinesOrPagesAsOne) {
    const Trace trace = trace_of([](std::byte* base) {
        const std::uint64_t value = ~std::uint64_t{0};
        const auto store = [&](std::size_t at) {
            asm volatile("movq %1, (%0)" : : "r"(base + at), "r"(value) : "memory");
        };
        store(60);
        store(4092);
    });
    ASSERT_GE(trace.events.size(), 3U);
    EXPECT_EQ(to_string(trace.events[0]), "store 0x38 16 bytes");
    // Over two pages it is recorded by page; both are of one instruction.
    EXPECT_EQ(to_string(trace.events[1]), "store 0xff8 8 bytes 0xffffffff00000000");
    EXPECT_EQ(to_string(trace.events[2]), "store 0x1000 8 bytes 0xffffffff");
}

TEST(Tracer, RecordsVectorAndStringStores) {
    const Trace trace = trace_of([](std::byte* base) {
        const __m128i ones = _mm_set1_epi8(1);
        asm volatile("movdqu %1, (%0)" : : "r"(base + 128), "x"(ones) : "memory");
        std::byte* to = base + 256;
        const char source[4] = {1, 2, 3, 4};
        const char* from = source;
        std::size_t count = 4;
        asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    });
    ASSERT_EQ(trace.events.size(), 5U);
    EXPECT_EQ(to_string(trace.events[0]), "store 0x80 16 bytes");
    for (std::size_t i = 1; i < 5; ++i) EXPECT_EQ(trace.events[i].offset, 256U);
    EXPECT_EQ(to_string(trace.events[4]), "store 0x100 8 bytes 0x4030201");
}

TEST(Tracer, RecordsNonTemporalStores) {
    const Trace trace = trace_of(
        [](std::byte* base) { _mm_stream_si64(reinterpret_cast<long long*>(base + 64), 5); });
    EXPECT_EQ(text_of(trace), (Text{"store_nt 0x40 8 bytes 0x5"}));
}

TEST(Tracer, TakesLockedInstructionsForFences) {
    const Trace trace = trace_of([](std::byte* base) {
        std::atomic_ref<std::uint64_t> counter(*reinterpret_cast<std::uint64_t*>(base));
        counter.fetch_add(1);
        counter.exchange(7);
    });
    EXPECT_EQ(text_of(trace),
              (Text{"fence", "store 0x0 8 bytes 0x1", "fence", "store 0x0 8 bytes 0x7"}));
}

TEST(Tracer, RecordsLibpmemsCopiesByTheirFlags) {
    const Trace trace = trace_of([](std::byte* base) {
        const std::vector<char> bytes(512, 'x');
        pmem_memcpy(base, bytes.data(), 64, PMEM_F_MEM_NODRAIN);
        pmem_memcpy(base + 64, bytes.data(), 512, 0);
        pmem_memset(base + 1024, 1, 512, PMEM_F_MEM_NOFLUSH);
        pmem_memset_persist(base + 2048, 1, 16);
        pmem_memmove(base + 4096, bytes.data(), 16, PMEM_F_MEM_NONTEMPORAL | PMEM_F_MEM_NODRAIN);
    });
    EXPECT_EQ(text_of(trace),
              (Text{"store 0x0 64 bytes", "flush 0x0 64 bytes", "store_nt 0x40 512 bytes", "fence",
                    "store 0x400 512 bytes", "store 0x800 16 bytes", "flush 0x800 16 bytes",
                    "fence", "store_nt 0x1000 16 bytes"}));
}

TEST(Tracer, LosesNoStoreOfSeveralThreads) {
    constexpr unsigned kThreads = 4, kStores = 50;
    const Trace trace = trace_of([](std::byte* base) {
        std::vector<std::thread> threads;
        threads.reserve(kThreads);
        for (unsigned thread = 0; thread < kThreads; ++thread)
            threads.emplace_back([=] {
                // All in one page, so that they meet.
                for (unsigned i = 1; i <= kStores; ++i) *word(base, thread * 8) = i;
            });
        for (std::thread& thread : threads) thread.join();
    });
    std::map<std::uint64_t, std::uint64_t> last;
    std::set<std::uint16_t> seen;
    EXPECT_EQ(trace.stores(), kThreads * kStores);
    for (const Event& event : trace.events) {
        std::uint64_t value = 0;
        std::memcpy(&value, event.bytes.data(), sizeof value);
        EXPECT_EQ(value, last[event.offset] + 1) << "a store of a thread is missing";
        last[event.offset] = value;
        seen.insert(event.thread);
    }
    EXPECT_EQ(seen.size(), kThreads);
}

TEST(Tracer, SurvivesItsFile) {
    const Trace trace = trace_of([](std::byte* base) {
        *word(base, 8) = 0x11;
        pmem_persist(base, 64);
    });
    const std::vector<std::byte> bytes = trace.serialize();
    const Trace again = value_of(Trace::parse(bytes, "bytes"));
    EXPECT_EQ(text_of(again), text_of(trace));
    EXPECT_EQ(again.events.front().stack, trace.events.front().stack);
    EXPECT_EQ(again.modules.size(), trace.modules.size());
    // Cut short anywhere, it is refused and nothing else.
    for (std::size_t size = 0; size < bytes.size(); ++size)
        EXPECT_FALSE(Trace::parse(std::span(bytes).first(size), "bytes"));
    std::vector<std::byte> newer = bytes;
    newer[8] = std::byte{9};
    const auto refused = Trace::parse(newer, "bytes");
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("version 9"), std::string::npos);
}

TEST(TracedRun, ThatEndsBadlySaysHow) {
    const ScratchFolder folder;
    const std::string path = folder.path() + "/pool";
    const auto crashed = trace_process(path, 30, [](Operations&) -> Result<void> { std::abort(); });
    ASSERT_FALSE(crashed);
    EXPECT_NE(crashed.error().message.find("signal 6"), std::string::npos);
    const auto hung = trace_process(path, 0.2, [](Operations&) -> Result<void> {
        for (;;) std::this_thread::yield();
    });
    ASSERT_FALSE(hung);
    EXPECT_NE(hung.error().message.find("did not end within"), std::string::npos);
}

}  // namespace
}  // namespace holdfast::crash
