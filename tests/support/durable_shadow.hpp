// What a crash could leave of a pool, at its two extremes, at every point where the program asks
// libpmem for something:
//   - nothing reached the medium but what was flushed and fenced (every dirty line was lost);
//   - every store reached it (every dirty line was evicted just before the crash).
// The states between them, line by line, are the crash harness's business.
//
// It listens at the crash harness's boundary with libpmem. One thread, one pool at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tracer/boundary.hpp"

namespace holdfast::test {

// A pool's image as its differences from the one at the start.
struct CrashImage {
    std::string point;  // which event the crash comes before
    bool everything_evicted = false;
    std::map<std::uint64_t, std::vector<std::byte>> pages;  // by page number
};

class DurableShadow final : public crash::BoundaryObserver {
  public:
    // Everything in [pool, pool + size_bytes) counts as durable now.
    DurableShadow(std::byte* pool, std::size_t size_bytes);
    ~DurableShadow() override;
    DurableShadow(const DurableShadow&) = delete;
    DurableShadow& operator=(const DurableShadow&) = delete;

    // Looks away from now on; the pool may be closed.
    void stop();
    // Adds the two images of a crash at this moment.
    void crash_here(const std::string& point);
    // Both images before every event so far, without repetitions.
    const std::vector<CrashImage>& images() const { return images_; }
    // The file's bytes as of `image`.
    void write(const CrashImage& image, const std::string& path) const;

    bool flush(const void* address, std::size_t size_bytes, const void* caller) override;
    bool drain(const void* caller) override;
    bool copy(void* destination, const void* source, int byte, std::size_t size_bytes,
              unsigned flags, const void* caller) override;

  private:
    void flushed(const void* address, std::size_t size_bytes, const char* what);
    void fenced();
    void add(const std::string& point, const std::byte* bytes, bool everything_evicted);

    std::byte* pool_;
    std::size_t size_bytes_;
    std::vector<std::byte> start_, durable_;
    std::vector<std::pair<std::size_t, std::vector<std::byte>>> pending_;  // line contents
    std::vector<CrashImage> images_;
    std::uint64_t events_ = 0;
};

}  // namespace holdfast::test
