// What the system gives and says: a file descriptor that is closed in the end, and its errors as
// ours.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <utility>

#include "holdfast/error.hpp"

namespace holdfast::pool {

class Descriptor {
  public:
    explicit Descriptor(int number) : number_(number) {}
    ~Descriptor() {
        if (number_ >= 0) close(number_);
    }
    Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        std::swap(number_, other.number_);
        return *this;
    }
    int number() const { return number_; }
    explicit operator bool() const { return number_ >= 0; }

  private:
    int number_;
};

inline ErrorCode code_of(int error_number) {
    switch (error_number) {
        case ENOENT:
        case ENOTDIR:
            return ErrorCode::not_found;
        case EEXIST:
            return ErrorCode::already_exists;
        case EACCES:
        case EPERM:
        case EROFS:
            return ErrorCode::permission_denied;
        case ENOSPC:
        case EFBIG:
        case EDQUOT:
        case ENOMEM:
            return ErrorCode::no_space;
        default:
            return ErrorCode::io;
    }
}

}  // namespace holdfast::pool
